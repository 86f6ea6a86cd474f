/** Exponential back-off: pure, the caller sleeps. */
import type { Random } from "./random.ts";

export interface BackoffOptions {
  readonly firstMs: number;
  readonly maxMs: number;
  /** Share of the delay added or taken at random, 0 to 1. 0 is exact. */
  readonly jitter: number;
}

/** Doubles from `firstMs` to `maxMs`. */
export class Backoff {
  readonly #options: BackoffOptions;
  readonly #random: Random;
  #nextMs: number;

  constructor(random: Random, options: BackoffOptions) {
    this.#random = random;
    this.#options = options;
    this.#nextMs = options.firstMs;
  }

  /** The delay before the next attempt, milliseconds. */
  next(): number {
    const delayMs = this.#nextMs;
    this.#nextMs = Math.min(delayMs * 2, this.#options.maxMs);
    return delayMs * (1 + this.#options.jitter * (2 * this.#random.unit() - 1));
  }

  reset(): void {
    this.#nextMs = this.#options.firstMs;
  }
}
