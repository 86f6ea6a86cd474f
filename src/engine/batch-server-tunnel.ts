/** An incoming HBONE connection on the reactor: TLS on an accepted socket, then CONNECT streams. */
import type { Http2Request } from "../http2/message-fields.ts";
import { OPERATION } from "../net/reactor.ts";
import { invariant } from "../runtime/invariant.ts";
import type { BatchSocket } from "./batch-socket.ts";
import type { BatchStream } from "./batch-stream.ts";
import { BatchTunnel, type BatchTunnelDeps } from "./batch-tunnel.ts";
import type {
  AcceptTunnelOptions,
  End,
  HeaderFields,
  ServerTunnel,
  TunnelRequest,
} from "./engine.ts";
import { systemError } from "./engine-error.ts";
import { tlsFailure } from "./handshake-error.ts";

export class BatchServerTunnel implements ServerTunnel {
  readonly #tunnel: BatchTunnel | undefined;

  /** Takes the end. */
  constructor(deps: BatchTunnelDeps, end: BatchSocket, options: AcceptTunnelOptions) {
    const id = end.take();
    if (id === undefined) {
      const error = tlsFailure({ kind: "system", errno: "ECONNRESET" }, "server");
      deps.loop.later(() => options.closed(error));
      return;
    }
    let leafDer: Uint8Array = new Uint8Array();
    try {
      this.#tunnel = new BatchTunnel(
        deps,
        id,
        { role: "server", tls: options.tls, settings: options.settings },
        {
          secured: (leaf) => {
            leafDer = leaf;
          },
          settled: () => options.opened({ leafDer }),
          requested: (stream, request) =>
            options.requested(new BatchTunnelRequest(deps, stream, request)),
          malformed: (reason) => options.malformed?.(reason),
          gone: options.closed,
        },
      );
    } catch (error) {
      deps.loop.push(OPERATION.CLOSE, id, 0, 0);
      deps.loop.later(() => options.closed(systemError(error)));
    }
  }

  drain(): void {
    this.#tunnel?.close();
  }

  destroy(): void {
    this.#tunnel?.destroy();
  }
}

class BatchTunnelRequest implements TunnelRequest {
  readonly method: string;
  readonly authority: string | undefined;
  readonly headers: ReadonlyMap<string, string>;
  readonly #deps: BatchTunnelDeps;
  readonly #end: BatchStream;
  #isAnswered = false;

  constructor(deps: BatchTunnelDeps, end: BatchStream, request: Http2Request) {
    this.#deps = deps;
    this.#end = end;
    this.method = request.method;
    this.authority = request.authority;
    this.headers = request.headers;
  }

  accept(headers: HeaderFields): End {
    this.#answer();
    this.#end.respond(headers);
    return this.#end;
  }

  refuse(status: number): void {
    this.#answer();
    this.#end.refuse(status);
  }

  onAborted(callback: () => void): void {
    if (this.#end.isGone) {
      this.#deps.loop.later(() => {
        if (!this.#isAnswered) callback();
      });
    } else this.#end.lostUnanswered = () => callback();
  }

  #answer(): void {
    invariant(!this.#isAnswered, "a request is answered once");
    this.#isAnswered = true;
    this.#end.settle();
  }
}
