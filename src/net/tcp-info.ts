/** What the kernel knows about a TCP connection: getsockopt(TCP_INFO). */
import { endianness } from "node:os";
import type { Native } from "./native.ts";

/**
 * What the kernel knows about one TCP connection, up to this socket's peer (tcp(7)). Older
 * kernels leave at 0 what they do not count.
 */
export interface TcpInfo {
  /** 1 is established, {@link TCP_CLOSE_WAIT}; others in the kernel's tcp_states.h. */
  readonly state: number;
  /** Smoothed; 0 before the first acknowledgement (RFC 6298). */
  readonly roundTripUs: number;
  readonly roundTripVariationUs: number;
  /** The shortest of the last minutes. */
  readonly roundTripMinUs: number;
  /** Congestion window: how many segments may be under way. */
  readonly windowSegments: number;
  /** Payload of a full segment. */
  readonly segmentBytes: number;
  /** Under way now. */
  readonly unackedSegments: number;
  /** Of those under way, taken for lost. */
  readonly lostSegments: number;
  /** Since the connection began, also those sent again for nothing. */
  readonly retransmittedSegments: number;
  readonly ackedBytes: number;
  readonly receivedBytes: number;
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
  const number = (offset: number): number =>
    offset + 4 > info.length ? 0 : view.getUint32(offset, IS_LITTLE_ENDIAN);
  const longNumber = (offset: number): number =>
    offset + 8 > info.length ? 0 : Number(view.getBigUint64(offset, IS_LITTLE_ENDIAN));
  return {
    state: info[0] ?? 0,
    roundTripUs: number(68),
    roundTripVariationUs: number(72),
    roundTripMinUs: number(148),
    windowSegments: number(80),
    segmentBytes: number(16),
    unackedSegments: number(24),
    lostSegments: number(32),
    retransmittedSegments: number(100),
    ackedBytes: longNumber(120),
    receivedBytes: longNumber(128),
  };
}
