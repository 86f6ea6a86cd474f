/**
 * Bounds what stalled readers of one tunnel make this process hold.
 *
 * Node returns the credit of the whole connection as soon as bytes arrive, so each stream that
 * stalls could hold a full stream window, two hundred of them 800 MiB. Instead the window of the
 * streams shrinks while many are held, so that together they hold about what the connection's
 * window allows. A few held streams change nothing.
 */
import type { Http2Session } from "node:http2";
import type { TunnelSettings } from "../../../src/engine/engine.ts";

/** A stream always may send this much, so that a shared tunnel never stands still. */
const STREAM_WINDOW_BYTES_MIN = 64 * 1024;

export class ReceiveBudget {
  readonly #session: Http2Session;
  readonly #settings: TunnelSettings;
  #heldStreams = 0;
  #windowBytes: number;
  #isChanging = false;

  constructor(session: Http2Session, settings: TunnelSettings) {
    this.#session = session;
    this.#settings = settings;
    this.#windowBytes = settings.streamWindowBytes;
  }

  /** A stream is no longer read. */
  held(): void {
    this.#heldStreams++;
    this.#adjust();
  }

  /** A stream that was held is read again or gone. */
  released(): void {
    this.#heldStreams--;
    this.#adjust();
  }

  /** At most one change per round trip: the next waits for the peer's acknowledgement. */
  #adjust(): void {
    const windowBytes = this.#fairWindowBytes();
    // Growing waits until there is room for twice as much, or the peer is told at every pause.
    const isSettled = windowBytes >= this.#windowBytes && windowBytes < 2 * this.#windowBytes;
    if (isSettled || this.#isChanging || this.#session.destroyed) return;
    this.#isChanging = true;
    this.#windowBytes = windowBytes;
    this.#session.settings({ initialWindowSize: windowBytes }, (error) => {
      this.#isChanging = false;
      if (error === null) this.#adjust();
    });
  }

  /** A power of two below the full window, so that small changes of the count change nothing. */
  #fairWindowBytes(): number {
    const { connectionWindowBytes, streamWindowBytes } = this.#settings;
    const share = connectionWindowBytes / Math.max(1, this.#heldStreams);
    if (share >= streamWindowBytes) return streamWindowBytes;
    return Math.max(STREAM_WINDOW_BYTES_MIN, 2 ** Math.floor(Math.log2(share)));
  }
}
