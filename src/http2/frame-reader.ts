/**
 * Frames out of bytes that come in any pieces. DATA is passed on as slices of the arena; of other
 * frames the payload is taken where it lies when it lies there whole, else gathered. What a frame
 * must look like is judged here, what it means for a stream in the connection. RFC 9113 section 6.
 */
import {
  FRAME_BYTES_DEFAULT,
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  PING_BYTES,
  PREFACE,
  SETTING_BYTES,
  STREAM_ID_MAX,
  WINDOW_BYTES_MAX,
} from "./frame.ts";
import { Http2Error } from "./http2-error.ts";

/** Frames after HEADERS that one block may take; the original of CVE-2024-27316 had no end. */
const CONTINUATIONS_MAX = 64;

/** A peer says what it has to say in six settings; CVE-2019-9515 counts on long lists too. */
const SETTINGS_MAX = 64;

/** Of a GOAWAY's debug text; the rest is skipped. */
const DEBUG_BYTES_MAX = 256;

/** Blocks of fields that are above the list limit once decoded are still read, up to this factor. */
const BLOCK_FACTOR = 2;

/** A connection keeps so much memory for the next header block that comes in pieces. */
const KEPT_BYTES_MAX = 4096;

/** Stream dependency and weight before a header block. */
const PRIORITY_BYTES = 5;

const EMPTY = Buffer.alloc(0);

/** What the reader found. Offsets are valid during the call. */
export interface FrameListener {
  /** A DATA frame begins; `length` counts against both windows. */
  dataBegun(streamId: number, length: number): void;
  /** Payload without padding, in the arena. */
  data(offset: number, length: number): void;
  /** The DATA frame is whole. @param paddingBytes how many of its bytes were no payload. */
  dataEnded(paddingBytes: number, endStream: boolean): void;
  /** A whole header block. */
  headers(
    streamId: number,
    bytes: Buffer,
    offset: number,
    length: number,
    endStream: boolean,
  ): void;
  /** PRIORITY, or a type that is not known. */
  ignored(type: number): void;
  rstStream(streamId: number, code: number): void;
  setting(id: number, value: number): void;
  /** All of a SETTINGS frame was given to {@link setting}. */
  settingsEnded(): void;
  settingsAcknowledged(): void;
  ping(bytes: Buffer, offset: number, isAck: boolean): void;
  goaway(lastStreamId: number, code: number, debug: string): void;
  windowUpdate(streamId: number, increment: number): void;
}

export interface FrameReaderOptions {
  /** Servers are greeted with the preface. */
  readonly role: "client" | "server";
  /** Our SETTINGS_MAX_FRAME_SIZE. */
  readonly frameBytesMax: number;
  /** Our SETTINGS_MAX_HEADER_LIST_SIZE. */
  readonly headerListBytesMax: number;
}

type Phase = "preface" | "header" | "padding-length" | "data" | "gather" | "skip";

export class FrameReader {
  readonly #arena: Buffer;
  readonly #listener: FrameListener;
  readonly #frameBytesMax: number;
  readonly #blockBytesMax: number;
  readonly #header: Buffer = Buffer.alloc(FRAME_HEADER_BYTES);
  #phase: Phase;
  /** Bytes of the preface or of a split header that have come. */
  #count = 0;
  #isGreeted = false;
  #isStopped = false;

  // The frame that is being read.
  #type = 0;
  #flags = 0;
  #streamId = 0;
  /** Of the payload (without padding, for DATA) that has not come. */
  #left = 0;
  /** Bytes to throw away before the next frame. */
  #skip = 0;
  #paddingBytes = 0;

  // Payloads that are not whole in one piece, and header blocks of several frames.
  #gathered: Buffer = EMPTY;
  #gatheredCount = 0;
  /** How many of them are of the frame that is being read. */
  #partBytes = 0;
  /** The stream whose header block is not complete; 0 is none. */
  #blockStreamId = 0;
  #blockEndsStream = false;
  #continuationCount = 0;

  constructor(arena: Uint8Array, listener: FrameListener, options: FrameReaderOptions) {
    this.#arena = Buffer.from(arena.buffer, arena.byteOffset, arena.byteLength);
    this.#listener = listener;
    this.#frameBytesMax = options.frameBytesMax;
    this.#blockBytesMax = Math.max(FRAME_BYTES_DEFAULT, options.headerListBytesMax * BLOCK_FACTOR);
    this.#phase = options.role === "server" ? "preface" : "header";
  }

  /**
   * Reads a slice of the arena.
   *
   * @throws Http2Error when the connection can't go on; call nothing after it.
   */
  read(offset: number, length: number): void {
    const end = offset + length;
    let at = offset;
    while (!this.#isStopped && at < end) {
      switch (this.#phase) {
        case "header":
          at = this.#readHeader(at, end);
          break;
        case "data":
          at = this.#readData(at, end);
          break;
        case "gather":
          at = this.#gather(at, end);
          break;
        case "skip":
          at = this.#skipBytes(at, end);
          break;
        case "padding-length":
          at = this.#readPaddingLength(at);
          break;
        case "preface":
          at = this.#readPreface(at, end);
          break;
      }
    }
  }

  /** Nothing more is delivered, also of the slice that is being read. */
  stop(): void {
    this.#isStopped = true;
    this.#gathered = EMPTY;
  }

  #readPreface(from: number, end: number): number {
    let at = from;
    while (at < end && this.#count < PREFACE.length) {
      if (this.#arena[at++] !== PREFACE[this.#count++]) {
        throw new Http2Error("protocol", "connection preface is not that of HTTP/2");
      }
    }
    if (this.#count === PREFACE.length) {
      this.#count = 0;
      this.#phase = "header";
    }
    return at;
  }

  #readHeader(from: number, end: number): number {
    if (this.#count === 0 && end - from >= FRAME_HEADER_BYTES) {
      this.#begin(this.#arena, from);
      return from + FRAME_HEADER_BYTES;
    }
    const count = Math.min(end - from, FRAME_HEADER_BYTES - this.#count);
    this.#arena.copy(this.#header, this.#count, from, from + count);
    this.#count += count;
    if (this.#count === FRAME_HEADER_BYTES) {
      this.#count = 0;
      this.#begin(this.#header, 0);
    }
    return from + count;
  }

  #begin(bytes: Buffer, at: number): void {
    const length =
      ((bytes[at] as number) << 16) | ((bytes[at + 1] as number) << 8) | (bytes[at + 2] as number);
    this.#type = bytes[at + 3] as number;
    this.#flags = bytes[at + 4] as number;
    this.#streamId = uint32(bytes, at + 5) & STREAM_ID_MAX;
    this.#left = length;
    if (length > this.#frameBytesMax) {
      throw new Http2Error(
        "frame-size",
        `frame of ${length} bytes, at most ${this.#frameBytesMax} are allowed`,
      );
    }
    if (this.#blockStreamId !== 0) this.#expectContinuation();
    else if (this.#type === FrameType.data) {
      this.#beginData(length);
      return;
    }
    if (!this.#isGreeted) this.#expectGreeting();
    this.#checkStreamId();
    this.#checkLength(length);
    if (!isGathered(this.#type)) {
      this.#listener.ignored(this.#type);
      this.#skipNext(length);
      return;
    }
    this.#left = this.#type === FrameType.goaway ? Math.min(length, 8 + DEBUG_BYTES_MAX) : length;
    this.#skip = length - this.#left;
    this.#phase = "gather";
    if (length === 0) this.#complete(this.#gathered, this.#gatheredCount, 0);
  }

  #expectGreeting(): void {
    if (this.#type !== FrameType.settings || (this.#flags & FrameFlag.ack) !== 0) {
      throw new Http2Error("protocol", `first frame is no SETTINGS but of type ${this.#type}`);
    }
    this.#isGreeted = true;
  }

  #expectContinuation(): void {
    if (this.#type !== FrameType.continuation || this.#streamId !== this.#blockStreamId) {
      throw new Http2Error(
        "protocol",
        `frame of type ${this.#type} within the header block of stream ${this.#blockStreamId}`,
      );
    }
    this.#continuationCount += 1;
    if (this.#continuationCount > CONTINUATIONS_MAX) {
      throw new Http2Error("flood", "too many CONTINUATION frames (CVE-2024-27316)");
    }
  }

  /** Which frames belong to a stream and which to the connection. */
  #checkStreamId(): void {
    switch (this.#type) {
      case FrameType.headers:
      case FrameType.priority:
      case FrameType.rstStream:
        if (this.#streamId === 0) throw misplaced(this.#type, 0);
        return;
      case FrameType.settings:
      case FrameType.ping:
      case FrameType.goaway:
        if (this.#streamId !== 0) throw misplaced(this.#type, this.#streamId);
        return;
      case FrameType.pushPromise:
        throw new Http2Error("protocol", "PUSH_PROMISE although push is off");
      case FrameType.continuation:
        if (this.#blockStreamId === 0) {
          throw new Http2Error("protocol", "CONTINUATION without HEADERS");
        }
    }
  }

  #checkLength(length: number): void {
    const isAck = (this.#flags & FrameFlag.ack) !== 0;
    switch (this.#type) {
      case FrameType.headers:
      case FrameType.continuation:
        if (this.#gatheredCount + length > this.#blockBytesMax) {
          throw new Http2Error(
            "flood",
            `header block above ${this.#blockBytesMax} bytes (CVE-2024-27316)`,
          );
        }
        return;
      case FrameType.settings:
        if (length % SETTING_BYTES !== 0 || (isAck && length > 0)) break;
        if (length > SETTINGS_MAX * SETTING_BYTES) {
          throw new Http2Error("flood", "too many settings in a frame (CVE-2019-9515)");
        }
        return;
      case FrameType.priority:
        if (length === 5) return;
        break;
      case FrameType.rstStream:
      case FrameType.windowUpdate:
        if (length === 4) return;
        break;
      case FrameType.ping:
        if (length === PING_BYTES) return;
        break;
      case FrameType.goaway:
        if (length >= 8) return;
        break;
      default:
        return;
    }
    throw new Http2Error("frame-size", `frame of type ${this.#type} with ${length} bytes`);
  }

  // ---- DATA

  #beginData(length: number): void {
    if (!this.#isGreeted) this.#expectGreeting();
    if (this.#streamId === 0) throw misplaced(FrameType.data, 0);
    this.#paddingBytes = 0;
    this.#listener.dataBegun(this.#streamId, length);
    if ((this.#flags & FrameFlag.padded) !== 0) {
      if (length === 0) throw new Http2Error("frame-size", "padded DATA without padding length");
      this.#phase = "padding-length";
    } else if (length > 0) this.#phase = "data";
    else this.#endData();
  }

  #readPaddingLength(at: number): number {
    const paddingBytes = this.#arena[at] as number;
    this.#left -= 1 + paddingBytes;
    if (this.#left < 0) throw new Http2Error("protocol", "padding is longer than its frame");
    this.#paddingBytes = 1 + paddingBytes;
    if (this.#left > 0) this.#phase = "data";
    else this.#endData();
    return at + 1;
  }

  #readData(from: number, end: number): number {
    const length = Math.min(end - from, this.#left);
    this.#left -= length;
    this.#listener.data(from, length);
    if (this.#left === 0) this.#endData();
    return from + length;
  }

  /** The padding itself is still to come, but says nothing. */
  #endData(): void {
    this.#skipNext(this.#paddingBytes === 0 ? 0 : this.#paddingBytes - 1);
    this.#listener.dataEnded(this.#paddingBytes, (this.#flags & FrameFlag.endStream) !== 0);
  }

  #skipNext(length: number): void {
    this.#skip = length;
    this.#phase = length === 0 ? "header" : "skip";
  }

  #skipBytes(from: number, end: number): number {
    const length = Math.min(end - from, this.#skip);
    this.#skipNext(this.#skip - length);
    return from + length;
  }

  // ---- all other frames

  #gather(from: number, end: number): number {
    const length = Math.min(end - from, this.#left);
    const isWhole = length === this.#left && this.#partBytes === 0;
    this.#left -= length;
    if (isWhole && this.#blockStreamId === 0) {
      this.#complete(this.#arena, from, length);
      return from + length;
    }
    this.#keep(this.#arena, from, length);
    this.#partBytes += length;
    if (this.#left === 0) {
      const partBytes = this.#partBytes;
      this.#partBytes = 0;
      this.#complete(this.#gathered, this.#gatheredCount - partBytes, partBytes);
    }
    return from + length;
  }

  #keep(bytes: Buffer, from: number, length: number): void {
    const count = this.#gatheredCount + length;
    if (count > this.#gathered.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(2 * count, 256));
      this.#gathered.copy(larger, 0, 0, this.#gatheredCount);
      this.#gathered = larger;
    }
    bytes.copy(this.#gathered, this.#gatheredCount, from, from + length);
    this.#gatheredCount = count;
  }

  /** A payload is whole: in the arena, or at the end of what is gathered. */
  #complete(bytes: Buffer, at: number, length: number): void {
    this.#skipNext(this.#skip);
    if (this.#type === FrameType.headers) {
      this.#completeHeaders(bytes, at, length);
      return;
    }
    if (this.#type === FrameType.continuation) {
      this.#completeContinuation();
      return;
    }
    this.#release();
    const listener = this.#listener;
    const isAck = (this.#flags & FrameFlag.ack) !== 0;
    switch (this.#type) {
      case FrameType.rstStream:
        listener.rstStream(this.#streamId, uint32(bytes, at));
        return;
      case FrameType.settings:
        if (isAck) {
          listener.settingsAcknowledged();
          return;
        }
        for (let i = at; i < at + length; i += SETTING_BYTES) {
          const id = ((bytes[i] as number) << 8) | (bytes[i + 1] as number);
          listener.setting(id, uint32(bytes, i + 2));
        }
        listener.settingsEnded();
        return;
      case FrameType.ping:
        listener.ping(bytes, at, isAck);
        return;
      case FrameType.goaway:
        listener.goaway(
          uint32(bytes, at) & STREAM_ID_MAX,
          uint32(bytes, at + 4),
          bytes.toString("latin1", at + 8, at + length),
        );
        return;
      case FrameType.windowUpdate:
        listener.windowUpdate(this.#streamId, uint32(bytes, at) & WINDOW_BYTES_MAX);
        return;
    }
  }

  #completeHeaders(bytes: Buffer, at: number, length: number): void {
    let start = at;
    let end = at + length;
    if ((this.#flags & FrameFlag.padded) !== 0) {
      if (length === 0) throw new Http2Error("frame-size", "padded HEADERS without padding length");
      end -= bytes[start++] as number;
    }
    if ((this.#flags & FrameFlag.priority) !== 0) start += PRIORITY_BYTES;
    if (start > end) throw new Http2Error("protocol", "padding is longer than its frame");
    const endStream = (this.#flags & FrameFlag.endStream) !== 0;
    if ((this.#flags & FrameFlag.endHeaders) !== 0) {
      this.#release();
      this.#listener.headers(this.#streamId, bytes, start, end - start, endStream);
      return;
    }
    this.#blockStreamId = this.#streamId;
    this.#blockEndsStream = endStream;
    this.#continuationCount = 0;
    this.#gatheredCount = 0;
    this.#keep(bytes, start, end - start);
  }

  #completeContinuation(): void {
    if ((this.#flags & FrameFlag.endHeaders) === 0) return;
    const [bytes, length] = [this.#gathered, this.#gatheredCount];
    this.#blockStreamId = 0;
    this.#release();
    this.#listener.headers(this.#streamId, bytes, 0, length, this.#blockEndsStream);
  }

  /** The gathered bytes are used before more are gathered; large memory is given back. */
  #release(): void {
    this.#gatheredCount = 0;
    if (this.#gathered.length > KEPT_BYTES_MAX) this.#gathered = EMPTY;
  }
}

function isGathered(type: number): boolean {
  return type !== FrameType.priority && type <= FrameType.continuation;
}

function misplaced(type: number, streamId: number): Http2Error {
  return new Http2Error("protocol", `frame of type ${type} on stream ${streamId}`);
}

function uint32(bytes: Buffer, at: number): number {
  return (
    (((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)) >>>
    0
  );
}
