/** How much the peer lets us send: on each stream, and on all of them together. RFC 9113 section 5.2. */
import { WINDOW_BYTES_DEFAULT, WINDOW_BYTES_MAX } from "./frame.ts";
import { Http2Error } from "./http2-error.ts";
import type { StreamState } from "./http2-stream.ts";
import type { StreamTable } from "./stream-table.ts";

export class SendWindows<Owner> {
  readonly #streams: StreamTable<Owner>;
  #bytes = WINDOW_BYTES_DEFAULT;
  #initialBytes = WINDOW_BYTES_DEFAULT;

  constructor(streams: StreamTable<Owner>) {
    this.#streams = streams;
  }

  /** The peer's SETTINGS_INITIAL_WINDOW_SIZE. */
  get initialBytes(): number {
    return this.#initialBytes;
  }

  /** What may be sent on all streams together. */
  get bytes(): number {
    return this.#bytes;
  }

  /** What may be sent now; 0 too while a shrunken window is below it. */
  available(stream: StreamState<Owner>): number {
    return Math.max(0, Math.min(stream.sendWindow, this.#bytes));
  }

  spend(stream: StreamState<Owner>, byteCount: number): void {
    stream.sendWindow -= byteCount;
    this.#bytes -= byteCount;
  }

  /**
   * The connection's WINDOW_UPDATE.
   *
   * @throws Http2Error when it is above what a window can be.
   */
  grow(increment: number): void {
    this.#bytes += increment;
    if (this.#bytes > WINDOW_BYTES_MAX) throw overflow();
  }

  /** A stream's WINDOW_UPDATE. @returns false when it is above what a window can be. */
  growStream(stream: StreamState<Owner>, increment: number): boolean {
    stream.sendWindow += increment;
    return stream.sendWindow <= WINDOW_BYTES_MAX;
  }

  /**
   * The peer's SETTINGS_INITIAL_WINDOW_SIZE; open streams follow, also below zero.
   *
   * @throws Http2Error when a window is above what it can be.
   * @see RFC 9113 section 6.9.2
   */
  resize(bytes: number): void {
    if (bytes > WINDOW_BYTES_MAX) throw overflow();
    const growth = bytes - this.#initialBytes;
    this.#initialBytes = bytes;
    for (const stream of this.#streams.values()) {
      if (!this.growStream(stream, growth)) throw overflow();
    }
  }
}

function overflow(): Http2Error {
  return new Http2Error("flow-control", `window above ${WINDOW_BYTES_MAX} bytes`);
}
