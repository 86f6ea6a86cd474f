/**
 * Frames out of bytes that come in any pieces. DATA is passed on as slices of the arena; of other
 * frames the payload is taken where it lies when it lies there whole, else gathered. What a frame
 * must look like is judged here, what it means for a stream in the connection. RFC 9113 section 6.
 */
import {
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  PREFACE,
  SETTING_BYTES,
  STREAM_ID_MAX,
  WINDOW_BYTES_MAX,
} from "./frame.ts";
import { checkFrame, GOAWAY_BYTES, misplaced, PRIORITY_BYTES } from "./frame-rules.ts";
import { GatheredBytes } from "./gathered-bytes.ts";
import { HeaderBlock } from "./header-block.ts";
import { Http2Error } from "./http2-error.ts";

/** Of a GOAWAY's debug text; the rest is skipped. */
const DEBUG_BYTES_MAX = 256;

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
  readonly #header: Buffer = Buffer.alloc(FRAME_HEADER_BYTES);
  /** A payload that is not whole in one piece. */
  readonly #gathered = new GatheredBytes();
  readonly #block: HeaderBlock;
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

  constructor(arena: Uint8Array, listener: FrameListener, options: FrameReaderOptions) {
    this.#arena = Buffer.from(arena.buffer, arena.byteOffset, arena.byteLength);
    this.#listener = listener;
    this.#frameBytesMax = options.frameBytesMax;
    this.#block = new HeaderBlock(options.headerListBytesMax);
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
    if (this.#block.isOpen) this.#block.expectContinuation(this.#type, this.#streamId);
    else if (this.#type === FrameType.data) {
      this.#beginData(length);
      return;
    } else if (this.#type === FrameType.continuation) {
      throw new Http2Error("protocol", "CONTINUATION without HEADERS");
    }
    if (!this.#isGreeted) this.#expectGreeting();
    checkFrame(this.#type, this.#flags, this.#streamId, length);
    if (!isKnown(this.#type)) {
      this.#listener.ignored(this.#type);
      this.#skipNext(length);
      return;
    }
    if (isOfHeaders(this.#type)) this.#block.expectRoom(length);
    const { goaway } = FrameType;
    this.#left = this.#type === goaway ? Math.min(length, GOAWAY_BYTES + DEBUG_BYTES_MAX) : length;
    this.#skip = length - this.#left;
    this.#phase = "gather";
    if (length === 0) this.#complete(this.#arena, 0, 0);
  }

  #expectGreeting(): void {
    if (this.#type !== FrameType.settings || (this.#flags & FrameFlag.ack) !== 0) {
      throw new Http2Error("protocol", `first frame is no SETTINGS but of type ${this.#type}`);
    }
    this.#isGreeted = true;
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
    this.#left -= length;
    if (this.#left === 0 && this.#gathered.count === 0) {
      this.#complete(this.#arena, from, length);
      return from + length;
    }
    this.#gathered.add(this.#arena, from, length);
    if (this.#left === 0) {
      const { bytes, count } = this.#gathered;
      this.#gathered.clear();
      this.#complete(bytes, 0, count);
    }
    return from + length;
  }

  /** A payload is whole, here or there. */
  #complete(bytes: Buffer, at: number, length: number): void {
    this.#skipNext(this.#skip);
    const listener = this.#listener;
    const isAck = (this.#flags & FrameFlag.ack) !== 0;
    switch (this.#type) {
      case FrameType.headers:
        this.#completeHeaders(bytes, at, length);
        return;
      case FrameType.continuation:
        this.#completeContinuation(bytes, at, length);
        return;
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
          bytes.toString("latin1", at + GOAWAY_BYTES, at + length),
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
      this.#listener.headers(this.#streamId, bytes, start, end - start, endStream);
      return;
    }
    this.#block.begin(this.#streamId, endStream);
    this.#block.add(bytes, start, end - start);
  }

  #completeContinuation(part: Buffer, at: number, partBytes: number): void {
    this.#block.add(part, at, partBytes);
    if ((this.#flags & FrameFlag.endHeaders) === 0) return;
    const { bytes, length } = this.#block.end();
    this.#listener.headers(this.#streamId, bytes, 0, length, this.#block.endsStream);
  }
}

/** PRIORITY has no meaning any more. RFC 9113 section 5.3.2. */
function isKnown(type: number): boolean {
  return type !== FrameType.priority && type <= FrameType.continuation;
}

function isOfHeaders(type: number): boolean {
  return type === FrameType.headers || type === FrameType.continuation;
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
