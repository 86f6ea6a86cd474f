/** The streams of a connection: the open ones, and what is known of those that are no more. */
import { STREAM_ID_MAX } from "./frame.ts";
import { Http2Error } from "./http2-error.ts";
import { StreamState } from "./http2-stream.ts";

/** Streams that we have reset, whose frames under way are no fault of the peer. */
const RESET_STREAMS_MAX = 1024;

export class StreamTable<Owner> {
  readonly #open = new Map<number, StreamState<Owner>>();
  /** In the order of their reset. */
  readonly #resetIds = new Set<number>();
  /** Highest stream that the client has opened; as client our own. */
  #idMax = -1;
  /** Highest stream of the peer that we still answer. */
  #acceptedIdMax = STREAM_ID_MAX;

  get count(): number {
    return this.#open.size;
  }

  /** Highest stream that was ever opened; 0 is none. */
  get lastId(): number {
    return Math.max(0, this.#idMax);
  }

  /** The open stream of this number. */
  get(id: number): StreamState<Owner> | undefined {
    return this.#open.get(id);
  }

  /** The open streams. */
  values(): IterableIterator<StreamState<Owner>> {
    return this.#open.values();
  }

  /** Opens a stream with these windows, bytes. */
  add(id: number, sendWindow: number, receiveWindow: number): StreamState<Owner> {
    const stream = new StreamState<Owner>(id, sendWindow, receiveWindow);
    this.#open.set(id, stream);
    return stream;
  }

  delete(stream: StreamState<Owner>): void {
    this.#open.delete(stream.id);
  }

  /** Client: the number of a new stream; `undefined` when all are used up. */
  takeId(): number | undefined {
    const id = this.#idMax + 2;
    if (id > STREAM_ID_MAX) return undefined;
    this.#idMax = id;
    return id;
  }

  /**
   * Server: the peer opens a stream.
   *
   * @throws Http2Error when it may not have this number.
   */
  admit(id: number): void {
    if (id % 2 === 0) throw new Http2Error("protocol", `client opens stream ${id}`);
    if (id <= this.#idMax) {
      throw new Http2Error("stream-closed", `HEADERS on stream ${id}, which is closed`);
    }
    this.#idMax = id;
  }

  /** Server: streams above those so far are not ours any more. */
  seal(): void {
    this.#acceptedIdMax = this.lastId;
  }

  /** Server: whether the stream was opened after we said which was the last one. */
  isBeyondEnd(id: number): boolean {
    return id > this.#acceptedIdMax;
  }

  noteReset(id: number): void {
    this.#resetIds.add(id);
    if (this.#resetIds.size <= RESET_STREAMS_MAX) return;
    for (const oldest of this.#resetIds) {
      this.#resetIds.delete(oldest);
      break;
    }
  }

  /** Whether the peer may not know yet that this stream is gone, or never was. */
  isDisowned(id: number): boolean {
    return this.isBeyondEnd(id) || this.#resetIds.has(id);
  }

  /** @throws Http2Error when nobody has opened this stream yet. */
  expectOpened(id: number, frame: string): void {
    if (id % 2 === 1 && id <= this.#idMax) return;
    if (this.isBeyondEnd(id)) return;
    throw new Http2Error("protocol", `${frame} on stream ${id}, which is not open`);
  }
}
