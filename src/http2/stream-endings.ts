/** The ways in which a stream ends: on the wire, in the table and in the windows. */
import type { ConnectionEnd } from "./connection-end.ts";
import type { FrameWriter } from "./frame-writer.ts";
import type { StreamState } from "./http2-stream.ts";
import type { ReceiveWindows } from "./receive-windows.ts";
import type { StreamTable } from "./stream-table.ts";

export interface StreamEndingsDeps<Owner> {
  readonly frames: FrameWriter;
  readonly streams: StreamTable<Owner>;
  readonly receiveWindows: ReceiveWindows<Owner>;
  readonly end: ConnectionEnd<Owner>;
}

export class StreamEndings<Owner> {
  readonly #frames: FrameWriter;
  readonly #streams: StreamTable<Owner>;
  readonly #receiveWindows: ReceiveWindows<Owner>;
  readonly #end: ConnectionEnd<Owner>;

  constructor(deps: StreamEndingsDeps<Owner>) {
    this.#frames = deps.frames;
    this.#streams = deps.streams;
    this.#receiveWindows = deps.receiveWindows;
    this.#end = deps.end;
  }

  /** Our END_STREAM was sent. */
  weEnded(stream: StreamState<Owner>): void {
    stream.hasEnded = true;
    if (!stream.hasPeerEnded) return;
    this.#remove(stream);
    this.#end.check();
  }

  /** The peer's END_STREAM has come. Ask the connection's end for a check when that is told. */
  peerEnded(stream: StreamState<Owner>): void {
    stream.hasPeerEnded = true;
    if (stream.hasEnded) this.#remove(stream);
  }

  /** RST_STREAM for a stream of whatever state, or of none. */
  sendReset(streamId: number, code: number): void {
    this.#frames.rstStream(streamId, code);
    this.#streams.noteReset(streamId);
  }

  /** The stream is gone before its time: nobody will take what is left of it. Idempotent. */
  abandon(stream: StreamState<Owner>): void {
    this.#remove(stream);
    stream.isAbandoned = true;
    this.#receiveWindows.forget(stream);
  }

  #remove(stream: StreamState<Owner>): void {
    if (stream.isClosed) return;
    stream.isClosed = true;
    this.#streams.delete(stream);
    this.#receiveWindows.release(stream);
  }
}
