/** How a connection comes to its end: who has said goodbye, and whether streams are still waited for. */
import { ErrorCode } from "./error-code.ts";
import { STREAM_ID_MAX } from "./frame.ts";
import type { FrameWriter } from "./frame-writer.ts";
import type { Http2Error } from "./http2-error.ts";
import type { Http2Failure } from "./http2-listener.ts";
import type { StreamTable } from "./stream-table.ts";

export interface ConnectionEndDeps<Owner> {
  readonly frames: FrameWriter;
  readonly streams: StreamTable<Owner>;
  /** Nothing is to be read or written any more. */
  readonly stopped: () => void;
  /** Told last, once; not after {@link ConnectionEnd.terminate}. */
  readonly finished: (failure: Http2Failure | undefined) => void;
}

export class ConnectionEnd<Owner> {
  readonly #deps: ConnectionEndDeps<Owner>;
  readonly #isServer: boolean;
  #isDraining = false;
  /** No new streams; ends with the last one. */
  #isClosing = false;
  #hasSaidGoodbye = false;
  #hasPeerGone = false;
  #peerFailure: Http2Failure | undefined;
  #isFinished = false;

  constructor(deps: ConnectionEndDeps<Owner>, role: "client" | "server") {
    this.#deps = deps;
    this.#isServer = role === "server";
  }

  get isFinished(): boolean {
    return this.#isFinished;
  }

  /** Nobody has said goodbye. */
  get isFarOff(): boolean {
    return !this.#isFinished && !this.#isClosing && !this.#isDraining && !this.#hasPeerGone;
  }

  /**
   * Says that the end is near, and takes streams until {@link close}.
   *
   * @see RFC 9113 section 6.8
   */
  announce(): void {
    this.#isDraining = true;
    this.#deps.frames.goaway(STREAM_ID_MAX, ErrorCode.noError, "");
  }

  /** Ends with the last stream. Idempotent. */
  close(): void {
    if (this.#isFinished || this.#isClosing) return;
    this.#isClosing = true;
    if (this.#isServer) this.#sayGoodbye();
    this.check();
  }

  /** The peer has said goodbye; {@link check} when that has been told. */
  peerLeft(code: number, debug: string): void {
    this.#hasPeerGone = true;
    if (code === ErrorCode.noError) return;
    this.#peerFailure = { code, message: debug === "" ? "peer sent GOAWAY" : debug, by: "peer" };
  }

  /** Finishes when no stream is left to wait for; call after each end of a stream. */
  check(): void {
    if (this.#isFinished || this.#deps.streams.count > 0) return;
    if (!this.#isClosing && !this.#hasPeerGone) return;
    this.#sayGoodbye();
    this.#finish(this.#peerFailure);
  }

  /** The peer has broken a rule of the connection. */
  fail({ number: code, message }: Http2Error): void {
    if (this.#isFinished) return;
    this.#deps.frames.goaway(this.#lastPeerStreamId(), code, message);
    this.#finish({ code, message, by: "us" });
  }

  /** GOAWAY now; everything is over, and nobody is told. */
  terminate(code: number): void {
    if (this.#isFinished) return;
    this.#deps.frames.goaway(this.#lastPeerStreamId(), code, "");
    this.#stop();
  }

  /** The GOAWAY that names the last stream which was served. */
  #sayGoodbye(): void {
    if (this.#hasSaidGoodbye) return;
    this.#hasSaidGoodbye = true;
    if (this.#isServer) this.#deps.streams.seal();
    this.#deps.frames.goaway(this.#lastPeerStreamId(), ErrorCode.noError, "");
  }

  #finish(failure: Http2Failure | undefined): void {
    this.#stop();
    this.#deps.finished(failure);
  }

  #stop(): void {
    this.#isFinished = true;
    this.#deps.stopped();
  }

  /** Servers push nothing, so that a client has no streams of its peer. */
  #lastPeerStreamId(): number {
    return this.#isServer ? this.#deps.streams.lastId : 0;
  }
}
