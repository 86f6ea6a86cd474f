/**
 * Why a connection was refused or failed, in the words of the access log and with the flag of the
 * metrics. The texts are read by people and by tools, so they follow the original to the letter.
 *
 * @see spec data-path 3.8, 6 and 10.5.
 */
import { type EnrolledWorkload, formatEnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { Workload } from "../mesh/workload.ts";
import { errorStack, errorText } from "../runtime/error-text.ts";
import type { Logger } from "../telemetry/logger.ts";

export type ProxyErrorCode =
  /** A listener could not be bound. */
  | "bind"
  /** The destination is one of our own ports. */
  | "self-call"
  /** The mesh does not know our own workload (yet). */
  | "local-workload"
  /** No way leads to the destination. */
  | "no-route"
  /** The CONNECT is malformed or meant for somebody else, or the SOCKS5 request is no good. */
  | "bad-request"
  /** Refused by policy. */
  | "policy-rejection"
  /** Refused by a policy that came while the connection was open. */
  | "policy-change"
  /** The peer's certificate was revoked while the connection was open. */
  | "revoked"
  /** No connection to the next hop, or it broke. */
  | "connect"
  /** The next hop's HBONE port did not answer. */
  | "hbone-timeout"
  /** HTTP/2 failed before the answer. */
  | "http2"
  /** The peer answered something other than 200. */
  | "http-status"
  /** The peer answered 503: it could not reach its application. */
  | "unavailable"
  /** The handshake of a client failed. */
  | "handshake"
  /** No certificate for our own workload. */
  | "identity"
  /** Ended because we are going down. */
  | "drain"
  /** Ended because nothing moved, whether or not one direction was still open. */
  | "idle"
  /** A bug of ours. */
  | "bug";

export class ProxyError extends Error {
  override readonly name = "ProxyError";
  readonly code: ProxyErrorCode;

  constructor(code: ProxyErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

/** Values of the metrics' label `response_flags`; `-` is success. */
export type ResponseFlag =
  | "-"
  | "DENY"
  | "CONNECT"
  | "TLS_FAILURE"
  | "H2_HANDSHAKE_FAILURE"
  | "NETWORK_POLICY"
  | "IDENTITY_ERROR"
  | "CERT_REVOKED"
  /** Ours alone: the original lets connections be silent for ever. */
  | "IDLE_TIMEOUT";

/** @param error `undefined` for a connection that ended well. */
export function responseFlag(error: ProxyError | undefined): ResponseFlag {
  switch (error?.code) {
    case undefined:
    case "drain":
      return "-";
    case "policy-rejection":
    case "policy-change":
      return "DENY";
    case "revoked":
      return "CERT_REVOKED";
    case "idle":
      return "IDLE_TIMEOUT";
    case "hbone-timeout":
      return "NETWORK_POLICY";
    case "http2":
      return "H2_HANDSHAKE_FAILURE";
    case "identity":
      return "IDENTITY_ERROR";
    case "handshake":
      return "TLS_FAILURE";
    case "bind":
    case "self-call":
    case "local-workload":
    case "no-route":
    case "bad-request":
    case "connect":
    case "http-status":
    case "unavailable":
    case "bug":
      return "CONNECT";
  }
}

/** Whether another endpoint of the same service may do better. */
export function isEndpointFailure(error: ProxyError): boolean {
  switch (error.code) {
    case "connect":
    case "hbone-timeout":
    case "http2":
    case "unavailable":
      return true;
    case "bind":
    case "self-call":
    case "local-workload":
    case "no-route":
    case "bad-request":
    case "policy-rejection":
    case "policy-change":
    case "revoked":
    case "http-status":
    case "handshake":
    case "identity":
    case "drain":
    case "idle":
    case "bug":
      return false;
  }
}

/** Of what only a bug throws. @param log told where it was thrown. */
export function bugError(thrown: unknown, log: Logger): ProxyError {
  log
    .target("ztunnel::proxy")
    .write("error", `closed a connection because of a bug: ${errorStack(thrown)}`);
  return new ProxyError("bug", `unexpected: ${errorText(thrown)}`, thrown);
}

export function selfCallError(): ProxyError {
  return new ProxyError("self-call", "attempted recursive call to ourselves");
}

export function localWorkloadError(workload: EnrolledWorkload): ProxyError {
  const name = formatEnrolledWorkload(workload);
  return new ProxyError(
    "local-workload",
    `failed to fetch information about local workload: ${name}`,
  );
}

export function methodError(method: string): ProxyError {
  return new ProxyError("bad-request", `expected method CONNECT, got ${method}`);
}

/** @param reason what of the request breaks the rules of HTTP/2. */
export function malformedRequestError(reason: string): ProxyError {
  return new ProxyError("bad-request", `malformed request: ${reason}`);
}

export function authorityError(authority: string | undefined): ProxyError {
  return new ProxyError("bad-request", `no valid authority pseudo header: ${authority ?? ""}`);
}

export function ipMismatchError(connected: IpAddress, requested: IpAddress): ProxyError {
  return new ProxyError("bad-request", `ip mismatch: ${connected} != ${requested}`);
}

/** @param reason of the verdict, see rbac/evaluate.ts. */
export function policyRejectionError(reason: string): ProxyError {
  return new ProxyError("policy-rejection", `connection closed due to policy rejection: ${reason}`);
}

export function policyChangeError(): ProxyError {
  return new ProxyError("policy-change", "connection closed due to policy change");
}

export function revokedError(): ProxyError {
  return new ProxyError("revoked", "connection closed: peer certificate revoked by CRL");
}

export function drainError(): ProxyError {
  return new ProxyError("drain", "connection closed due to connection drain");
}

/**
 * Says at whom it failed that is not the destination, behind the original's words.
 *
 * @param where `at waypoint`, `at network gateway` or `beyond network gateway`.
 */
export function hopError(error: ProxyError, where: string, hop: Workload): ProxyError {
  const name = `${hop.namespace}/${hop.name}`;
  return new ProxyError(error.code, `${error.message}, ${where} ${name}`, error);
}

/** No certificate could be had for our own workload. */
export function identityError(cause: unknown): ProxyError {
  return new ProxyError("identity", `identity error: ${errorText(cause)}`, cause);
}
