/** Frames to bytes: behind what was written before, or, for DATA, before a payload that lies ready. */
import {
  FRAME_BYTES_DEFAULT,
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  PING_BYTES,
  PREFACE,
  SETTING_BYTES,
} from "./frame.ts";
import { GOAWAY_BYTES } from "./frame-rules.ts";

/** The most that is reserved at once: a frame of the size that every peer takes. */
export const OUTPUT_BYTES_MAX: number = FRAME_HEADER_BYTES + FRAME_BYTES_DEFAULT;

/** Payload of RST_STREAM and WINDOW_UPDATE. */
const NUMBER_BYTES = 4;

/** Where frames other than DATA go. */
export interface Http2Output {
  /**
   * Makes room behind everything that was written to this connection so far.
   *
   * @param length at most {@link OUTPUT_BYTES_MAX}.
   * @returns its offset in the arena; all of it is filled before anything else is asked for.
   */
  reserve(length: number): number;
}

export class FrameWriter {
  readonly #arena: Uint8Array;
  readonly #output: Http2Output;

  constructor(arena: Uint8Array, output: Http2Output) {
    this.#arena = arena;
    this.#output = output;
  }

  /** What a client says before its first frame. */
  preface(): void {
    this.#arena.set(PREFACE, this.#output.reserve(PREFACE.length));
  }

  settings(settings: readonly (readonly [id: number, value: number])[]): void {
    let at = this.#begin(settings.length * SETTING_BYTES, FrameType.settings, 0, 0);
    for (const [id, value] of settings) {
      this.#arena[at] = id >>> 8;
      this.#arena[at + 1] = id;
      this.#uint32(at + 2, value);
      at += SETTING_BYTES;
    }
  }

  settingsAck(): void {
    this.#begin(0, FrameType.settings, FrameFlag.ack, 0);
  }

  /** @param payload eight bytes. */
  ping(payload: Uint8Array, isAck: boolean): void {
    const at = this.#begin(PING_BYTES, FrameType.ping, isAck ? FrameFlag.ack : 0, 0);
    this.#arena.set(payload, at);
  }

  rstStream(streamId: number, code: number): void {
    this.#uint32(this.#begin(NUMBER_BYTES, FrameType.rstStream, 0, streamId), code);
  }

  /** @param streamId 0 is the connection. */
  windowUpdate(streamId: number, increment: number): void {
    this.#uint32(this.#begin(NUMBER_BYTES, FrameType.windowUpdate, 0, streamId), increment);
  }

  /** @param debug ASCII. */
  goaway(lastStreamId: number, code: number, debug: string): void {
    const at = this.#begin(GOAWAY_BYTES + debug.length, FrameType.goaway, 0, 0);
    this.#uint32(at, lastStreamId);
    this.#uint32(at + 4, code);
    for (let i = 0; i < debug.length; i++) {
      this.#arena[at + GOAWAY_BYTES + i] = debug.charCodeAt(i);
    }
  }

  /** A header block in as many frames as it takes. */
  headers(streamId: number, block: Uint8Array, endStream: boolean): void {
    let type: number = FrameType.headers;
    let flags = endStream ? FrameFlag.endStream : 0;
    for (let from = 0; from < block.length; from += FRAME_BYTES_DEFAULT) {
      const part = block.subarray(from, from + FRAME_BYTES_DEFAULT);
      if (from + part.length === block.length) flags |= FrameFlag.endHeaders;
      this.#arena.set(part, this.#begin(part.length, type, flags, streamId));
      type = FrameType.continuation;
      flags = 0;
    }
  }

  /** An empty DATA frame with END_STREAM. */
  endOfStream(streamId: number): void {
    this.#begin(0, FrameType.data, FrameFlag.endStream, streamId);
  }

  /** The {@link FRAME_HEADER_BYTES} before a payload that follows in the arena or on the wire. */
  dataHeader(streamId: number, offset: number, length: number): void {
    this.#header(offset, length, FrameType.data, 0, streamId);
  }

  /** @returns where the payload goes. */
  #begin(length: number, type: number, flags: number, streamId: number): number {
    const offset = this.#output.reserve(FRAME_HEADER_BYTES + length);
    this.#header(offset, length, type, flags, streamId);
    return offset + FRAME_HEADER_BYTES;
  }

  #header(offset: number, length: number, type: number, flags: number, streamId: number): void {
    const bytes = this.#arena;
    bytes[offset] = length >>> 16;
    bytes[offset + 1] = length >>> 8;
    bytes[offset + 2] = length;
    bytes[offset + 3] = type;
    bytes[offset + 4] = flags;
    this.#uint32(offset + 5, streamId);
  }

  #uint32(offset: number, value: number): void {
    const bytes = this.#arena;
    bytes[offset] = value >>> 24;
    bytes[offset + 1] = value >>> 16;
    bytes[offset + 2] = value >>> 8;
    bytes[offset + 3] = value;
  }
}
