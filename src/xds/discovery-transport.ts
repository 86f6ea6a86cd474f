/** What the discovery client needs of a connection; see grpc-transport.ts for the one to istiod. */
import type { DeltaDiscoveryRequest, DeltaResponse } from "../wire/delta-discovery.ts";

export interface DiscoveryTransport {
  /**
   * A new connection and a stream on it; nothing is shared with earlier ones.
   *
   * @throws DiscoveryError `connection` or `setup`.
   */
  open(): Promise<DiscoveryStream>;
}

export interface DiscoveryStream {
  /** May be called before the server has said anything: istiod says nothing until it is asked. */
  send(request: DeltaDiscoveryRequest): void;
  /**
   * The next message; the one after it is not taken from the network until it is asked for. One
   * caller at a time.
   *
   * @returns `undefined` when the server has ended the stream without an error.
   * @throws DiscoveryError `connection` before the server has begun to answer, `stream` afterwards;
   *   `stream` after {@link close}.
   */
  next(): Promise<ReceivedResponse | undefined>;
  /** Ends stream and connection now. Idempotent. */
  close(): void;
}

export interface ReceivedResponse {
  readonly response: DeltaResponse;
  /** Σ length of the resources' values. */
  readonly byteCount: number;
}

export type DiscoveryErrorCode =
  /** No stream came about: nobody listens, TLS, token, or the server refused it at once. */
  | "connection"
  /** The stream broke off. */
  | "stream"
  /** On our side, before anything was sent: the roots can't be read, say. */
  | "setup";

/** A name of gRPC's status codes in the original's spelling, such as `Unavailable`. */
export type StatusName = string;

export class DiscoveryError extends Error {
  override readonly name = "DiscoveryError";
  readonly code: DiscoveryErrorCode;
  /** Of `connection` and `stream`. */
  readonly status: StatusName;

  constructor(
    code: DiscoveryErrorCode,
    message: string,
    more: { status?: StatusName; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
    this.status = more.status ?? "Unknown";
  }
}
