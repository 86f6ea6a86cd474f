/** What the kernel tells about a TCP connection: getsockopt(TCP_INFO). */
import { endianness } from "node:os";
import type { Native } from "./native.ts";

/** Of one TCP connection, up to this socket's peer (tcp(7)). */
export interface TcpInfo {
  /** 1 is established, {@link TCP_CLOSE_WAIT}; others in the kernel's tcp_states.h. */
  readonly state: number;
  /** Under way now. */
  readonly unackedSegments: number;
  readonly receivedBytes: number;
  /** Written, but not under way yet. */
  readonly unsentBytes: number;
}

/** {@link TcpInfo.state}: the peer has ended its direction, we have not. */
export const TCP_CLOSE_WAIT = 8;

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const IS_LITTLE_ENDIAN = endianness() === "LE";

/**
 * @param fd of a TCP socket; {@link Reactor.fdOf} tells that of a connection.
 * @throws an error of the system.
 */
export function readTcpInfo(native: Pick<Native, "socketOption">, fd: number): TcpInfo {
  const info = native.socketOption(fd, IPPROTO_TCP, TCP_INFO);
  const view = new DataView(info.buffer, info.byteOffset, info.length);
  // Offsets of struct tcp_info in linux/tcp.h, which only grows at its end.
  return {
    state: view.getUint8(0),
    unackedSegments: view.getUint32(24, IS_LITTLE_ENDIAN),
    receivedBytes: Number(view.getBigUint64(128, IS_LITTLE_ENDIAN)),
    unsentBytes: view.getUint32(144, IS_LITTLE_ENDIAN),
  };
}
