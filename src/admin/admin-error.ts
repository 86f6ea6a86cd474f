/** `bind`: a port can't be listened on. `question`: what is asked makes no sense. */
export type AdminErrorCode = "bind" | "question";

export class AdminError extends Error {
  override readonly name = "AdminError";
  readonly code: AdminErrorCode;

  constructor(code: AdminErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
