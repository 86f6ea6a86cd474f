/** What is wrong with the machine's network or our rights on it, besides errors of system calls. */

export type NetErrorCode =
  /** The process lacks a capability that its mode needs; the message names it. */
  | "missing-capability"
  /** The path or descriptor is no network namespace. */
  | "not-a-netns"
  /** The kernel does not tell which sockets there are; the message says why. */
  | "socket-diag";

export class NetError extends Error {
  override readonly name = "NetError";
  readonly code: NetErrorCode;

  constructor(code: NetErrorCode, message: string, more: { cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
  }
}
