/**
 * A peer that broke the rules of its connection; the only thing that readers of this room throw.
 * What concerns one stream alone is answered there and is no exception.
 */
import { ErrorCode } from "./error-code.ts";

export type Http2ErrorCode =
  /** A frame where it must not be, or a value that must not be. */
  | "protocol"
  /** A frame of a length that its type does not allow, or above our limit. */
  | "frame-size"
  /** More bytes than our window allowed, or a window beyond 2^31-1. */
  | "flow-control"
  /** A frame for a stream that is long closed. */
  | "stream-closed"
  /** A header block that can't be decoded; the table is lost with it. */
  | "compression"
  /** More of something than a peer in good faith sends. */
  | "flood";

const NUMBERS: Readonly<Record<Http2ErrorCode, number>> = {
  protocol: ErrorCode.protocolError,
  "frame-size": ErrorCode.frameSizeError,
  "flow-control": ErrorCode.flowControlError,
  "stream-closed": ErrorCode.streamClosed,
  compression: ErrorCode.compressionError,
  flood: ErrorCode.enhanceYourCalm,
};

export class Http2Error extends Error {
  override readonly name = "Http2Error";
  readonly code: Http2ErrorCode;

  /** What GOAWAY says. RFC 9113 section 7. */
  get number(): number {
    return NUMBERS[this.code];
  }

  constructor(code: Http2ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
