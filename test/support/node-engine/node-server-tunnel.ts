/** An incoming HBONE connection: TLS on an accepted socket, then CONNECT streams. */
import {
  constants,
  performServerHandshake,
  type ServerHttp2Stream,
  type ServerStreamResponseOptions,
} from "node:http2";
import type { TLSSocket } from "node:tls";
import type {
  AcceptTunnelOptions,
  End,
  HeaderFields,
  ServerTunnel,
  TunnelRequest,
} from "../../../src/engine/engine.ts";
import { type EngineError, systemError } from "../../../src/engine/engine-error.ts";
import { handshakeTimeout, leftBeforePreface } from "../../../src/engine/handshake-error.ts";
import type { OpenThings } from "../../../src/engine/open-things.ts";
import type { Clock, Timer } from "../../../src/runtime/clock.ts";
import { invariant } from "../../../src/runtime/invariant.ts";
import { afterTurn } from "../turn.ts";
import type { BufferPool } from "./buffer-pool.ts";
import { fromFlatList, toFlatList } from "./header-fields.ts";
import type { NodeSocketEnd } from "./node-socket-end.ts";
import { NodeStreamEnd, type StreamHost } from "./node-stream-end.ts";
import type { TlsAcceptor } from "./tls-acceptor.ts";
import { sessionOptions, TunnelSession } from "./tunnel-session.ts";

/** "Every stream that you may have sent": the peer keeps what is under way. RFC 9113 section 6.8. */
const ANY_STREAM_ID = 2 ** 31 - 1;

export interface ServerTunnelDeps {
  readonly clock: Clock;
  readonly pool: BufferPool;
  readonly acceptor: TlsAcceptor;
  readonly open: OpenThings;
}

export class NodeServerTunnel implements ServerTunnel {
  readonly #deps: ServerTunnelDeps;
  readonly #options: AcceptTunnelOptions;
  readonly #handshakeTimer: Timer;
  /** Ends what there is to end: the raw socket, later the tunnel. */
  #endNow: () => void = () => this.#done(undefined);
  #drainNow: () => void = () => this.destroy();
  #streamCount = 0;
  #isOpened = false;
  #isDraining = false;
  #isDone = false;

  /** Takes the end. */
  constructor(deps: ServerTunnelDeps, end: NodeSocketEnd, options: AcceptTunnelOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#handshakeTimer = deps.clock.after(options.settings.handshakeTimeoutMs, () => {
      this.#done(handshakeTimeout());
      this.#endNow();
    });
    deps.open.add(this);
    try {
      const socket = deps.acceptor.accept(() => end.takeSocket(), options.tls, {
        secured: (secured, leafDer) => this.#onSecured(secured, leafDer),
        failed: (error) => this.#done(error),
      });
      this.#endNow = () => {
        this.#done(undefined);
        socket.destroy();
      };
    } catch (error) {
      end.close();
      queueMicrotask(() => this.#done(systemError(error)));
    }
  }

  drain(): void {
    if (this.#isDraining || this.#isDone) return;
    this.#isDraining = true;
    this.#drainNow();
  }

  destroy(): void {
    this.#endNow();
  }

  #onSecured(socket: TLSSocket, leafDer: Uint8Array): void {
    if (this.#isDone) return;
    const { settings } = this.#options;
    const options = sessionOptions(settings);
    const session = performServerHandshake(socket, {
      ...options,
      settings: { ...options.settings, maxConcurrentStreams: settings.streamsMax },
    });
    const tunnel = new TunnelSession(this.#deps, session, socket, settings, {
      unanswered: () => tunnel.destroy(),
      gone: (error) => this.#done(this.#isOpened ? error : leftBeforePreface()),
    });
    session.once("remoteSettings", () => {
      if (this.#isDone) return;
      this.#handshakeTimer.cancel();
      this.#isOpened = true;
      this.#options.opened({ leafDer });
    });
    session.on("stream", (stream, _headers, _flags, rawHeaders) => {
      if (tunnel.fate() !== undefined) {
        stream.close(constants.NGHTTP2_REFUSED_STREAM);
        return;
      }
      this.#streamCount++;
      stream.once("close", () => {
        this.#streamCount--;
        if (this.#isDraining) closeIfIdle();
      });
      const fields = fromFlatList(rawHeaders as unknown as readonly string[]);
      this.#options.requested(new NodeTunnelRequest(stream, fields, this.#deps.pool, tunnel));
    });
    this.#endNow = () => {
      if (this.#isOpened) tunnel.destroy();
      else socket.destroy();
    };
    const closeIfIdle = (): void => {
      if (this.#streamCount === 0) tunnel.close();
    };
    this.#drainNow = () => {
      session.goaway(constants.NGHTTP2_NO_ERROR, ANY_STREAM_ID);
      // nghttp2 reads nothing any more once a session without streams has said GOAWAY, so a ping
      // would never be answered.
      if (this.#streamCount === 0) {
        afterTurn(closeIfIdle);
        return;
      }
      // What the peer sent before it read this has arrived when it answers; a ping of the same turn
      // would overtake it.
      afterTurn(() => {
        if (!session.destroyed) session.ping(() => tunnel.close());
      });
    };
  }

  #done(error: EngineError | undefined): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#handshakeTimer.cancel();
    this.#deps.open.delete(this);
    this.#options.closed(error);
  }
}

class NodeTunnelRequest implements TunnelRequest {
  readonly method: string;
  readonly authority: string | undefined;
  readonly headers: ReadonlyMap<string, string>;
  readonly #stream: ServerHttp2Stream;
  readonly #pool: BufferPool;
  readonly #host: StreamHost;
  #isAnswered = false;
  #aborted: (() => void) | undefined;

  constructor(
    stream: ServerHttp2Stream,
    fields: Map<string, string>,
    pool: BufferPool,
    host: StreamHost,
  ) {
    this.#stream = stream;
    this.#pool = pool;
    this.#host = host;
    this.method = fields.get(constants.HTTP2_HEADER_METHOD) ?? "";
    this.authority = fields.get(constants.HTTP2_HEADER_AUTHORITY);
    for (const name of fields.keys()) if (name.startsWith(":")) fields.delete(name);
    this.headers = fields;
    // Without it Node throws away what came on a stream that the peer closes early.
    stream.pause();
    stream.on("error", () => {
      // `close` follows.
    });
    stream.once("close", () => {
      if (!this.#isAnswered) this.#aborted?.();
    });
  }

  accept(headers: HeaderFields): End {
    this.#answer();
    const list = toFlatList([[constants.HTTP2_HEADER_STATUS, "200"]], headers);
    if (!this.#stream.closed) this.#stream.respond(list, RESPONSE_OPTIONS);
    return new NodeStreamEnd(this.#stream, this.#pool, this.#host);
  }

  refuse(status: number): void {
    this.#answer();
    if (this.#stream.closed) return;
    this.#stream.respond([constants.HTTP2_HEADER_STATUS, String(status)], {
      ...RESPONSE_OPTIONS,
      endStream: true,
    });
    // In the same turn it would overtake the answer.
    afterTurn(() => this.#stream.close(constants.NGHTTP2_NO_ERROR));
    this.#stream.resume();
  }

  onAborted(callback: () => void): void {
    this.#aborted = callback;
    if (this.#stream.destroyed && !this.#isAnswered) queueMicrotask(callback);
  }

  #answer(): void {
    invariant(!this.#isAnswered, "a request is answered once");
    this.#isAnswered = true;
  }
}

/** Node adds a `date` field unless told not to; its types don't know the option. */
const RESPONSE_OPTIONS: ServerStreamResponseOptions & { readonly sendDate: boolean } = {
  sendDate: false,
};
