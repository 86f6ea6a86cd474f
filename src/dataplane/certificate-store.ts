/**
 * The certificates that one data thread uses: asked for once, kept until renewed or forgotten.
 * A failed request is not kept, so the next connection asks again.
 */
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { CertificateSource } from "./data-plane.ts";

export class CertificateStore {
  readonly #ask: CertificateSource;
  readonly #known = new Map<string, Promise<WorkloadCertificate>>();

  constructor(ask: CertificateSource) {
    this.#ask = ask;
  }

  certificate(identity: Identity): Promise<WorkloadCertificate> {
    const key = formatSpiffeId(identity);
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const asked = this.#ask(identity);
    this.#known.set(key, asked);
    asked.catch(() => {
      if (this.#known.get(key) === asked) this.#known.delete(key);
    });
    return asked;
  }

  renewed(certificate: WorkloadCertificate): void {
    this.#known.set(formatSpiffeId(certificate.identity), Promise.resolve(certificate));
  }

  forgotten(identity: Identity): void {
    this.#known.delete(formatSpiffeId(identity));
  }
}
