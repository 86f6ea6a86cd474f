/**
 * Spaces out dials to peers that fail. However many connections want to go there, a dead peer is
 * dialled once, then after a delay that doubles up to a limit; whoever comes meanwhile waits and
 * shares that dial.
 */
import type { Clock, Timer } from "../runtime/clock.ts";

/** Short against what applications notice: a peer that restarts is found almost at once. */
const FIRST_DELAY_MS = 10;

interface Failing {
  delayMs: number;
  /** Monotonic milliseconds. */
  notBefore: number;
  /** Forgets it when nobody has asked for long. */
  forget: Timer;
}

export class DialBackoff {
  readonly #clock: Clock;
  readonly #delayMaxMs: number;
  readonly #failing = new Map<string, Failing>();

  /** @param delayMaxMs the longest time between two dials to one peer that fail. */
  constructor(clock: Clock, delayMaxMs: number) {
    this.#clock = clock;
    this.#delayMaxMs = delayMaxMs;
  }

  /** Nothing came of a dial to it, or of the tunnel that was dialled. */
  failed(key: string): void {
    const before = this.#failing.get(key);
    before?.forget.cancel();
    const delayMs = Math.min(before ? 2 * before.delayMs : FIRST_DELAY_MS, this.#delayMaxMs);
    this.#failing.set(key, {
      delayMs,
      notBefore: this.#clock.monotonic() + delayMs,
      forget: this.#clock.after(delayMs + this.#delayMaxMs, () => this.#failing.delete(key)),
    });
  }

  /** It answers. */
  succeeded(key: string): void {
    const failing = this.#failing.get(key);
    if (failing === undefined) return;
    failing.forget.cancel();
    this.#failing.delete(key);
  }

  /** How long to wait before the next dial, milliseconds; mostly 0. */
  delayMs(key: string): number {
    const failing = this.#failing.get(key);
    return failing === undefined ? 0 : Math.max(0, failing.notBefore - this.#clock.monotonic());
  }

  /** Forgets everything. Idempotent. */
  close(): void {
    for (const { forget } of this.#failing.values()) forget.cancel();
    this.#failing.clear();
  }
}
