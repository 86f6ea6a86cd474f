/**
 * System calls as the addon offers them, in the kernel's numbers and bytes, and the errors that come of
 * them. Words for all this are in {@link file://./native.ts}.
 *
 * A negative answer is an errno. Arguments of the wrong kind are a TypeError.
 */
import { constants } from "node:os";
import { getSystemErrorMap } from "node:util";
import { addon } from "./addon.ts";

/** Descriptors that are made are non-blocking and close-on-exec. */
export interface SystemCalls {
  /**
   * @param netnsFd negative: the calling thread's own. A namespace that can't be entered is an errno
   *   and {@link NOT_ENTERED}.
   */
  socketIn(netnsFd: number, family: number, type: number, protocol: number): number;
  /** For reading. @param path ends with a null character. */
  openIn(netnsFd: number, path: Uint8Array): number;
  /** @param fds gets two of them. */
  socketPair(fds: Uint8Array): number;
  /** @param options level, name and value of each; those before one that is refused are set. */
  setOptions(fd: number, options: Uint8Array): number;
  /** @returns how many bytes it has; at most those of `into` are written. */
  option(fd: number, level: number, name: number, into: Uint8Array): number;
  bind(fd: number, sockaddr: Uint8Array): number;
  listen(fd: number, backlog: number): number;
  connect(fd: number, sockaddr: Uint8Array): number;
  accept(fd: number): number;
  /** As `option`. */
  socketName(fd: number, into: Uint8Array): number;
  /** As `option`. */
  peerName(fd: number, into: Uint8Array): number;
  /** @param fds up to four. @returns the length. */
  sendPacket(fd: number, data: Uint8Array, fds: Uint8Array): number;
  /**
   * @param extras gets the flags of the message and two descriptors, -1 for none.
   * @returns the length; of what is longer than `into` the rest is gone.
   */
  receivePacket(fd: number, into: Uint8Array, extras: Uint8Array): number;
  /** At most one for a descriptor. */
  watchReadable(fd: number, readable: () => void): number;
  /** To be called while the descriptor is open. */
  endWatch(fd: number): number;
  loadQueueMigration(): number;
  releaseResidentMemory(): number;
  forbidMemoryDumps(): number;
}

/** Added to the errno of a namespace that can't be entered. */
export const NOT_ENTERED = 4096;

export const systemCalls: SystemCalls = addon as SystemCalls;

/** What a call was about, for its error. */
export interface CallSubject {
  readonly syscall: string;
  readonly detail?: string;
  /** What the process lacks when the kernel refuses for want of rights. */
  readonly capability?: string | undefined;
}

/** @param answer negative. @returns an error in Node's own shape. */
export function systemCallError(
  answer: number,
  { syscall, detail, capability }: CallSubject,
): NodeJS.ErrnoException {
  const unknown = `Unknown system error ${answer}`;
  const [code, words] = getSystemErrorMap().get(answer) ?? [unknown, unknown];
  const about = detail === undefined ? syscall : `${syscall} ${detail}`;
  const isRefused = answer === -constants.errno.EPERM || answer === -constants.errno.EACCES;
  const need = isRefused && capability !== undefined ? ` (needs ${capability})` : "";
  const error = new Error(`${code}: ${words}, ${about}${need}`);
  return Object.assign(error, { errno: answer, code, syscall });
}
