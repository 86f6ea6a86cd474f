/** A header block on its way: what HEADERS began and CONTINUATION frames go on with. */
import { FRAME_BYTES_DEFAULT, FrameType } from "./frame.ts";
import { GatheredBytes } from "./gathered-bytes.ts";
import { Http2Error } from "./http2-error.ts";

/** Frames after HEADERS that one block may take; the original of CVE-2024-27316 had no end. */
const CONTINUATIONS_MAX = 64;

/** Blocks of fields that are above the list limit once decoded are still read, up to this factor. */
const BLOCK_FACTOR = 2;

export class HeaderBlock {
  readonly #bytesMax: number;
  readonly #gathered = new GatheredBytes();
  /** 0: no block is on its way. */
  #streamId = 0;
  #endsStream = false;
  #continuationCount = 0;

  /** @param listBytesMax our SETTINGS_MAX_HEADER_LIST_SIZE. */
  constructor(listBytesMax: number) {
    this.#bytesMax = Math.max(FRAME_BYTES_DEFAULT, listBytesMax * BLOCK_FACTOR);
  }

  get isOpen(): boolean {
    return this.#streamId !== 0;
  }

  /** What its HEADERS frame said. */
  get endsStream(): boolean {
    return this.#endsStream;
  }

  /**
   * A frame comes while a block is on its way.
   *
   * @throws Http2Error when it does not go on with the block, or has done so too often.
   */
  expectContinuation(type: number, streamId: number): void {
    if (type !== FrameType.continuation || streamId !== this.#streamId) {
      throw new Http2Error(
        "protocol",
        `frame of type ${type} within the header block of stream ${this.#streamId}`,
      );
    }
    this.#continuationCount += 1;
    if (this.#continuationCount > CONTINUATIONS_MAX) {
      throw new Http2Error("flood", "too many CONTINUATION frames (CVE-2024-27316)");
    }
  }

  /**
   * A frame of HEADERS or CONTINUATION begins.
   *
   * @throws Http2Error when the block gets too long with it.
   */
  expectRoom(length: number): void {
    if (this.#gathered.count + length <= this.#bytesMax) return;
    throw new Http2Error("flood", `header block above ${this.#bytesMax} bytes (CVE-2024-27316)`);
  }

  /** HEADERS without END_HEADERS. */
  begin(streamId: number, endsStream: boolean): void {
    this.#streamId = streamId;
    this.#endsStream = endsStream;
    this.#continuationCount = 0;
  }

  add(bytes: Buffer, from: number, length: number): void {
    this.#gathered.add(bytes, from, length);
  }

  /** The whole block; its bytes are valid until the next one begins. */
  end(): { readonly bytes: Buffer; readonly length: number } {
    const { bytes, count: length } = this.#gathered;
    this.#streamId = 0;
    this.#gathered.clear();
    return { bytes, length };
  }
}
