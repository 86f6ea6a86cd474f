/**
 * Gives memory back after a busy time. V8 collects when something is allocated: a thread that has
 * become quiet would keep what a burst left for as long as nothing happens.
 */
import type { Clock } from "./clock.ts";

/** Long enough that a pause between two bursts is none. */
const LOOK_EVERY_MS = 5000;
/** Below this share of a core nobody notices the collection. */
const QUIET_SHARE_MAX = 0.02;
/** Less is not worth the milliseconds. */
const GROWTH_BYTES_MIN = 4 * 1024 * 1024;

/** One thread's memory. */
export interface QuietMemoryDeps {
  readonly clock: Clock;
  /** CPU time of the thread since its start, milliseconds. */
  readonly cpuMs: () => number;
  /** What the heap holds, garbage included. */
  readonly heapBytes: () => number;
  /** Collects everything; takes a few milliseconds for each megabyte that lives. */
  readonly collect: () => void;
}

export class QuietMemory {
  readonly #deps: QuietMemoryDeps;
  #cpuMs: number;
  /** After the last collection; less when the heap shrank by itself. */
  #keptBytes = 0;

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
    const { cpuMs, heapBytes, collect } = this.#deps;
    const isQuiet = cpuMs() - this.#cpuMs < QUIET_SHARE_MAX * LOOK_EVERY_MS;
    const bytes = heapBytes();
    if (isQuiet && bytes >= this.#keptBytes + GROWTH_BYTES_MIN) {
      collect();
      this.#keptBytes = heapBytes();
    } else {
      this.#keptBytes = Math.min(this.#keptBytes, bytes);
    }
    this.#cpuMs = cpuMs();
  }
}
