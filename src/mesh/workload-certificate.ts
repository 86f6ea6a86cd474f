/** A certificate that we hold for a local workload, as plain data that crosses threads. */
import type { Identity } from "./identity.ts";

export interface WorkloadCertificate {
  readonly identity: Identity;
  /** Leaf, then intermediates; one PEM block each, no root. */
  readonly chainPem: readonly string[];
  /** PKCS#8 PEM. Never logged, dumped or written. */
  readonly privateKeyPem: string;
  /** The accepted roots, one PEM block each. */
  readonly rootsPem: readonly string[];
  /** Milliseconds since the epoch. */
  readonly notBeforeAt: number;
  /** Milliseconds since the epoch. */
  readonly notAfterAt: number;
}
