/** The port to whoever signs our certificates. */
import type { Identity } from "../mesh/identity.ts";

export interface CertificateAuthority {
  /**
   * Has a certificate signed for the identity.
   *
   * @param csrPem see createCertificateRequest in tls/csr.ts.
   * @returns PEM: leaf, intermediates, and at the end one element with all roots.
   * @throws IdentityError `signing` or `unreachable`; LineError `token`; TlsError `bad-roots`.
   */
  sign(identity: Identity, csrPem: string): Promise<readonly string[]>;
}
