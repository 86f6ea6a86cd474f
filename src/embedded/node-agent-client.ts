/** The commands of a person to a running node agent. */
import { randomUUID } from "node:crypto";
import { request as httpRequest } from "node:http";
import { text } from "node:stream/consumers";
import { counted } from "../runtime/counted.ts";
import { systemProblem } from "../runtime/system-problem.ts";
import type { AttachedWorkload, AttachRequest } from "./node-agent-attachments.ts";
import type { AgentPicture } from "./node-agent-control.ts";
import { NodeAgentError } from "./node-agent-error.ts";

/** Tools and proxies answer within seconds; this is for an agent that hangs. */
const ANSWER_MS_MAX = 60_000;

export interface AttachOptions {
  /** A name under /run/netns, or a path. Exactly one of this and `pid`. */
  readonly netns: string | undefined;
  /** A process in the namespace. */
  readonly pid: number | undefined;
  /** `NAMESPACE/NAME` */
  readonly workload: string;
  readonly serviceAccount: string;
  /** `undefined`: a random one. */
  readonly uid: string | undefined;
  readonly dnsCapture: boolean;
  /** Leaves plaintext that arrives alone. */
  readonly bypassInboundCapture?: boolean;
}

/**
 * Puts a namespace into the mesh.
 *
 * @param control path of the agent's socket.
 * @returns one line for the terminal.
 * @throws Error in words for an operator.
 */
export async function attach(control: string, options: AttachOptions): Promise<string> {
  const request: AttachRequest = {
    netnsPath: netnsPath(options),
    workload: {
      uid: options.uid ?? randomUUID(),
      ...parseWorkload(options.workload),
      serviceAccount: options.serviceAccount,
    },
    redirect: {
      dnsCapture: options.dnsCapture,
      inboundCapture: options.bypassInboundCapture !== true,
    },
  };
  const attached = (await call(control, "POST", "/attach", request)) as AttachedWorkload;
  return `attached ${describe(attached)}`;
}

/**
 * Takes a workload out of the mesh.
 *
 * @param wanted `NAMESPACE/NAME` or uid.
 * @returns one line for the terminal.
 * @throws Error in words for an operator.
 */
export async function detach(control: string, wanted: string): Promise<string> {
  const { workloads } = await picture(control);
  const { uid } = choose(workloads, wanted).workload;
  const path = `/detach?uid=${encodeURIComponent(uid)}`;
  return `detached ${describe((await call(control, "POST", path)) as AttachedWorkload)}`;
}

/**
 * @returns a table for the terminal, one line a workload.
 * @throws Error in words for an operator.
 */
export async function list(control: string): Promise<string> {
  return formatPicture(await picture(control));
}

/** @throws Error in words for an operator. */
export async function picture(control: string): Promise<AgentPicture> {
  return (await call(control, "GET", "/workloads")) as AgentPicture;
}

function formatPicture({ proxyCount, workloads }: AgentPicture): string {
  const rows = workloads.map(({ workload, netnsPath, redirect, standing }) => [
    `${workload.namespace}/${workload.name}`,
    workload.serviceAccount,
    netnsPath,
    [
      { captured: "ipv4+ipv6", "off-on-lo": "ipv4, no ipv6 on lo", absent: "ipv4" }[standing.ipv6],
      standing.backend,
      ...(redirect.inboundCapture ? [] : ["no inbound capture"]),
      ...(redirect.dnsCapture ? ["dns"] : []),
    ].join(", "),
    workload.uid,
  ]);
  const table = [["WORKLOAD", "SERVICE ACCOUNT", "NAMESPACE", "CAPTURE", "UID"], ...rows];
  const widths =
    table[0]?.map((_, i) => Math.max(...table.map((row) => row[i]?.length ?? 0))) ?? [];
  const lines = table.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] as number))
      .join("  ")
      .trimEnd(),
  );
  return `${lines.join("\n")}\n${counted(proxyCount, "proxy", "proxies")} connected`;
}

function parseWorkload(text: string): { namespace: string; name: string } {
  const [namespace, name, ...rest] = text.split("/");
  if (!namespace || !name || rest.length > 0) {
    throw new NodeAgentError("bad-request", `workload ${text} is not NAMESPACE/NAME`);
  }
  return { namespace, name };
}

function netnsPath({ netns, pid }: Pick<AttachOptions, "netns" | "pid">): string {
  if ((netns === undefined) === (pid === undefined)) {
    throw new NodeAgentError("bad-request", "exactly one of a netns and a pid is needed");
  }
  if (netns === undefined) return `/proc/${pid}/ns/net`;
  return netns.includes("/") ? netns : `/run/netns/${netns}`;
}

function choose(workloads: readonly AttachedWorkload[], wanted: string): AttachedWorkload {
  const found = workloads.filter(
    ({ workload }) =>
      workload.uid === wanted || `${workload.namespace}/${workload.name}` === wanted,
  );
  const [only, ...more] = found;
  if (only === undefined) throw new NodeAgentError("not-attached", `${wanted} is not attached`);
  if (more.length > 0) {
    const uids = found.map(({ workload }) => workload.uid).join(", ");
    throw new NodeAgentError("bad-request", `${wanted} is attached several times, as ${uids}`);
  }
  return only;
}

function describe({ workload, netnsPath: at, standing }: AttachedWorkload): string {
  const families = {
    captured: "IPv4 and IPv6",
    "off-on-lo": "IPv4; IPv6 leads nowhere, being off on loopback",
    absent: "IPv4 only",
  }[standing.ipv6];
  const rules = `${families}, by ${standing.backend}`;
  return `${workload.namespace}/${workload.name} at ${at} (${rules}, uid ${workload.uid})`;
}

function call(
  socketPath: string,
  method: string,
  path: string,
  body?: AttachRequest,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ socketPath, method, path, timeout: ANSWER_MS_MAX });
    request.on("timeout", () => {
      request.destroy(new Error(`no answer within ${ANSWER_MS_MAX} ms`));
    });
    request.on("error", (cause: NodeJS.ErrnoException) => {
      const isAbsent = cause.code === "ENOENT" || cause.code === "ECONNREFUSED";
      const reason = isAbsent ? "nobody listens, is it running?" : systemProblem(cause);
      reject(new Error(`node agent at ${socketPath}: ${reason}`, { cause }));
    });
    request.on("response", (response) => {
      text(response).then((json) => {
        const value: unknown = JSON.parse(json);
        if (response.statusCode === 200) resolve(value);
        else reject(new Error((value as { error: string }).error));
      }, reject);
    });
    request.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
