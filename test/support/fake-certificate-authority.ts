/**
 * Fetches certificates out of thin air, in fake time: they have an identity and a validity, and
 * text where real ones have PEM. See test-ca.ts for real ones.
 */
import { formatSpiffeId, type Identity } from "../../src/mesh/identity.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import { type Clock, sleep } from "../../src/runtime/clock.ts";

export class FakeCertificateAuthority {
  /** How long an answer takes. */
  latencyMs = 0;
  /** How long certificates are valid, from the moment they are asked for. */
  lifetimeMs: number = 24 * 3_600_000;
  /** How long before that moment they begin to be valid. */
  datedBackMs = 0;
  /** What every fetch fails with, while set. */
  failure: Error | undefined = undefined;
  /** Service accounts in the order in which they were asked for. */
  readonly requested: string[] = [];
  /** The most fetches that were on their way at once. */
  inFlightPeak = 0;
  readonly #clock: Clock;
  #inFlight = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  readonly fetch: (identity: Identity) => Promise<WorkloadCertificate> = async (identity) => {
    const serial = this.requested.push(identity.serviceAccount);
    this.inFlightPeak = Math.max(this.inFlightPeak, ++this.#inFlight);
    const askedAt = this.#clock.now();
    try {
      if (this.latencyMs > 0) await sleep(this.#clock, this.latencyMs);
      if (this.failure !== undefined) throw this.failure;
    } finally {
      this.#inFlight--;
    }
    return {
      identity,
      chainPem: [`certificate ${serial} for ${formatSpiffeId(identity)}`],
      privateKeyPem: `key ${serial}`,
      rootsPem: ["root"],
      notBeforeAt: askedAt - this.datedBackMs,
      notAfterAt: askedAt + this.lifetimeMs,
    };
  };
}
