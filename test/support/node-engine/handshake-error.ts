/** Node's words for a failed TLS handshake, as the engines tell it. */
import { type EngineError, errnoOf } from "../../../src/engine/engine-error.ts";
import { leftInHandshake, tlsFailure } from "../../../src/engine/handshake-error.ts";
import type { ReactorFailure } from "../../../src/net/reactor-failure.ts";

/** Node's names of OpenSSL's X509_V_ERR numbers. */
const VERIFY_CODES: Readonly<Record<string, number>> = {
  UNABLE_TO_GET_ISSUER_CERT: 2,
  CERT_SIGNATURE_FAILURE: 7,
  CERT_NOT_YET_VALID: 9,
  CERT_HAS_EXPIRED: 10,
  DEPTH_ZERO_SELF_SIGNED_CERT: 18,
  SELF_SIGNED_CERT_IN_CHAIN: 19,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 20,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 21,
  CERT_REVOKED: 23,
  INVALID_PURPOSE: 26,
};

const UNSPECIFIED = 1;

/**
 * A peer that failed in a handshake, seen from our role.
 *
 * @param refusal Node's word for a chain that its server does not trust, which it keeps apart.
 */
export function handshakeError(
  error: Error,
  role: "client" | "server",
  refusal?: string,
): EngineError {
  // A server says this too of a client that it refused itself.
  if (refusal === undefined && isEndOfStream(error)) return leftInHandshake(role);
  return tlsFailure(failureOf(error, refusal), role);
}

function failureOf(error: Error, refusal: string | undefined): ReactorFailure {
  const reason = refusal ?? errnoOf(error) ?? "";
  const verifyCode = VERIFY_CODES[reason];
  if (verifyCode !== undefined || refusal !== undefined) {
    return { kind: "untrusted", verifyCode: verifyCode ?? UNSPECIFIED, reason };
  }
  const alert = /SSL alert number (\d+)/.exec(error.message)?.[1];
  if (alert !== undefined) return { kind: "alert", alert: Number(alert), reason };
  if ("reason" in error && typeof error.reason === "string") {
    return { kind: "protocol", reason: error.reason };
  }
  return { kind: "system", errno: errnoOf(error) ?? error.message };
}

/** Node says this when the connection ended without a reset. */
function isEndOfStream(error: Error): boolean {
  return errnoOf(error) === "ECONNRESET" && !("syscall" in error);
}
