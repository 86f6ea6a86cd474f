/** Long work in slices: others use the thread in between. */
import type { Clock } from "./clock.ts";

export class Pace {
  readonly #clock: Clock;
  readonly #sliceMs: number;
  #endsAt: number;

  /** @param sliceMs how long the thread is kept at a time, milliseconds. */
  constructor(clock: Clock, sliceMs: number) {
    this.#clock = clock;
    this.#sliceMs = sliceMs;
    this.#endsAt = clock.monotonic() + sliceMs;
  }

  /** Ask between two steps; when it is true, {@link rest} before the next. */
  get isOver(): boolean {
    return this.#clock.monotonic() >= this.#endsAt;
  }

  /** Resolves after whatever else was due. A slice begins. */
  async rest(): Promise<void> {
    await new Promise<void>((resolve) => this.#clock.after(0, resolve, true));
    this.#endsAt = this.#clock.monotonic() + this.#sliceMs;
  }
}
