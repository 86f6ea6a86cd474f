/**
 * One CONNECT stream of a tunnel as an end.
 *
 * Endings follow spec data-path 6, except that an application's reset stays one: RST_STREAM with
 * NO_ERROR, CANCEL or STREAM_CLOSED is an orderly end, CONNECT_ERROR and the others are resets. A
 * stream whose tunnel goes away is told from one that its peer ended, because Node reports both as
 * CANCEL.
 */
import { constants, type Http2Stream } from "node:http2";
import type { End } from "../../../src/engine/engine.ts";
import type { EngineError } from "../../../src/engine/engine-error.ts";
import type { SideFailure } from "../../../src/engine/side-failure.ts";
import { streamReset } from "../../../src/engine/stream-reset.ts";
import { ErrorCode } from "../../../src/http2/error-code.ts";
import { invariant } from "../../../src/runtime/invariant.ts";
import { afterTurn } from "../turn.ts";
import type { BufferPool } from "./buffer-pool.ts";
import type { RelaySide, SideListener } from "./relay-side.ts";
import { WriteQueue } from "./write-queue.ts";

/** Codes of RST_STREAM with which a peer leaves without complaint. */
const ORDERLY_CODES: ReadonlySet<number | undefined> = new Set([
  constants.NGHTTP2_NO_ERROR,
  constants.NGHTTP2_CANCEL,
  constants.NGHTTP2_STREAM_CLOSED,
]);

/** How a tunnel went; `undefined` as long as it stands. */
export type TunnelFate =
  /** This process ended it. */
  | { readonly kind: "stopped" }
  /** The peer said GOAWAY before it left. */
  | { readonly kind: "orderly" }
  /** The peer vanished, or `error` happened. */
  | { readonly kind: "lost"; readonly error: EngineError | undefined };

/** The tunnel, as its streams know it. */
export interface StreamHost {
  fate(): TunnelFate | undefined;
  /** A stream is no longer read, or `released`: read again or gone. */
  held(): void;
  released(): void;
}

export class NodeStreamEnd implements End, RelaySide {
  readonly arrivesInPieces = true;
  readonly #stream: Http2Stream;
  readonly #writes: WriteQueue;
  readonly #host: StreamHost;
  #listener: SideListener | undefined;
  #failure: SideFailure | undefined;
  #hasEnded = false;
  #isHeld = false;
  #isEnding = false;
  #hasFinished = false;
  /** Closed or reset by this process. */
  #isLeft = false;
  #isClosed = false;

  /** Takes the stream, unread. */
  constructor(stream: Http2Stream, pool: BufferPool, host: StreamHost) {
    this.#stream = stream;
    this.#host = host;
    this.#writes = new WriteQueue(stream, pool, (byteCount) => this.#listener?.written(byteCount));
    // Without it Node throws away what came on a stream that the peer closes early.
    stream.pause();
    stream.on("end", () => {
      // Node also ends what it destroys; `close` tells why.
      if (!stream.destroyed && !this.#isLeft) this.#onEnd();
    });
    stream.on("finish", () => this.#onFinish());
    stream.on("error", () => {
      // `close` follows and tells the reason.
    });
    stream.on("close", () => this.#onClose());
    if (stream.destroyed) queueMicrotask(() => this.#onClose());
  }

  /** The stream for a tunnel inside of it; this end is spent. @param released when it has ended. */
  takeStream(released: () => void): Http2Stream {
    const stream = this.#stream;
    stream.removeAllListeners("end").removeAllListeners("finish");
    if (stream.destroyed) queueMicrotask(released);
    else stream.once("close", released);
    return stream;
  }

  start(listener: SideListener): void {
    invariant(this.#listener === undefined, "an end is relayed once");
    this.#listener = listener;
    if (this.#isClosed) {
      if (this.#hasEnded) listener.ended();
      if (this.#failure !== undefined) listener.failed(this.#failure);
      listener.closed();
      return;
    }
    this.#stream.on("data", (chunk: Buffer) => {
      if (!this.#isLeft && !listener.read(chunk, undefined)) this.#hold();
    });
    this.#stream.resume();
  }

  resume(): void {
    if (this.#isLeft) return;
    this.#release();
    this.#stream.resume();
  }

  write(chunk: Buffer, lease: Buffer | undefined): void {
    if (this.#isLeft) return;
    // The peer may have closed the stream without a reset; Node ends our direction with it.
    if (this.#stream.writable) this.#writes.write(chunk, lease);
    else this.#fail({ kind: "refused-bytes" });
  }

  get pendingBytes(): number {
    return this.#writes.pendingBytes;
  }

  gather(): void {
    this.#writes.gather();
  }

  end(): void {
    this.#isEnding = true;
    if (this.#stream.writable) this.#stream.end();
    else queueMicrotask(() => this.#onFinish());
  }

  close(): void {
    if (this.#stream.readableLength > 0) this.reset();
    else this.#leave(constants.NGHTTP2_NO_ERROR);
  }

  reset(): void {
    // Node half-closes before it resets, and the peer would take that for an end in order.
    this.#stream._final = (done) => done();
    this.#leave(ErrorCode.connectError);
  }

  #hold(): void {
    this.#stream.pause();
    if (this.#isHeld) return;
    this.#isHeld = true;
    this.#host.held();
  }

  #release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#host.released();
  }

  #leave(http2Code: number): void {
    if (this.#isLeft) return;
    this.#isLeft = true;
    this.#stream.pause();
    // nghttp2 drops what waits to be sent on a stream that is reset, the answer of this turn too.
    afterTurn(() => {
      this.#stream.close(http2Code);
      this.#stream.destroy();
    });
  }

  #onEnd(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#listener?.ended();
  }

  /** Node also finishes what the peer closed; only our own half-close counts. */
  #onFinish(): void {
    if (!this.#isEnding || this.#hasFinished) return;
    this.#hasFinished = true;
    this.#listener?.finished();
  }

  #onClose(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#release();
    if (!this.#isLeft) this.#judge();
    this.#listener?.closed();
  }

  /** Tells why a stream is gone that this process did not leave. */
  #judge(): void {
    const areBytesLost = this.#writes.pendingBytes > 0;
    if (this.#hasEnded && this.#hasFinished && !areBytesLost) return;
    const failure = this.#abruptEnd();
    if (failure !== undefined) {
      this.#fail(failure);
      return;
    }
    this.#onEnd();
    if (areBytesLost) this.#fail({ kind: "refused-bytes" });
  }

  /** `undefined` when the peer has merely stopped to talk and to listen. */
  #abruptEnd(): SideFailure | undefined {
    const { rstCode, readableLength } = this.#stream;
    const fate = this.#host.fate();
    if (fate?.kind === "stopped") return fate;
    if (fate?.kind === "lost") return { kind: "reset", error: fate.error };
    if (fate === undefined && !ORDERLY_CODES.has(rstCode)) {
      return {
        kind: "reset",
        error: rstCode === ErrorCode.connectError ? undefined : streamReset(rstCode),
      };
    }
    // Unread bytes are lost when Node tears the stream down: never call that an end.
    const isCutShort = !this.#hasEnded && readableLength > 0;
    return isCutShort ? { kind: "reset", error: undefined } : undefined;
  }

  #fail(failure: SideFailure): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    this.#listener?.failed(failure);
  }
}
