/**
 * Why a connection was refused or failed, in the words of the access log and with the flag of the
 * metrics. The texts are read by people and by tools, so they follow the original to the letter.
 *
 * @see spec data-path 3.8, 6 and 10.5.
 */
import type { RelayOutcome } from "../engine/engine.ts";
import { type EngineError, systemErrorText } from "../engine/engine-error.ts";
import { type EnrolledWorkload, formatEnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import { formatHostPort, formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
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

/** The text is the one that the node agent gets in its nack. */
export function bindError(address: SocketAddress, error: EngineError): ProxyError {
  const known = /^(.*) \(os error (\d+)\)$/.exec(systemErrorText(error.errno ?? ""));
  const detail =
    known === null
      ? error.message
      : `Os { code: ${known[2]}, kind: ${IO_ERROR_KINDS[error.errno ?? ""] ?? "Uncategorized"}, message: "${known[1]}" }`;
  return new ProxyError("bind", `Bind(${formatSocketAddress(address)}, ${detail})`, error);
}

/** Of the daemon's own namespace: nobody is asked again, the text is for whoever starts the daemon. */
export function ownBindError(address: SocketAddress, error: EngineError): ProxyError {
  const text = `failed to bind to address ${formatSocketAddress(address)}: ${error.message}`;
  return new ProxyError("bind", text, error);
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

export function noHealthyUpstreamError(target: SocketAddress): ProxyError {
  return new ProxyError("no-route", `no healthy upstream: ${formatSocketAddress(target)}`);
}

/** The workload has no address that can be reached from here. */
export function unroutableError(workload: Workload): ProxyError {
  return new ProxyError(
    "no-route",
    `no valid routing destination for workload: ${workload.uid || workload.name}`,
  );
}

/** Looking up the host name, which is all that is known of where the workload is, failed. */
export function unknownHostError(workload: Workload): ProxyError {
  return new ProxyError(
    "no-route",
    `no ip addresses were resolved for workload: ${workload.uid || workload.name}`,
  );
}

/** The workload's host name exists, but not with an address. */
export function emptyHostnameError(workload: Workload): ProxyError {
  return new ProxyError(
    "no-route",
    `ip addresses were resolved for workload ${workload.uid || workload.name}, but valid dns response had no A/AAAA records`,
  );
}

/** A workload of another network can only be reached as part of a service. */
export function noServiceError(target: SocketAddress): ProxyError {
  return new ProxyError(
    "no-route",
    `no service for target address: ${formatSocketAddress(target)}`,
  );
}

/** @param name host name or address of the waypoint. */
export function unknownWaypointError(name: string): ProxyError {
  return new ProxyError("no-route", `unknown waypoint: waypoint ${name} not found`);
}

/** @param name host name or address of the gateway. */
export function unknownGatewayError(name: string): ProxyError {
  return new ProxyError("no-route", `unknown network gateway: network gateway ${name} not found`);
}

export function unknownHostnameError(hostname: string): ProxyError {
  return new ProxyError("no-route", `no service or workload for hostname: ${hostname}`);
}

export function unknownPortError(hostname: string, port: number): ProxyError {
  const service = formatHostPort(hostname, port);
  return new ProxyError("no-route", `requested service ${service} found, but cannot resolve port`);
}

/** An application that is told whom the client calls can't be told an address. */
export function noServiceAddressError(hostname: string): ProxyError {
  return new ProxyError("no-route", `requested service ${hostname} found, but has no IP addresses`);
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

/** The outbound side found nobody, or a peer it may not talk to. */
export function outboundConnectError(error: EngineError, hbone: boolean): ProxyError {
  switch (error.code) {
    case "connect-timeout":
      return hbone
        ? new ProxyError(
            "hbone-timeout",
            `connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: ${DEADLINE}`,
            error,
          )
        : new ProxyError("connect", `io error: ${DEADLINE}`, error);
    case "peer-identity":
      return new ProxyError(
        "connect",
        `io error: invalid peer certificate: Other(OtherError(${error.message}))`,
        error,
      );
    case "stream-reset":
    case "tunnel-closed":
    case "protocol":
    case "ping-timeout":
      return new ProxyError("http2", `h2 failed: ${error.message}`, error);
    case "system":
    case "handshake":
    case "disconnected":
    case "half-closed":
    case "idle":
      return new ProxyError("connect", `io error: ${ioErrorText(error)}`, error);
  }
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

/** The peer answered our CONNECT with something other than 200. */
export function httpStatusError(status: number): ProxyError {
  const reason = STATUS_REASONS[status] ?? "<unknown status code>";
  const code = status === 503 ? "unavailable" : "http-status";
  return new ProxyError(code, `http status: ${status} ${reason}`);
}

/** No certificate could be had for our own workload. */
export function identityError(cause: Error): ProxyError {
  return new ProxyError("identity", `identity error: ${cause.message}`, cause);
}

/** The inbound side could not reach the application. */
export function applicationConnectError(error: EngineError): ProxyError {
  return new ProxyError("connect", `connection failed: ${ioErrorText(error)}`, error);
}

/** A client failed the handshake on 15008. */
export function handshakeError(error: EngineError): ProxyError {
  return new ProxyError("handshake", `tls handshake error: ${error.message}`, error);
}

/** @returns `undefined` when the relay ended well, a peer's reset included. */
export function relayFailure(outcome: RelayOutcome): ProxyError | undefined {
  const { error } = outcome;
  if (error === undefined) return undefined;
  if (error.code === "half-closed" || error.code === "idle") {
    return new ProxyError("idle", error.message, error);
  }
  const [half, gone] = outcome.sent === "error" ? ["send", "destination"] : ["receive", "client"];
  const text =
    error.code === "disconnected"
      ? `${gone} disconnected before all data was written`
      : `io error: ${ioErrorText(error)}`;
  return new ProxyError("connect", `${half}: ${text}`, error);
}

const DEADLINE = "deadline has elapsed";

function ioErrorText(error: EngineError): string {
  if (error.code === "connect-timeout") return DEADLINE;
  return error.errno === undefined ? error.message : systemErrorText(error.errno);
}

/** Kinds of the original's I/O errors, as its debug output names them. */
const IO_ERROR_KINDS: Readonly<Record<string, string>> = {
  EADDRINUSE: "AddrInUse",
  EADDRNOTAVAIL: "AddrNotAvailable",
  EACCES: "PermissionDenied",
  EPERM: "PermissionDenied",
};

/** RFC 9110 section 15: what a peer or a gateway before it may answer a CONNECT. */
const STATUS_REASONS: Readonly<Record<number, string>> = {
  201: "Created",
  202: "Accepted",
  204: "No Content",
  301: "Moved Permanently",
  302: "Found",
  307: "Temporary Redirect",
  308: "Permanent Redirect",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  407: "Proxy Authentication Required",
  408: "Request Timeout",
  413: "Payload Too Large",
  421: "Misdirected Request",
  426: "Upgrade Required",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
};
