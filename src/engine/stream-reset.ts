/** Reset codes of HTTP/2: in words, and what they mean for the other side of a relay. */
import { ErrorCode } from "../http2/error-code.ts";
import { EngineError } from "./engine-error.ts";
import type { SideFailure } from "./side-failure.ts";

/** Codes of RST_STREAM with which a peer leaves without complaint. @see spec data-path 6 */
const ORDERLY_CODES: ReadonlySet<number> = new Set([
  ErrorCode.noError,
  ErrorCode.cancel,
  ErrorCode.streamClosed,
]);

/** RFC 9113 section 7 in the words that operators of the mesh know from the original's logs. */
const REASONS: Readonly<Record<number, string>> = {
  0: "not a result of an error",
  1: "unspecific protocol error detected",
  2: "unexpected internal error encountered",
  3: "flow-control protocol violated",
  4: "settings ACK not received in timely manner",
  5: "received frame when stream half-closed",
  6: "frame with invalid size",
  7: "refused stream before processing any application logic",
  8: "stream no longer needed",
  9: "unable to maintain the header compression context",
  10: "connection established in response to a CONNECT request was reset or abnormally closed",
  11: "detected excessive load generating behavior",
  12: "security properties do not meet minimum requirements",
  13: "endpoint requires HTTP/1.1",
};

/** The peer reset a stream with this code. */
export function streamReset(http2Code: number): EngineError {
  const reason = REASONS[http2Code] ?? "unknown reason";
  return new EngineError("stream-reset", `stream error received: ${reason}`, { http2Code });
}

/** An application's reset (CONNECT_ERROR) stays one, and so does whatever else is no orderly end. */
export function resetFailure(code: number): SideFailure | undefined {
  if (ORDERLY_CODES.has(code)) return undefined;
  return { kind: "reset", error: code === ErrorCode.connectError ? undefined : streamReset(code) };
}
