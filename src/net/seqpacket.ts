/** Whole packets and the descriptors that ride on them, as ZDS speaks: SOCK_SEQPACKET over a Unix path. */
import { closeSync } from "node:fs";
import { constants } from "node:os";
import { AF_UNIX, encodeUnixSockaddr } from "./sockaddr.ts";
import { systemCallError, systemCalls } from "./system-calls.ts";

export interface NativePacket {
  readonly data: Uint8Array;
  /** Descriptors that came along, at most two, close-on-exec; the receiver owns them. */
  readonly fds: readonly number[];
  /** The packet or its ancillary data did not fit (MSG_TRUNC, MSG_CTRUNC). */
  readonly truncated: boolean;
}

/** As Linux numbers them. */
const SOCK_SEQPACKET = 5;
const MSG_CTRUNC = 0x8;
const MSG_TRUNC = 0x20;

const { EAGAIN, ENAMETOOLONG, ENOENT } = constants.errno;

/** @throws what the system says. */
export function connectSeqpacket(path: string): number {
  return socketAt(path, "connect");
}

/** @throws what the system says. */
export function listenSeqpacket(path: string, backlog: number): number {
  const fd = socketAt(path, "bind");
  const answer = systemCalls.listen(fd, backlog);
  if (answer >= 0) return fd;
  closeSync(fd);
  throw systemCallError(answer, { syscall: "listen" });
}

/** @returns `undefined` when nothing is there; empty `data` at the end of the conversation. */
export function receivePacket(fd: number, bytesMax: number): NativePacket | undefined {
  const data = Buffer.allocUnsafe(bytesMax);
  const extras = new Int32Array(3);
  const length = systemCalls.receivePacket(fd, data, new Uint8Array(extras.buffer));
  if (length === -EAGAIN) return undefined;
  if (length < 0) throw systemCallError(length, { syscall: "recvmsg" });
  const [flags = 0, ...fds] = extras;
  return {
    data: data.subarray(0, length),
    fds: fds.filter((received) => received >= 0),
    truncated: (flags & (MSG_TRUNC | MSG_CTRUNC)) !== 0,
  };
}

/**
 * One packet, whole or not at all (EAGAIN when the peer's queue is full).
 *
 * @param passFds at most four; duplicates are sent, the caller keeps its own.
 */
export function sendPacket(fd: number, data: Uint8Array, ...passFds: readonly number[]): void {
  const fds = new Uint8Array(Int32Array.from(passFds).buffer);
  const answer = systemCalls.sendPacket(fd, data, fds);
  if (answer < 0) throw systemCallError(answer, { syscall: "sendmsg" });
}

/** @param step what is done with the address. */
function socketAt(path: string, step: "connect" | "bind"): number {
  const sockaddr = encodeUnixSockaddr(path);
  if (sockaddr === undefined) {
    const errno = path === "" ? ENOENT : ENAMETOOLONG;
    throw systemCallError(-errno, { syscall: step, detail: path });
  }
  const fd = systemCalls.socketIn(-1, AF_UNIX, SOCK_SEQPACKET, 0);
  const answer = fd < 0 ? fd : systemCalls[step](fd, sockaddr);
  if (answer >= 0) return fd;
  if (fd >= 0) closeSync(fd);
  throw systemCallError(answer, { syscall: step, detail: path });
}
