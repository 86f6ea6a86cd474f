/** An outgoing HBONE connection on the reactor: TCP, TLS, then CONNECT streams. */
import { ErrorCode } from "../http2/error-code.ts";
import { OPERATION } from "../net/reactor.ts";
import { BatchConnect, type BatchConnectDeps } from "./batch-connect.ts";
import { BatchStream } from "./batch-stream.ts";
import { BatchTunnel, type BatchTunnelDeps } from "./batch-tunnel.ts";
import type {
  ClientTunnel,
  DialTunnelOptions,
  HeaderFields,
  TunnelAnswer,
  TunnelClosed,
  TunnelOptions,
  TunnelSettings,
} from "./engine.ts";
import { type EngineError, systemError } from "./engine-error.ts";
import { streamReset } from "./stream-reset.ts";

export class BatchClientTunnel implements ClientTunnel {
  readonly #settings: TunnelSettings;
  readonly #tunnel: BatchTunnel;
  #closed: TunnelClosed | undefined;
  #end: Parameters<TunnelClosed> | undefined;

  private constructor(
    deps: BatchTunnelDeps,
    id: number,
    options: TunnelOptions,
    settle: {
      readonly resolve: (tunnel: BatchClientTunnel) => void;
      readonly reject: (error: EngineError) => void;
    },
  ) {
    this.#settings = options.settings;
    let isSecured = false;
    this.#tunnel = new BatchTunnel(
      deps,
      id,
      { role: "client", tls: options.tls, settings: options.settings },
      {
        secured: () => {
          isSecured = true;
          settle.resolve(this);
        },
        settled: () => {},
        requested: () => {},
        malformed: () => {},
        gone: (error) => {
          if (!isSecured) settle.reject(error ?? this.#tunnel.closedError());
          this.#end = [error, this.#tunnel.lostStreams];
          this.#closed?.(...this.#end);
        },
      },
    );
  }

  /** @throws EngineError of the connect, the handshake or the peer's identity. */
  static dial(
    deps: BatchConnectDeps & BatchTunnelDeps,
    options: DialTunnelOptions,
  ): Promise<BatchClientTunnel> {
    return new Promise((resolve, reject) => {
      new BatchConnect(deps, options.connect, {
        connected: (id) => resolve(BatchClientTunnel.begin(deps, id, options)),
        failed: reject,
      });
    });
  }

  /**
   * Takes an open connection of the reactor.
   *
   * @throws EngineError of the handshake or the peer's identity.
   */
  static begin(
    deps: BatchTunnelDeps,
    id: number,
    options: TunnelOptions,
  ): Promise<BatchClientTunnel> {
    return new Promise((resolve, reject) => {
      try {
        new BatchClientTunnel(deps, id, options, { resolve, reject });
      } catch (error) {
        deps.loop.push(OPERATION.CLOSE, id, 0, 0);
        reject(systemError(error));
      }
    });
  }

  get streamsMax(): number {
    const { isUsable, connection } = this.#tunnel;
    return isUsable ? connection.streamsMax : this.#settings.streamsMax;
  }

  get usable(): boolean {
    return this.#tunnel.isUsable;
  }

  open(authority: string, headers: HeaderFields): Promise<TunnelAnswer> {
    const tunnel = this.#tunnel;
    if (!tunnel.isUsable) return Promise.reject(tunnel.closedError());
    const end = new BatchStream(tunnel);
    const stream = tunnel.connection.open(authority, headers, end);
    // What the peer would answer to one stream too many.
    if (stream === undefined) return Promise.reject(streamReset(ErrorCode.refusedStream));
    end.attach(stream);
    return new Promise((resolve, reject) => {
      end.lostUnanswered = reject;
      end.answered = (status, answer) => {
        end.settle();
        if (status === 200) return resolve({ status, headers: answer, end });
        tunnel.connection.drop(stream);
        resolve({ status, headers: answer, end: undefined });
      };
    });
  }

  close(): void {
    this.#tunnel.close();
  }

  destroy(): void {
    this.#tunnel.destroy();
  }

  onClosed(callback: TunnelClosed): void {
    this.#closed = callback;
    const end = this.#end;
    if (end !== undefined) queueMicrotask(() => callback(...end));
  }
}
