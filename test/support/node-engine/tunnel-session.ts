/**
 * What both ends of a tunnel share: Node's HTTP/2 session with the mesh's numbers, its pings and
 * the story of how it ended.
 *
 * What Node's HTTP/2 cannot do, against the frames recorded from the original:
 * - the order of SETTINGS entries; a MAX_FRAME_SIZE above 16 KiB is announced, but own DATA frames
 *   stay at 16 KiB;
 * - a CONNECT without `:authority` is reset (PROTOCOL_ERROR) instead of answered 400; a header list
 *   above the limit is reset instead of answered 431;
 * - received DATA returns the credit of the connection at once, so that only the windows of the
 *   streams hold a sender back; see {@link ReceiveBudget} for what bounds them together;
 * - a stream that was answered with an error is ended by the client, not reset with CANCEL;
 * - no pings after GOAWAY.
 */
import { constants, type Http2Session, type ServerSessionOptions } from "node:http2";
import type { TLSSocket } from "node:tls";
import type { TunnelSettings } from "../../../src/engine/engine.ts";
import { EngineError, errnoOf, systemError } from "../../../src/engine/engine-error.ts";
import type { Clock, Timer } from "../../../src/runtime/clock.ts";
import { afterTurn } from "../turn.ts";
import { handshakeError } from "./handshake-error.ts";
import type { StreamHost, TunnelFate } from "./node-stream-end.ts";
import { ReceiveBudget } from "./receive-budget.ts";

/** Megabytes. Windows and stream limits bound a tunnel; Node's own limit must not come before. */
const SESSION_MEGABYTES_MAX = 4096;

/** Applications may reset connections as fast as they open them; each is a RST_STREAM of a peer. */
const STREAM_RESETS_PER_SECOND_MAX = 10_000;

/** A peer that takes nothing any more can't hold a tunnel open that this process has ended. */
const GOODBYE_MS_MAX = 1000;

const VANISHED_TEXT =
  "peer closed connection without sending TLS close_notify: " +
  "https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";

/** Options of a session beside what only one side has. */
export function sessionOptions(settings: TunnelSettings): ServerSessionOptions {
  return {
    settings: {
      initialWindowSize: settings.streamWindowBytes,
      maxFrameSize: settings.frameBytesMax,
      maxHeaderListSize: settings.headerListBytesMax,
    },
    maxSessionMemory: SESSION_MEGABYTES_MAX,
    // Node refuses connections whose count of header fields exceeds this, default 128.
    maxHeaderListPairs: settings.headerListBytesMax,
    peerMaxConcurrentStreams: settings.streamsMax,
    streamResetRate: STREAM_RESETS_PER_SECOND_MAX,
    streamResetBurst: STREAM_RESETS_PER_SECOND_MAX,
  };
}

export class TunnelSession implements StreamHost {
  readonly #session: Http2Session;
  readonly #socket: TLSSocket;
  readonly #clock: Clock;
  readonly #settings: TunnelSettings;
  readonly #unanswered: () => void;
  readonly #budget: ReceiveBudget;
  #timer: Timer | undefined;
  #goodbye: Timer | undefined;
  #error: EngineError | undefined;
  #isDestroyed = false;
  #isClosing = false;
  #hadGoaway = false;

  /**
   * Takes a new session.
   *
   * @param listener `unanswered`: a ping was not answered in time. `gone`: the connection is closed,
   *   `undefined` after an orderly end.
   */
  constructor(
    deps: { readonly clock: Clock },
    session: Http2Session,
    socket: TLSSocket,
    settings: TunnelSettings,
    listener: {
      readonly unanswered: () => void;
      readonly gone: (error: EngineError | undefined) => void;
    },
  ) {
    this.#clock = deps.clock;
    this.#session = session;
    this.#socket = socket;
    this.#settings = settings;
    this.#budget = new ReceiveBudget(session, settings);
    this.#unanswered = listener.unanswered;
    session.setLocalWindowSize(settings.connectionWindowBytes);
    session.on("goaway", (code) => {
      this.#hadGoaway ||= code === constants.NGHTTP2_NO_ERROR;
    });
    session.on("error", (error) => {
      this.#error ??= sessionError(error);
    });
    socket.on("close", () => {
      this.#timer?.cancel();
      this.#goodbye?.cancel();
      // Node closes the streams with the session; they ask for the fate, so it comes first.
      queueMicrotask(() => listener.gone(this.#outcome()));
    });
    this.#pingLater();
  }

  /** How the tunnel went, for its streams. */
  fate(): TunnelFate | undefined {
    if (this.#isDestroyed) return { kind: "stopped" };
    if (this.#goodbye !== undefined) return { kind: "lost", error: this.#error };
    if (!this.#session.destroyed && !this.#socket.destroyed) return undefined;
    if (this.#hadGoaway) return { kind: "orderly" };
    return { kind: "lost", error: this.#error };
  }

  held(): void {
    this.#budget.held();
  }

  released(): void {
    this.#budget.released();
  }

  /** Why no stream can be had of a tunnel that is gone or going. */
  closedError(): EngineError {
    if (this.#error !== undefined) return this.#error;
    const isOurs = this.#isDestroyed || this.#isClosing;
    return new EngineError("tunnel-closed", isOurs ? "tunnel is closed" : VANISHED_TEXT);
  }

  /** No new streams; GOAWAY, and the end when the last stream has ended. Idempotent. */
  close(): void {
    this.#isClosing = true;
    this.#session.close();
  }

  /** Ends all streams as resets with this reason. Idempotent. */
  fail(error: EngineError): void {
    this.#error ??= error;
    this.#tearDown();
  }

  /** Ends all streams as stopped. Idempotent. */
  destroy(): void {
    this.#isDestroyed ||= !this.#session.destroyed;
    this.#tearDown();
  }

  #tearDown(): void {
    this.#timer?.cancel();
    if (this.#socket.destroyed || this.#goodbye !== undefined) return;
    // Node forgets the GOAWAY of a destroy while a write is under way, and without it the peer
    // could not tell an end in order from a crash.
    if (!this.#session.destroyed) this.#session.goaway();
    afterTurn(() => this.#session.destroy());
    this.#goodbye = this.#clock.after(GOODBYE_MS_MAX, () => this.#socket.destroy());
  }

  #outcome(): EngineError | undefined {
    if (this.#isDestroyed) return undefined;
    if (this.#error !== undefined) return this.#error;
    if (this.#hadGoaway || this.#isClosing) return undefined;
    return this.closedError();
  }

  #pingLater(): void {
    this.#timer = this.#clock.after(this.#settings.pingIntervalMs, () => this.#ping());
  }

  #ping(): void {
    if (this.#session.destroyed) {
      // The session has said goodbye, the peer has had a whole interval to close its half.
      this.#socket.destroy();
      return;
    }
    if (this.#session.closed) {
      this.#pingLater();
      return;
    }
    const answered = (): void => {
      this.#timer?.cancel();
      if (!this.#socket.destroyed) this.#pingLater();
    };
    this.#timer = this.#clock.after(this.#settings.pingTimeoutMs, () => this.#unanswered());
    this.#session.ping(answered);
  }
}

/** The tunnel broke, in the words that its streams report. */
function sessionError(error: Error): EngineError {
  if (error instanceof EngineError) return error;
  const code = errnoOf(error) ?? "";
  if (code.startsWith("ERR_HTTP2")) {
    return new EngineError("protocol", error.message, { cause: error });
  }
  if (code.startsWith("ERR_SSL")) {
    return new EngineError("tunnel-closed", handshakeError(error, "client").message, {
      cause: error,
    });
  }
  const { message, errno } = systemError(error);
  return new EngineError("tunnel-closed", message, {
    ...(errno === undefined ? {} : { errno }),
    cause: error,
  });
}
