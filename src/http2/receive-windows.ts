/**
 * How much the peer may send: on each stream, and on all of them together. Credit goes back in
 * halves of a stream's window and quarters of the connection's; streams that nobody reads do not
 * keep the others from theirs. RFC 9113 section 5.2.
 */
import type { FloodGauge } from "./flood-gauge.ts";
import { SettingId, WINDOW_BYTES_DEFAULT } from "./frame.ts";
import type { FrameWriter } from "./frame-writer.ts";
import { Http2Error } from "./http2-error.ts";
import type { Http2Settings } from "./http2-settings.ts";
import type { StreamState } from "./http2-stream.ts";
import type { StreamTable } from "./stream-table.ts";

/** A stream always may send this much, so that a shared connection never stands still. */
const STREAM_WINDOW_BYTES_MIN = 64 * 1024;

/** Growing waits until windows may be so many times as large, or the peer is told at every pause. */
const WINDOW_GROWTH_MIN = 4;

export interface ReceiveWindowsDeps<Owner> {
  readonly frames: FrameWriter;
  readonly streams: StreamTable<Owner>;
  /** How often we may change our mind. */
  readonly resizes: FloodGauge;
}

export class ReceiveWindows<Owner> {
  readonly #frames: FrameWriter;
  readonly #streams: StreamTable<Owner>;
  readonly #resizes: FloodGauge;
  readonly #streamBytesMax: number;
  readonly #bytesMax: number;
  #bytes: number;
  #creditDue = 0;
  /** What the peer counts with at most: of what was said and what was acknowledged the larger. */
  #initialBytes: number;
  /** What we said last. */
  #announcedBytes: number;
  #awaitsAcknowledgement = true;
  #heldStreams = 0;
  #isStopped = false;

  constructor(
    deps: ReceiveWindowsDeps<Owner>,
    { streamWindowBytes, connectionWindowBytes }: Http2Settings,
  ) {
    this.#frames = deps.frames;
    this.#streams = deps.streams;
    this.#resizes = deps.resizes;
    this.#bytesMax = Math.max(connectionWindowBytes, WINDOW_BYTES_DEFAULT);
    this.#bytes = this.#bytesMax;
    this.#streamBytesMax = streamWindowBytes;
    this.#announcedBytes = streamWindowBytes;
    this.#initialBytes = Math.max(streamWindowBytes, WINDOW_BYTES_DEFAULT);
  }

  /** Of a stream that is opened now. */
  get initialBytes(): number {
    return this.#initialBytes;
  }

  /** Of a stream whose peer knows what we said last. */
  get announcedBytes(): number {
    return this.#announcedBytes;
  }

  /** Opens the connection's window beyond what it has of itself. Behind our first SETTINGS. */
  start(): void {
    const increment = this.#bytesMax - WINDOW_BYTES_DEFAULT;
    if (increment > 0) this.#frames.windowUpdate(0, increment);
  }

  /** The peer is told nothing any more. */
  stop(): void {
    this.#isStopped = true;
  }

  /**
   * A DATA frame takes its part of the connection's window, whatever becomes of it.
   *
   * @throws Http2Error when it is larger than that.
   */
  spend(byteCount: number): void {
    if (byteCount > this.#bytes) {
      throw new Http2Error(
        "flow-control",
        `DATA of ${byteCount} bytes exceeds the connection's window`,
      );
    }
    this.#bytes -= byteCount;
  }

  /** The same for its stream. @returns false when it is larger than the stream's window. */
  spendStream(stream: StreamState<Owner>, byteCount: number): boolean {
    stream.untaken += byteCount;
    if (byteCount > Math.max(0, stream.receiveWindow)) return false;
    stream.receiveWindow -= byteCount;
    if (stream.isHeld) {
      stream.lent += byteCount;
      this.giveBack(byteCount);
    }
    return true;
  }

  /** Bytes of a stream are taken: it and the connection may have as many again. */
  take(stream: StreamState<Owner>, byteCount: number): void {
    if (this.#isStopped) return;
    const count = Math.min(byteCount, stream.untaken);
    const lent = Math.min(count, stream.lent);
    stream.untaken -= count;
    stream.lent -= lent;
    this.giveBack(count - lent);
    if (stream.hasPeerEnded || stream.isClosed) return;
    stream.creditDue += count;
    this.#giveStreamCredit(stream);
  }

  /** Bytes are of no stream any more. */
  giveBack(byteCount: number): void {
    this.#creditDue += byteCount;
    if (this.#creditDue * 4 < this.#bytesMax || this.#creditDue === 0 || this.#isStopped) return;
    this.#frames.windowUpdate(0, this.#creditDue);
    this.#bytes += this.#creditDue;
    this.#creditDue = 0;
  }

  /** Nobody will take what is left of a stream. */
  forget(stream: StreamState<Owner>): void {
    const owed = stream.untaken - stream.lent;
    stream.untaken = 0;
    stream.lent = 0;
    this.giveBack(owed);
  }

  /**
   * Nobody takes what comes on this stream. The connection's window is given back for what it holds,
   * and the windows of the streams shrink while many are held, so that together they hold about as
   * much as the connection's window. Idempotent.
   */
  hold(stream: StreamState<Owner>): void {
    if (stream.isHeld) return;
    stream.isHeld = true;
    this.#heldStreams++;
    this.giveBack(stream.untaken - stream.lent);
    stream.lent = stream.untaken;
    this.#adjust();
  }

  /** What comes is taken again. Idempotent. */
  release(stream: StreamState<Owner>): void {
    if (!stream.isHeld) return;
    stream.isHeld = false;
    this.#heldStreams--;
    this.#adjust();
  }

  /** The peer keeps to what we said last from now on. */
  acknowledged(): void {
    this.#awaitsAcknowledgement = false;
    this.#resize(this.#announcedBytes);
    this.#adjust();
  }

  /** At most one change per round trip: the next waits for the peer's acknowledgement. */
  #adjust(): void {
    if (this.#isStopped || this.#awaitsAcknowledgement) return;
    const bytes = this.#fairBytes();
    const before = this.#announcedBytes;
    const isFull = bytes === this.#streamBytesMax;
    const changes =
      bytes < before || bytes >= before * WINDOW_GROWTH_MIN || (isFull && bytes > before);
    if (!changes || !this.#resizes.charge("settings")) return;
    this.#awaitsAcknowledgement = true;
    this.#announcedBytes = bytes;
    if (bytes > this.#initialBytes) this.#resize(bytes);
    this.#frames.settings([[SettingId.initialWindowSize, bytes]]);
    // What was too little to tell may be all that a smaller window has.
    for (const stream of this.#streams.values()) this.#giveStreamCredit(stream);
  }

  /** A power of two below the full window, so that small changes of the count change nothing. */
  #fairBytes(): number {
    const share = this.#bytesMax / Math.max(1, this.#heldStreams);
    if (share >= this.#streamBytesMax) return this.#streamBytesMax;
    const bytes = Math.max(STREAM_WINDOW_BYTES_MIN, 2 ** Math.floor(Math.log2(share)));
    return Math.min(bytes, this.#streamBytesMax);
  }

  #resize(bytes: number): void {
    const growth = bytes - this.#initialBytes;
    this.#initialBytes = bytes;
    for (const stream of this.#streams.values()) stream.receiveWindow += growth;
  }

  #giveStreamCredit(stream: StreamState<Owner>): void {
    if (stream.creditDue * 2 < this.#announcedBytes || stream.creditDue === 0) return;
    if (stream.hasPeerEnded) return;
    this.#frames.windowUpdate(stream.id, stream.creditDue);
    stream.receiveWindow += stream.creditDue;
    stream.creditDue = 0;
  }
}
