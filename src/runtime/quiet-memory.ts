/**
 * Gives memory back after a busy time. V8 collects when something is allocated: a thread that has
 * become quiet would keep what a burst left for as long as nothing happens.
 *
 * A collection costs more than its milliseconds: V8 forgets the shapes of objects of which none lives,
 * and with them all code that it had made fast for them. So a thread has to rest first, longer than
 * between two bursts.
 */
import type { Clock } from "./clock.ts";

/** How often a thread is looked at. */
const LOOK_EVERY_MS = 5000;
/** Below this share of a core nobody notices the collection. */
const QUIET_SHARE_MAX = 0.02;
/** From this share on there was a burst, which may leave something. */
const BUSY_SHARE_MIN = 0.05;
/**
 * Allocated between two looks; from this on the thread has something to do. V8 counts up to 0.7 MB for
 * being asked.
 */
const WORK_BYTES_MIN = 1.5 * 1024 * 1024;
/**
 * So many looks without work in a row are a rest, 25 to 30 s: tunnels and what belongs to them go 15 s
 * after the last connection, and are collected with it.
 */
const REST_LOOKS = 5;
/** Allocated by work since the last collection; less is not worth it. */
const GARBAGE_BYTES_MIN = 4 * 1024 * 1024;
/** A quiet thread that always has a little to do is collected after pauses, each twice as long. */
const PAUSE_LOOKS = { first: 6, longest: 60 } as const;

/** One thread's memory. */
export interface QuietMemoryDeps {
  readonly clock: Clock;
  /** CPU time of the thread since its start, milliseconds. */
  readonly cpuMs: () => number;
  /**
   * Allocated since the thread's start; asked once a look and once after a collection. The size of the
   * heap would not do: one that was collected while connections were idle has the same size when they
   * are gone.
   */
  readonly allocatedBytes: () => number;
  /** Collects everything; takes a few milliseconds for each megabyte that lives. */
  readonly collect: () => void;
}

export class QuietMemory {
  readonly #deps: QuietMemoryDeps;
  /** At the last look. */
  #cpuMs: number;
  #allocatedBytes: number;
  /** What work has allocated since the last collection. */
  #garbageBytes = 0;
  #restLooks = 0;
  /** Quiet ones in a row, since the last collection at most. */
  #quietLooks = 0;
  #pauseLooks: number = PAUSE_LOOKS.first;

  /** Looks after the memory as long as the thread lives; does not keep it running. */
  constructor(deps: QuietMemoryDeps) {
    this.#deps = deps;
    this.#cpuMs = deps.cpuMs();
    this.#allocatedBytes = deps.allocatedBytes();
    this.#lookLater();
  }

  #lookLater(): void {
    this.#deps.clock.after(LOOK_EVERY_MS, () => {
      this.#look();
      this.#lookLater();
    });
  }

  #look(): void {
    const cpuMs = this.#deps.cpuMs();
    const allocatedBytes = this.#deps.allocatedBytes();
    const share = (cpuMs - this.#cpuMs) / LOOK_EVERY_MS;
    const workBytes = allocatedBytes - this.#allocatedBytes;
    this.#cpuMs = cpuMs;
    this.#allocatedBytes = allocatedBytes;

    const hasWork = workBytes >= WORK_BYTES_MIN;
    const isQuiet = share < QUIET_SHARE_MAX;
    if (hasWork) this.#garbageBytes += workBytes;
    if (share >= BUSY_SHARE_MIN) this.#pauseLooks = PAUSE_LOOKS.first;
    this.#quietLooks = isQuiet ? this.#quietLooks + 1 : 0;
    this.#restLooks = isQuiet && !hasWork ? this.#restLooks + 1 : 0;

    if (this.#garbageBytes < GARBAGE_BYTES_MIN) return;
    if (this.#restLooks >= REST_LOOKS) this.#collect();
    else if (this.#quietLooks >= this.#pauseLooks) {
      this.#pauseLooks = Math.min(2 * this.#pauseLooks, PAUSE_LOOKS.longest);
      this.#collect();
    }
  }

  #collect(): void {
    this.#deps.collect();
    // What it moved counts as allocated, and is no work.
    this.#allocatedBytes = this.#deps.allocatedBytes();
    this.#garbageBytes = 0;
    this.#quietLooks = 0;
  }
}
