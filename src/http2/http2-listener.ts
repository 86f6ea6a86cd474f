/** What a connection tells its owner. */
import type { Http2Stream } from "./http2-stream.ts";
import type { Http2Request } from "./message-fields.ts";

/** Why a connection ended that should not have. */
export interface Http2Failure {
  /** RFC 9113 section 7. */
  readonly code: number;
  readonly message: string;
  /** `peer`: it said so by GOAWAY. `us`: it broke a rule, and GOAWAY is in the output. */
  readonly by: "peer" | "us";
}

/**
 * What happens on a connection. Called from within its `receive` and may call back; `finished` also
 * from whatever call ended the last stream.
 */
export interface Http2Listener<Owner> {
  /** Server: a well-formed request; answer now or later. Its data may come before the answer. */
  requested(stream: Http2Stream<Owner>, request: Http2Request): void;
  /** Server: a request that breaks the rules, in words; it is reset. */
  malformed(reason: string): void;
  /** Client: the final answer; interim ones are skipped. */
  responded(stream: Http2Stream<Owner>, status: number, headers: Map<string, string>): void;
  /** A slice of payload in the arena, valid during the call; give it to `taken` in time. */
  data(stream: Http2Stream<Owner>, offset: number, length: number): void;
  /** The peer's END_STREAM, after its last data. */
  ended(stream: Http2Stream<Owner>): void;
  /** The stream is gone: the peer reset it, or broke a rule so that we did. */
  reset(stream: Http2Stream<Owner>, code: number, by: "peer" | "us"): void;
  /** More may be sent on this stream than before, as far as the connection allows. */
  windowOpened(stream: Http2Stream<Owner>): void;
  /** More may be sent on all streams than before, or less. */
  windowsOpened(): void;
  /** The peer's first SETTINGS have come. */
  settled(): void;
  /** The answer to a ping of ours. */
  ponged(): void;
  /**
   * The peer's GOAWAY. Own streams above `lastStreamId` have been given to `reset` as REFUSED_STREAM
   * before.
   */
  goneAway(lastStreamId: number, code: number): void;
  /**
   * The last call. `undefined` after an orderly end: all streams have ended. After a failure, those
   * that are still in the connection's table have not, and are not reported one by one.
   */
  finished(failure: Http2Failure | undefined): void;
}
