/**
 * TLS as the mesh speaks it (spec data-path 3.1, 4.1), in the reactor: built once per certificate,
 * because parsing keys and roots costs half a handshake.
 */
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import { makeTlsContext, type TlsContext } from "../net/tls-context.ts";
import type { TlsOptions } from "./engine.ts";

/** In the order of the original's hello; only the first comes with a key share. */
const GROUPS = "X25519:P-256:P-384:?X25519MLKEM768";

/** `COMPLIANCE_POLICY=pqc`. */
const POST_QUANTUM_GROUPS = "X25519MLKEM768";

export class BatchContexts {
  /** By certificate, then by what else a context depends on; goes with the certificate. */
  readonly #known = new WeakMap<WorkloadCertificate, Map<string, TlsContext>>();

  /** For both roles. @throws Error of OpenSSL when the certificate can't be used. */
  context(tls: TlsOptions): TlsContext {
    const { certificate } = tls;
    let variants = this.#known.get(certificate);
    if (variants === undefined) {
      variants = new Map();
      this.#known.set(certificate, variants);
    }
    const variant = `${tls.tls12} ${tls.postQuantumOnly}`;
    const known = variants.get(variant);
    if (known !== undefined) return known;
    const made = makeTlsContext({
      chainPem: certificate.chainPem.join("\n"),
      keyPem: certificate.privateKeyPem,
      rootsPem: certificate.rootsPem.join("\n"),
      tls12: tls.tls12,
      groups: tls.postQuantumOnly ? POST_QUANTUM_GROUPS : GROUPS,
    });
    variants.set(variant, made);
    return made;
  }
}
