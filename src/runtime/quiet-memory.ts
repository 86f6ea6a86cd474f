/**
 * Gives memory back after a busy time. V8 collects when something is allocated: a thread that has
 * become quiet would keep what a burst left for as long as nothing happens.
 */
import type { Clock } from "./clock.ts";

/** Long enough that a pause between two bursts is none. */
const LOOK_EVERY_MS = 5000;
/** Below this share of a core nobody notices the collection. */
const QUIET_SHARE_MAX = 0.02;
/** From this share on there was a burst, which may leave something. */
const BUSY_SHARE_MIN = 0.05;
/** Allocated between two looks; from this on the thread has something to do. */
const BUSY_BYTES_MIN = 512 * 1024;
/**
 * A collection costs more than its milliseconds: V8 compiles anew what had become fast. While a quiet
 * thread has something to do the pause between two doubles up to this many looks, five minutes; a burst
 * ends it.
 */
const PAUSE_LOOKS_MAX = 60;
/** What was allocated since the last collection; less is not worth the milliseconds. */
const ALLOCATED_BYTES_MIN = 4 * 1024 * 1024;
/** The same for the first collection after there was something to do. */
const ALLOCATED_AFTER_BYTES_MIN = 256 * 1024;
/**
 * After the first another follows, whatever was allocated: tunnels and what the C heap holds for them go
 * some seconds after the last connection.
 */
const LAST_AFTER_LOOKS = 6;

/** One thread's memory. */
export interface QuietMemoryDeps {
  readonly clock: Clock;
  /** CPU time of the thread since its start, milliseconds. */
  readonly cpuMs: () => number;
  /**
   * Allocated since the thread's start. The size of the heap would not do: one that was collected
   * while connections were idle has the same size when they are gone.
   */
  readonly allocatedBytes: () => number;
  /** Collects everything; takes a few milliseconds for each megabyte that lives. */
  readonly collect: () => void;
}

export class QuietMemory {
  readonly #deps: QuietMemoryDeps;
  #cpuMs: number;
  /** At the last look. */
  #allocatedBytes = 0;
  /** At the last collection. */
  #collectedBytes = 0;
  /** Of the two after there was something to do. */
  #collectionsLeft = 0;
  #pauseLooks = 0;
  #looksSinceCollection = 0;

  /** Looks after the memory as long as the thread lives; does not keep it running. */
  constructor(deps: QuietMemoryDeps) {
    this.#deps = deps;
    this.#cpuMs = deps.cpuMs();
    this.#lookLater();
  }

  #lookLater(): void {
    this.#deps.clock.after(LOOK_EVERY_MS, () => {
      this.#look();
      this.#lookLater();
    });
  }

  #look(): void {
    const { cpuMs, allocatedBytes } = this.#deps;
    const share = (cpuMs() - this.#cpuMs) / LOOK_EVERY_MS;
    const hasWork = allocatedBytes() - this.#allocatedBytes >= BUSY_BYTES_MIN;
    this.#looksSinceCollection++;
    if (share >= BUSY_SHARE_MIN) this.#pauseLooks = 0;
    if (hasWork) this.#collectionsLeft = 2;
    if (share < QUIET_SHARE_MAX) this.#collectIfWorthIt(hasWork);
    this.#cpuMs = cpuMs();
    this.#allocatedBytes = allocatedBytes();
  }

  #collectIfWorthIt(hasWork: boolean): void {
    const { collect, allocatedBytes } = this.#deps;
    if (!this.#isWorthIt(hasWork, allocatedBytes() - this.#collectedBytes)) return;
    collect();
    this.#collectedBytes = allocatedBytes();
    this.#looksSinceCollection = 0;
    if (hasWork) this.#pauseLooks = Math.min(2 * this.#pauseLooks || 1, PAUSE_LOOKS_MAX);
    else if (this.#collectionsLeft > 0) this.#collectionsLeft--;
  }

  #isWorthIt(hasWork: boolean, allocatedBytes: number): boolean {
    if (hasWork && this.#looksSinceCollection < this.#pauseLooks) return false;
    if (allocatedBytes >= ALLOCATED_BYTES_MIN) return true;
    if (hasWork || this.#collectionsLeft === 0) return false;
    if (this.#looksSinceCollection >= LAST_AFTER_LOOKS) return true;
    return this.#collectionsLeft === 2 && allocatedBytes >= ALLOCATED_AFTER_BYTES_MIN;
  }
}
