/** Bytes or text from outside that break the format; the only thing that a decoder throws. */

export type WireErrorCode =
  /** Not the format at all: cut off, overlong, of the wrong type or not UTF-8. */
  | "malformed"
  /** Well formed, but a part that must be there is not. */
  | "incomplete"
  /** Well formed, but with a value that nobody here knows the meaning of. */
  | "unknown";

export class WireError extends Error {
  override readonly name = "WireError";
  readonly code: WireErrorCode;

  constructor(code: WireErrorCode, message: string, more: { cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
  }
}
