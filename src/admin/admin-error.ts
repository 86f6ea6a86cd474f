/** `bind`: a port can't be listened on. */
export type AdminErrorCode = "bind";

export class AdminError extends Error {
  override readonly name = "AdminError";
  readonly code: AdminErrorCode;

  constructor(code: AdminErrorCode, message: string, options: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
