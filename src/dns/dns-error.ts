/** Why no DNS can be served, or why a resolver gave no answer; the texts are for the log. */
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";

export type DnsErrorCode =
  /** The file that names the resolvers is of no use. */
  | "resolvers"
  /** A resolver did not answer in time. */
  | "timeout"
  /** A resolver could not be reached or broke off; the cause is the system's error. */
  | "unreachable"
  /** More queries are waiting than may. */
  | "busy"
  /** The query is one of our own: the redirect rules do not know our packets. */
  | "loop"
  /** The server is closed. */
  | "closed";

export class DnsError extends Error {
  override readonly name = "DnsError";
  readonly code: DnsErrorCode;

  constructor(code: DnsErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

/** A listener could not be bound; the cause is the system's error. */
export class DnsBindError extends Error {
  override readonly name = "DnsBindError";
  readonly address: SocketAddress;

  constructor(address: SocketAddress, cause: unknown) {
    super(formatSocketAddress(address), { cause });
    this.address = address;
  }
}
