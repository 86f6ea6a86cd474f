/** Why a call to the control plane can't even be tried. */
export type LineErrorCode =
  /** The token that pays for it is missing or empty. */
  "token";

export class LineError extends Error {
  override readonly name = "LineError";
  readonly code: LineErrorCode;

  constructor(code: LineErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
