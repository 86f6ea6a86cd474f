/**
 * One end of a connection as a relay drives it: a byte stream in each direction whose endings are
 * told apart. A socket and a tunnel stream are its two kinds.
 */
import type { SideFailure } from "../../../src/engine/side-failure.ts";

/** What a side tells its relay; never from inside a call of the relay, except `failed` by `write`. */
export interface SideListener {
  /**
   * Bytes came. The listener owns them; `lease` is the pool buffer that they lie in, if any.
   *
   * @returns false to hold the reading until `resume`.
   */
  read(chunk: Buffer, lease: Buffer | undefined): boolean;
  /** No more bytes will come: FIN or END_STREAM. Once. */
  ended(): void;
  /** The oldest chunk not yet written has been. */
  written(byteCount: number): void;
  /** Everything is written and the half-close is on its way. Once. */
  finished(): void;
  /** Both directions of this side are dead. At most once. */
  failed(failure: SideFailure): void;
  /** Descriptor or stream are gone; nothing follows. Once. */
  closed(): void;
}

export interface RelaySide {
  /** Begins to read. Call once; what happened before is told again. */
  start(listener: SideListener): void;
  /** Reads on after `read` answered false. Idempotent. */
  resume(): void;
  /** Takes the chunk; its lease goes back to the pool when it is written. */
  write(chunk: Buffer, lease: Buffer | undefined): void;
  /** Bytes taken by `write` and not yet reported by `written`. */
  readonly pendingBytes: number;
  /** True when many small chunks come per turn of the event loop, so that gathering them pays. */
  readonly arrivesInPieces: boolean;
  /** Holds writes back for the rest of the turn, so that they leave with one system call. */
  gather(): void;
  /** Half-close after everything taken has been written. */
  end(): void;
  /** See `End`; `closed` follows in any case. */
  close(): void;
  reset(): void;
}
