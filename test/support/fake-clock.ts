/** A clock that moves only when a test says so; timers run in order of their due time. */
import type { Clock, Timer } from "../../src/runtime/clock.ts";

export class FakeClock implements Clock {
  #now: number;
  #order = 0;
  #timers: { due: number; order: number; callback: () => void }[] = [];

  constructor(startAt = 1_800_000_000_000) {
    this.#now = startAt;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  after(delayMs: number, callback: () => void): Timer {
    const timer = { due: this.#now + Math.max(0, delayMs), order: this.#order++, callback };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((t) => t !== timer);
      },
    };
  }

  /** The machine sleeps: time goes on, timers do not. */
  jump(byMs: number): void {
    this.#now += byMs;
    for (const timer of this.#timers) timer.due += byMs;
  }

  /** Timers that have neither fired nor been cancelled. */
  get pendingCount(): number {
    return this.#timers.length;
  }

  /** Runs everything due until then, letting promises settle between timers. */
  async advance(byMs: number): Promise<void> {
    const until = this.#now + byMs;
    for (;;) {
      await settle();
      const next = this.#timers
        .filter((t) => t.due <= until)
        .sort((a, b) => a.due - b.due || a.order - b.order)[0];
      if (next === undefined) break;
      this.#now = Math.max(this.#now, next.due);
      this.#timers = this.#timers.filter((t) => t !== next);
      next.callback();
    }
    this.#now = until;
    await settle();
  }
}

/** Lets promise chains of reasonable depth run to their end. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}
