/** The node agent's control socket: small JSON over HTTP on a Unix path. The agent's end. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import { errorText } from "../runtime/error-text.ts";
import { systemProblem } from "../runtime/system-problem.ts";
import type { AttachedWorkload, Attachments, AttachRequest } from "./node-agent-attachments.ts";
import { NodeAgentError, type NodeAgentErrorCode } from "./node-agent-error.ts";

const STATUS: Readonly<Record<NodeAgentErrorCode, number>> = {
  "bad-request": 400,
  "no-netns": 404,
  "attached-already": 409,
  "not-attached": 404,
};

/** The answer to `GET /workloads`. */
export interface AgentPicture {
  /** Proxies in conversation with the agent. */
  readonly proxyCount: number;
  readonly workloads: readonly AttachedWorkload[];
}

/**
 * Serves the agent. The socket's file is for the owner only, as umask leaves it.
 *
 * @throws Error that names the path when it can't be listened on.
 */
export function serveControl(attachments: Attachments, controlPath: string): Promise<Server> {
  const server = createServer((request, response) => void respond(attachments, request, response));
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      reject(new Error(`can't listen on ${controlPath}: ${systemProblem(cause)}`, { cause }));
    });
    server.listen({ path: controlPath, exclusive: true }, () => resolve(server));
  });
}

/** Never rejects. */
async function respond(
  attachments: Attachments,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  let status = 200;
  let body: unknown;
  try {
    body = await answer(attachments, request);
  } catch (error) {
    status = error instanceof NodeAgentError ? STATUS[error.code] : 500;
    body = { error: errorText(error) };
  }
  response.writeHead(status, { "content-type": "application/json" });
  response.end(`${JSON.stringify(body)}\n`);
}

async function answer(attachments: Attachments, request: IncomingMessage): Promise<unknown> {
  const url = new URL(request.url ?? "/", "http://agent");
  switch (`${request.method} ${url.pathname}`) {
    case "GET /workloads":
      return {
        proxyCount: attachments.proxyCount,
        workloads: attachments.all,
      } satisfies AgentPicture;
    case "POST /attach":
      return attachments.attach(parseAttachRequest(await text(request)));
    case "POST /detach":
      return attachments.detach(url.searchParams.get("uid") ?? "");
    default:
      throw new NodeAgentError("bad-request", `no ${request.method} ${url.pathname} here`);
  }
}

function parseAttachRequest(json: string): AttachRequest {
  try {
    const { netnsPath, workload, redirect } = JSON.parse(json) as AttachRequest;
    const { uid, name, namespace, serviceAccount } = workload;
    const texts = { netnsPath, uid, name, namespace, serviceAccount };
    for (const [field, value] of Object.entries(texts)) {
      if (typeof value !== "string" || value === "") throw new Error(`${field} is missing`);
    }
    return {
      netnsPath,
      workload: { uid, name, namespace, serviceAccount },
      redirect: {
        dnsCapture: redirect.dnsCapture === true,
        inboundCapture: redirect.inboundCapture === true,
      },
    };
  } catch (cause) {
    const reason = errorText(cause);
    throw new NodeAgentError("bad-request", `bad attach request: ${reason}`, { cause });
  }
}
