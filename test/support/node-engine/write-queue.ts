/** Chunks on their way through one of Node's writable streams, oldest first. */
import type { Writable } from "node:stream";
import { afterTurn } from "../turn.ts";
import type { BufferPool } from "./buffer-pool.ts";

export class WriteQueue {
  readonly #stream: Writable;
  readonly #pool: BufferPool;
  readonly #written: (byteCount: number) => void;
  readonly #byteCounts: number[] = [];
  readonly #leases: (Buffer | undefined)[] = [];
  #pendingBytes = 0;
  #isGathering = false;

  /** @param written called for each chunk that the kernel or the tunnel took, not for lost ones. */
  constructor(stream: Writable, pool: BufferPool, written: (byteCount: number) => void) {
    this.#stream = stream;
    this.#pool = pool;
    this.#written = written;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  write(chunk: Buffer, lease: Buffer | undefined): void {
    this.#byteCounts.push(chunk.length);
    this.#leases.push(lease);
    this.#pendingBytes += chunk.length;
    this.#stream.write(chunk, this.#settled);
  }

  gather(): void {
    if (this.#isGathering) return;
    this.#isGathering = true;
    this.#stream.cork();
    afterTurn(this.#release);
  }

  /** Node calls back in the order of the writes; one function for all of them. */
  readonly #settled = (error: Error | null | undefined): void => {
    // What a stream could not write stays pending for good, so that its loss can be told; the
    // buffers are left to the garbage collector, because the kernel may still hold them.
    if (error || this.#stream.destroyed) return;
    const byteCount = this.#byteCounts.shift() ?? 0;
    const lease = this.#leases.shift();
    this.#pendingBytes -= byteCount;
    if (lease !== undefined) this.#pool.give(lease);
    this.#written(byteCount);
  };

  readonly #release = (): void => {
    this.#isGathering = false;
    this.#stream.uncork();
  };
}
