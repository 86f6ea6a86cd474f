/**
 * When a certificate is renewed, and when a failed attempt is repeated. Pure: the cache owns the
 * timers.
 *
 * @see spec control-plane 5.5 and 5.6.
 */
import { Backoff } from "../runtime/backoff.ts";
import type { Random } from "../runtime/random.ts";

const MINUTE_MS = 60_000;
/** Share of a certificate's life. */
const RENEWAL_JITTER = 0.05;
const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 150_000;
const RETRY_JITTER = 0.2;
/** So long an identity backs off before its retries come at the flat maximum. */
const BACKING_OFF_MAX_MS = 15 * MINUTE_MS;

/**
 * Half-way through what was left of the certificate's life when it came, give or take a twentieth of
 * it: identities that were fetched together are not renewed together. The original has no such jitter,
 * and counts from the certificate's beginning, which istiod dates back by two minutes: one that lives
 * for two minutes would be due the moment it comes.
 *
 * @param receivedAt milliseconds since the epoch.
 * @returns milliseconds since the epoch; 0, which is at once, when the times make no sense.
 */
export function renewalAt(
  validity: { readonly notBeforeAt: number; readonly notAfterAt: number },
  receivedAt: number,
  random: Random,
): number {
  const { notBeforeAt, notAfterAt } = validity;
  if (!Number.isFinite(notBeforeAt) || !Number.isFinite(notAfterAt)) return 0;
  const beganAt = Math.max(notBeforeAt, receivedAt);
  if (notAfterAt < beganAt) return notAfterAt;
  const share = 0.5 + RENEWAL_JITTER * (2 * random.unit() - 1);
  return beganAt + (notAfterAt - beganAt) * share;
}

/** The retries of one identity from its first failure to its next success. */
export class RetrySchedule {
  readonly #backoff: Backoff;
  readonly #beganAt: number;

  /** @param nowAt milliseconds, monotonic. */
  constructor(random: Random, nowAt: number) {
    this.#beganAt = nowAt;
    this.#backoff = new Backoff(random, {
      firstMs: RETRY_FIRST_MS,
      maxMs: RETRY_MAX_MS,
      jitter: RETRY_JITTER,
    });
  }

  /** The delay before the next attempt, milliseconds. */
  next(nowAt: number): number {
    return nowAt - this.#beganAt > BACKING_OFF_MAX_MS ? RETRY_MAX_MS : this.#backoff.next();
  }
}
