/** Where a redirected connection was going, for peers of the daemon that are written by hand. */
import type { SocketAddress } from "../../src/mesh/socket-address.ts";
import type { Native } from "../../src/net/native.ts";
import { decodeSockaddr } from "../../src/net/sockaddr.ts";

/** SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST. */
const ORIGINAL_DESTINATION = 80;
const SOL_IP = 0;
const SOL_IPV6 = 41;

/** @returns `undefined` when nobody knows. */
export function originalDestination(
  native: Pick<Native, "socketOption">,
  fd: number,
): SocketAddress | undefined {
  for (const level of [SOL_IP, SOL_IPV6]) {
    try {
      return decodeSockaddr(native.socketOption(fd, level, ORIGINAL_DESTINATION));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EBADF") throw error;
    }
  }
  return undefined;
}
