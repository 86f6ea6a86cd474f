/**
 * Notices that our clock and the authority's differ, from the certificates that it has just made.
 *
 * An authority dates a certificate at most from its own present; istiod, and ours, from two minutes
 * before it. So one that begins in our future is proof that our clock is behind, and one that begins
 * much longer ago is a sign that it is ahead.
 *
 * @see spec control-plane 5.4.
 */
import { formatSpiffeId } from "../mesh/identity.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Logger } from "../telemetry/logger.ts";

/** As istiod. */
const BACKDATED_MS = 120_000;
/** Clocks are never quite equal, and the answer takes its time. */
const TOLERATED_MS = 60_000;

export class ClockSkew {
  readonly #clock: Clock;
  readonly #log: Logger;
  #skewMs = 0;
  /** What the last line said; 0 after a certificate without skew. */
  #toldMs = 0;

  constructor(deps: { readonly clock: Clock; readonly log: Logger }) {
    this.#clock = deps.clock;
    this.#log = deps.log;
  }

  /** By how much our clock is ahead, negative when behind; 0 within a minute. Seconds. */
  get seconds(): number {
    return this.#skewMs / 1000;
  }

  /** Warns when the clocks begin to differ, or differ by another minute. @param certificate a fresh one. */
  observe(certificate: Pick<WorkloadCertificate, "identity" | "notBeforeAt">): void {
    const ageMs = this.#clock.now() - certificate.notBeforeAt;
    this.#skewMs = estimateSkew(ageMs);
    const isNews = this.#toldMs === 0 || Math.abs(this.#skewMs - this.#toldMs) >= TOLERATED_MS;
    if (this.#skewMs !== 0 && !isNews) return;
    this.#toldMs = this.#skewMs;
    if (this.#skewMs === 0) return;
    const id = formatSpiffeId(certificate.identity);
    this.#log.write("warn", `clock skew: ${describeSkew(ageMs, this.#skewMs)}`, [
      ["id", { bare: id }],
    ]);
  }
}

function estimateSkew(ageMs: number): number {
  if (ageMs < 0) return ageMs;
  const aheadMs = ageMs - BACKDATED_MS;
  return aheadMs > TOLERATED_MS ? aheadMs : 0;
}

function describeSkew(ageMs: number, skewMs: number): string {
  const seconds = (ms: number): string => `${Math.round(Math.abs(ms) / 1000)}s`;
  return skewMs < 0
    ? `a fresh certificate becomes valid in ${seconds(ageMs)} only, so this node's clock is behind ` +
        `the certificate authority's by at least that`
    : `a fresh certificate is valid since ${seconds(ageMs)} ago, so this node's clock is ahead of ` +
        `the certificate authority's by about ${seconds(skewMs)}, unless the authority backdates more than istiod`;
}
