/**
 * Gives pages back that a quiet process does not need: freed pieces of the C heap, program pages that
 * only its work or a collection touched. Nothing is forgotten by it, unlike by a collection
 * (`quiet-memory.ts`): what is needed again comes from the page cache.
 */
import type { Clock } from "./clock.ts";

/** How often the process is looked at. */
const LOOK_EVERY_MS = 5000;
/** From this share of a core on there is a burst. */
const BUSY_SHARE_MIN = 0.1;
/** Of program pages beyond those that are needed; less is not worth the milliseconds. */
const SPARE_BYTES_MIN = 4 * 1024 * 1024;

/** In a row: what a burst stirred up, such as a collection of V8's own, still goes on at the first. */
const RELEASES = 2;

/** The process, as it is looked at. */
export interface ResidentMemoryDeps {
  readonly clock: Clock;
  /** CPU time of all threads since the start, milliseconds. */
  readonly cpuMs: () => number;
  /** Of resident pages of files, which are those of programs and libraries. */
  readonly programBytes: () => number;
  /** Takes one to six milliseconds. */
  readonly release: () => void;
}

export class ResidentMemory {
  readonly #deps: ResidentMemoryDeps;
  /** At the last look. */
  #cpuMs: number;
  /** What was back one look after the last release, or less; 0 after a burst. */
  #neededBytes = 0;
  /** In a row, of which the last was at the look before. */
  #releases = 0;

  /** Looks after the memory as long as the process lives; does not keep it running. */
  constructor(deps: ResidentMemoryDeps) {
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
    const { cpuMs, programBytes, release } = this.#deps;
    const cpuMsBefore = this.#cpuMs;
    this.#cpuMs = cpuMs();
    if (this.#cpuMs - cpuMsBefore >= BUSY_SHARE_MIN * LOOK_EVERY_MS) {
      this.#neededBytes = 0;
      this.#releases = 0;
      return;
    }
    const bytes = programBytes();
    if (this.#releases === 0 && bytes < this.#neededBytes + SPARE_BYTES_MIN) {
      this.#neededBytes = Math.min(bytes, this.#neededBytes);
    } else if (this.#releases < RELEASES) {
      this.#releases++;
      release();
    } else {
      this.#neededBytes = bytes;
      this.#releases = 0;
    }
  }
}
