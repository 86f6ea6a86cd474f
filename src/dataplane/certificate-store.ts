/**
 * The certificates that one data thread uses: asked for once, kept until renewed, forgotten or expired.
 * A failed request is not kept, so the next connection asks again.
 */
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Clock } from "../runtime/clock.ts";
import type { CertificateSource } from "./data-plane.ts";

interface Entry {
  readonly asked: Promise<WorkloadCertificate>;
  /** Of what came, milliseconds since the epoch; without end before. */
  notAfterAt: number;
}

export class CertificateStore {
  readonly #ask: CertificateSource;
  readonly #clock: Clock;
  readonly #known = new Map<string, Entry>();

  constructor(ask: CertificateSource, clock: Clock) {
    this.#ask = ask;
    this.#clock = clock;
  }

  certificate(identity: Identity): Promise<WorkloadCertificate> {
    const key = formatSpiffeId(identity);
    const known = this.#known.get(key);
    if (known !== undefined && known.notAfterAt > this.#clock.now()) return known.asked;
    const asked = this.#ask(identity);
    const entry: Entry = { asked, notAfterAt: Number.POSITIVE_INFINITY };
    this.#known.set(key, entry);
    asked.then(
      ({ notAfterAt }) => {
        entry.notAfterAt = notAfterAt;
      },
      () => {
        if (this.#known.get(key) === entry) this.#known.delete(key);
      },
    );
    return asked;
  }

  renewed(certificate: WorkloadCertificate): void {
    const { identity, notAfterAt } = certificate;
    this.#known.set(formatSpiffeId(identity), { asked: Promise.resolve(certificate), notAfterAt });
  }

  forgotten(identity: Identity): void {
    this.#known.delete(formatSpiffeId(identity));
  }
}
