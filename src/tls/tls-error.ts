/** What can go wrong with certificates, in words that reach logs and access logs. */

export type TlsErrorCode =
  /** A key or a certificate request could not be made. */
  | "request"
  /** The authority's answer lacks the leaf or the roots. */
  | "incomplete-chain"
  /** PEM or X.509 that can't be read. */
  | "bad-certificate"
  /** The private key is not PKCS#8 or does not belong to the leaf. */
  | "bad-key"
  /** A good certificate for somebody else. */
  | "wrong-identity"
  /** The roots by which a control plane is recognised can't be read. */
  | "bad-roots"
  /** A file of certificate revocation lists can't be read as such. */
  | "bad-revocation-list";

export class TlsError extends Error {
  override readonly name = "TlsError";
  readonly code: TlsErrorCode;

  constructor(code: TlsErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
