/** Why there is no certificate for an identity. */

export type IdentityErrorCode =
  /** The authority refused; the message holds the gRPC status, here and in the next. */
  | "signing"
  /** The authority could not be reached, or did not answer. */
  | "unreachable"
  /** Nobody needs the identity any longer. */
  | "forgotten"
  /** What the authority sent is not valid any more, by our clock. */
  | "expired"
  /** None came in the time that a connection waits. */
  | "timeout"
  /** The cache is closed. */
  | "closed";

export class IdentityError extends Error {
  override readonly name = "IdentityError";
  readonly code: IdentityErrorCode;

  constructor(code: IdentityErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
