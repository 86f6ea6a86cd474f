/** What can go wrong with a connection, in words that the access log prints. */

export type EngineErrorCode =
  /** A system call failed; `errno` has its name. */
  | "system"
  /** The connect did not finish in time. */
  | "connect-timeout"
  /** TLS handshake: alert, bad bytes, no or untrusted certificate; also its time-out. */
  | "handshake"
  /** The chain is trusted but not the identity; the message is the reason of `VerifyPeer`. */
  | "peer-identity"
  /** The peer reset a stream; `http2Code` tells why. */
  | "stream-reset"
  /** The tunnel that carried the stream is gone. */
  | "tunnel-closed"
  /** The other side left before all bytes were written. */
  | "disconnected"
  /** One direction had ended, and nothing moved in the other for too long. */
  | "half-closed"
  /** Nothing moved in either direction for too long. */
  | "idle"
  /** HTTP/2 rules broken. */
  | "protocol"
  /** The tunnel's peer does not answer pings any more. */
  | "ping-timeout";

export class EngineError extends Error {
  override readonly name = "EngineError";
  readonly code: EngineErrorCode;
  /** `ECONNREFUSED` and the like, when the kernel said so. */
  readonly errno: string | undefined;
  /** RFC 9113 section 7, for `stream-reset`. */
  readonly http2Code: number | undefined;

  constructor(
    code: EngineErrorCode,
    message: string,
    more: { errno?: string; http2Code?: number; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
    this.errno = more.errno;
    this.http2Code = more.http2Code;
  }
}

/**
 * The text of a failed system call as the field knows it:
 * `Connection refused (os error 111)`.
 */
export function systemErrorText(errno: string): string {
  const known = SYSTEM_ERRORS[errno];
  return known === undefined ? errno : `${known[1]} (os error ${known[0]})`;
}

/** The errno's name of an error in Node's shape; `undefined` for any other. */
export function errnoOf(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** A failed system call, from an error in Node's shape. */
export function systemError(error: unknown): EngineError {
  const errno = errnoOf(error);
  if (errno === undefined) return new EngineError("system", String(error), { cause: error });
  return new EngineError("system", systemErrorText(errno), { errno, cause: error });
}

/** Linux errno numbers and strerror texts of what sockets answer. */
const SYSTEM_ERRORS: Readonly<Record<string, readonly [number, string]>> = {
  EPERM: [1, "Operation not permitted"],
  EBADF: [9, "Bad file descriptor"],
  EACCES: [13, "Permission denied"],
  EINVAL: [22, "Invalid argument"],
  ENFILE: [23, "Too many open files in system"],
  EMFILE: [24, "Too many open files"],
  EPIPE: [32, "Broken pipe"],
  EAFNOSUPPORT: [97, "Address family not supported by protocol"],
  EADDRINUSE: [98, "Address already in use"],
  EADDRNOTAVAIL: [99, "Cannot assign requested address"],
  ENETUNREACH: [101, "Network is unreachable"],
  ECONNABORTED: [103, "Software caused connection abort"],
  ECONNRESET: [104, "Connection reset by peer"],
  ENOTCONN: [107, "Transport endpoint is not connected"],
  ETIMEDOUT: [110, "Connection timed out"],
  ECONNREFUSED: [111, "Connection refused"],
  EHOSTUNREACH: [113, "No route to host"],
};
