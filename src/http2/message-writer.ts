/** Requests and answers to header blocks in frames. */
import type { FrameWriter } from "./frame-writer.ts";
import { HpackEncoder } from "./hpack-encoder.ts";

/** Header fields beside pseudo-headers, lower-case names, in wire order. */
export type Http2Fields = readonly (readonly [name: string, value: string])[];

export class MessageWriter {
  readonly #frames: FrameWriter;
  readonly #encoder = new HpackEncoder();

  constructor(frames: FrameWriter) {
    this.#frames = frames;
  }

  /** Honours the peer's SETTINGS_HEADER_TABLE_SIZE from the next message on, bytes. */
  limitTable(peerBytesMax: number): void {
    this.#encoder.limitTable(peerBytesMax);
  }

  /** A CONNECT. */
  request(streamId: number, authority: string, headers: Http2Fields): void {
    this.#encoder.begin();
    this.#encoder.add(":method", "CONNECT");
    this.#encoder.add(":authority", authority);
    this.#write(streamId, headers, false);
  }

  answer(streamId: number, status: number, headers: Http2Fields, endStream: boolean): void {
    this.#encoder.begin();
    this.#encoder.add(":status", String(status));
    this.#write(streamId, headers, endStream);
  }

  #write(streamId: number, headers: Http2Fields, endStream: boolean): void {
    for (const [name, value] of headers) this.#encoder.add(name, value);
    this.#frames.headers(streamId, this.#encoder.end(), endStream);
  }
}
