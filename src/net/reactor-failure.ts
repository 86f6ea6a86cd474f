/** Why a connection of the reactor failed: the numbers of an ERROR event in words. */
import { getSystemErrorName } from "node:util";
import { addon } from "./addon.ts";

/** `reason` is in OpenSSL's words. */
export type ReactorFailure =
  | { readonly kind: "system" /** The name. */; readonly errno: string }
  /** The peer refused us; the number of its alert (RFC 8446 section 6). */
  | { readonly kind: "alert"; readonly alert: number; readonly reason: string }
  /** We don't trust the peer; `verifyCode` is OpenSSL's X509_V_ERR number. */
  | { readonly kind: "untrusted"; readonly verifyCode: number; readonly reason: string }
  /** What the peer sent is no TLS that we accept. */
  | { readonly kind: "protocol"; readonly reason: string };

const { tlsText } = addon as {
  /** @param number one of OpenSSL's errors; below 0 the X509_V_ERR number `-1 - number`. */
  tlsText(number: number): string;
};

/** A number of OpenSSL's: the library above, its reason below. */
const REASON_BITS = 23;
const REASON_MASK = 0x7f_ffff;
const SSL_LIBRARY = 20;

/** SSL_R_CERTIFICATE_VERIFY_FAILED. */
const VERIFY_FAILED = 134;

/** The alert of a peer is one reason of many (SSL_AD_REASON_OFFSET). */
const ALERT_OFFSET = 1000;
const ALERT_MAX = 255;

/**
 * @param a an errno; below 0, OpenSSL failed, and -1 - `a` is what it thinks of the peer's chain.
 * @param b then OpenSSL's number of the error.
 */
export function failureOf(a: number, b: number): ReactorFailure {
  if (a >= 0) return { kind: "system", errno: getSystemErrorName(-a) };
  const error = b >>> 0;
  const reason = tlsText(error);
  const isTls = error >>> REASON_BITS === SSL_LIBRARY;
  const alert = (error & REASON_MASK) - ALERT_OFFSET;
  if (isTls && alert > 0 && alert <= ALERT_MAX) return { kind: "alert", alert, reason };
  if (isTls && (error & REASON_MASK) === VERIFY_FAILED) {
    return { kind: "untrusted", verifyCode: -1 - a, reason: `${reason}: ${tlsText(a)}` };
  }
  return { kind: "protocol", reason };
}
