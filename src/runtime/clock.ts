/** Time as a value that is handed in, so that tests hold it. */

/** A timer that has not fired yet. */
export interface Timer {
  /** Idempotent; after it the callback never runs. */
  cancel(): void;
}

export interface Clock {
  /** Wall clock, milliseconds since the epoch, with microseconds behind the point. */
  now(): number;
  /** Monotonic milliseconds, for durations. */
  monotonic(): number;
  /**
   * Runs the callback once.
   *
   * @param keepAlive whether the pending timer keeps the process running; default false.
   */
  after(delayMs: number, callback: () => void, keepAlive?: boolean): Timer;
}

/** Node allows at most this delay; longer ones would fire at once. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/** The monotonic clock is finer, the wall clock is right: beyond this they are brought together. */
const WALL_CLOCK_DRIFT_MS_MAX = 1.5;

/** The machine's clock. */
export const systemClock: Clock = makeSystemClock();

function makeSystemClock(): Clock {
  let wallClockOffsetMs = performance.timeOrigin;
  return {
    now() {
      const wallMs = Date.now();
      const monotonicMs = performance.now();
      const nowMs = wallClockOffsetMs + monotonicMs;
      // Also after somebody set the clock, or the machine slept.
      if (Math.abs(wallMs - nowMs) <= WALL_CLOCK_DRIFT_MS_MAX) return nowMs;
      wallClockOffsetMs = wallMs - monotonicMs;
      return wallMs;
    },
    monotonic: () => performance.now(),
    after(delayMs, callback, keepAlive = false) {
      let handle: NodeJS.Timeout;
      const arm = (restMs: number): void => {
        const stepMs = Math.min(Math.max(restMs, 0), TIMEOUT_MS_MAX);
        handle = setTimeout(() => (restMs > stepMs ? arm(restMs - stepMs) : callback()), stepMs);
        if (!keepAlive) handle.unref();
      };
      arm(delayMs);
      return { cancel: () => clearTimeout(handle) };
    },
  };
}

/** Settles when the signal is aborted, also if it is already. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** Waits; rejects with the signal's reason when aborted. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = clock.after(delayMs, done, true);
    function done(): void {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }
    function aborted(): void {
      timer.cancel();
      reject(signal?.reason);
    }
    signal?.addEventListener("abort", aborted, { once: true });
  });
}
