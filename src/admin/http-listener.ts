/**
 * The HTTP/1.1 server under the three operator ports: a function from a question to an answer,
 * with limits on time, size and number.
 *
 * @see spec control-plane 7
 */
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { getSystemErrorMessage } from "node:util";
import { formatHostPort } from "../mesh/socket-address.ts";
import type { Clock } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Logger } from "../telemetry/logger.ts";
import { AdminError } from "./admin-error.ts";
import { ConnectionLimit } from "./connection-limit.ts";

export interface HttpQuestion {
  readonly method: string;
  /** Without the query; always begins with `/`. */
  readonly path: string;
  readonly query: URLSearchParams;
  /** Lower-case names. */
  readonly headers: IncomingMessage["headers"];
}

export interface HttpAnswer {
  readonly status: number;
  /** Lower-case names. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Pieces are sent as they come. When one fails, the connection is cut. */
  readonly body?: string | Uint8Array | AsyncIterable<string>;
  /** Called when the answer has been sent. */
  readonly sent?: () => void;
}

/** Thrown errors become status 500 with their message. */
export type AnswerHttp = (question: HttpQuestion) => HttpAnswer | Promise<HttpAnswer>;

export interface HttpListenerDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly answer: AnswerHttp;
}

export interface HttpLimits {
  /** Of a whole request, milliseconds. */
  readonly headerTimeoutMs: number;
  readonly headerBytesMax: number;
  readonly connectionsMax: number;
}

export interface HttpListenerOptions extends HttpLimits {
  /** As named in the log. */
  readonly component: "admin" | "readiness" | "stats";
  /**
   * IP addresses to listen on. The first must work; a further one that the machine does not have is
   * left out.
   */
  readonly hosts: readonly [string, ...string[]];
  /** 0 takes any that is free. */
  readonly port: number;
}

/** How often Node looks for connections whose header time is over. */
const TIMEOUT_CHECK_MS = 500;

/** What the kernel says of an address family or a loopback address that is switched off. */
const ADDRESS_MISSING: ReadonlySet<unknown> = new Set(["EADDRNOTAVAIL", "EAFNOSUPPORT"]);

export class HttpListener {
  readonly port: number;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #answer: AnswerHttp;
  readonly #options: HttpListenerOptions;
  readonly #servers: Server[] = [];
  #closed: Promise<void> | undefined;

  private constructor(deps: HttpListenerDeps, options: HttpListenerOptions, first: Server) {
    this.#clock = deps.clock;
    this.#log = deps.log.target("ztunnel::hyper_util");
    this.#answer = deps.answer;
    this.#options = options;
    this.port = (first.address() as { readonly port: number }).port;
    this.#serve(first);
  }

  /** @throws AdminError `bind` naming the address. */
  static async listen(deps: HttpListenerDeps, options: HttpListenerOptions): Promise<HttpListener> {
    const [firstHost, ...furtherHosts] = options.hosts;
    const first = await bind(options, firstHost, options.port);
    const listener = new HttpListener(deps, options, first);
    for (const host of furtherHosts) {
      try {
        listener.#serve(await bind(options, host, listener.port));
      } catch (error) {
        if (!isAddressMissing(error)) {
          await listener.close();
          throw error;
        }
      }
    }
    listener.#report("listener established");
    return listener;
  }

  /** Stops accepting at once and settles when the answers on their way have been sent. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#drain();
    return this.#closed;
  }

  async #drain(): Promise<void> {
    const ended = this.#servers.map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    );
    // Node no longer looks after half-sent requests once it stopped listening.
    const cut = this.#clock.after(
      this.#options.headerTimeoutMs,
      () => {
        for (const server of this.#servers) server.closeAllConnections();
      },
      true,
    );
    await Promise.all(ended);
    cut.cancel();
    this.#report("listener drained");
  }

  #serve(server: Server): void {
    this.#servers.push(server);
    new ConnectionLimit(server, this.#options.connectionsMax);
    server.on("request", (request, response) => void this.#respond(request, response));
    server.on("clientError", refuseBadRequest);
  }

  async #respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // Of requests sent ahead by somebody who has left.
    if (request.socket.destroyed) return;
    // Nobody sends a body that matters, and nobody may keep a connection busy with one.
    request.resume();
    let answer: HttpAnswer;
    try {
      answer = await this.#answer(questionOf(request));
    } catch (error) {
      answer = { status: 500, body: errorText(error) };
    }
    const { status, headers, body = "", sent } = answer;
    if (sent !== undefined) response.once("close", sent);
    if (this.#closed !== undefined) response.shouldKeepAlive = false;
    if (typeof body === "string" || body instanceof Uint8Array) {
      response.writeHead(status, { ...headers, "content-length": Buffer.byteLength(body) });
      response.end(body);
      return;
    }
    response.writeHead(status, headers);
    try {
      await pipeline(body, response);
    } catch (error) {
      // Who asked may also have gone away.
      const reason = errorText(error);
      this.#log.write("debug", `an answer was not sent to its end: ${reason}`);
    }
  }

  #report(event: string): void {
    const { component, hosts } = this.#options;
    this.#log.write("info", event, [
      ["address", { bare: formatHostPort(hosts[0], this.port) }],
      ["component", component],
    ]);
  }
}

function bind(options: HttpListenerOptions, host: string, port: number): Promise<Server> {
  const server = createServer({
    headersTimeout: options.headerTimeoutMs,
    requestTimeout: options.headerTimeoutMs,
    connectionsCheckingInterval: Math.min(TIMEOUT_CHECK_MS, options.headerTimeoutMs),
    maxHeaderSize: options.headerBytesMax,
    requireHostHeader: false,
    noDelay: true,
  });
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const errno = error.errno ?? 0;
      const reason = errno === 0 ? error.message : getSystemErrorMessage(errno);
      const address = formatHostPort(host, port);
      const text = `failed to bind to address ${address}: ${reason} (os error ${-errno})`;
      reject(new AdminError("bind", text, { cause: error }));
    });
    server.listen({ host, port }, () => {
      server.removeAllListeners("error");
      resolve(server);
    });
  });
}

function isAddressMissing(error: unknown): boolean {
  const cause = error instanceof AdminError ? error.cause : undefined;
  return cause instanceof Error && "code" in cause && ADDRESS_MISSING.has(cause.code);
}

/** Silence for those who were silent, a bare status for those who spoke something else. */
function refuseBadRequest(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable || error.code === "ERR_HTTP_REQUEST_TIMEOUT") {
    socket.destroy();
    return;
  }
  const status = error.code === "HPE_HEADER_OVERFLOW" ? 431 : 400;
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}`;
  socket.end(`${head}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
}

function questionOf(request: IncomingMessage): HttpQuestion {
  const [path = "/", query] = (request.url ?? "/").split("?", 2);
  return {
    method: request.method ?? "GET",
    path,
    query: new URLSearchParams(query),
    headers: request.headers,
  };
}
