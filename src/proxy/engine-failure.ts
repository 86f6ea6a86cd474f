/**
 * What went wrong below, on sockets and in tunnels, as the side of the connection puts it that had to do
 * with it. The words are the original's.
 *
 * @see spec data-path 3.8, 6 and 10.5.
 */
import type { RelayOutcome } from "../engine/engine.ts";
import { type EngineError, systemErrorText } from "../engine/engine-error.ts";
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import { ProxyError } from "./proxy-error.ts";

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

/** The peer answered our CONNECT with something other than 200. */
export function httpStatusError(status: number): ProxyError {
  const reason = STATUS_REASONS[status] ?? "<unknown status code>";
  const code = status === 503 ? "unavailable" : "http-status";
  return new ProxyError(code, `http status: ${status} ${reason}`);
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
