/** By which alert a peer learns why its handshake came to nothing. @see RFC 8446 section 6.2 */
import type { ReactorFailure } from "../net/reactor-failure.ts";

/** Somebody in its chain is revoked. */
export const CERTIFICATE_REVOKED = 44;

/** As the original answers a peer of the wrong identity. */
export const CERTIFICATE_UNKNOWN = 46;

/** As the original answers bytes that are no TLS. */
const DECODE_ERROR = 50;

/** The reasons of OpenSSL for first bytes that are another protocol's. */
const NO_TLS: ReadonlySet<string> = new Set([
  "wrong version number",
  "http request",
  "https proxy request",
]);

/** @returns `undefined` where OpenSSL has said what there is to say. */
export function alertFor(failure: ReactorFailure): number | undefined {
  return failure.kind === "protocol" && NO_TLS.has(failure.reason) ? DECODE_ERROR : undefined;
}
