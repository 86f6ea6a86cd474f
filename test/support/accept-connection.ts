/** Accepting with both addresses, for peers of the daemon that are written by hand. */
import { closeSync } from "node:fs";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";
import { native } from "../../src/net/native.ts";

export interface AcceptedConnection {
  /** The caller's. */
  readonly fd: number;
  readonly peer: SocketAddress;
  readonly local: SocketAddress;
}

/** @returns `undefined` when no connection waits; one that was reset while it waited is none. */
export function acceptConnection(listenFd: number): AcceptedConnection | undefined {
  for (;;) {
    const fd = native.accept(listenFd);
    if (fd === undefined) return undefined;
    try {
      return { fd, peer: native.peerAddress(fd), local: native.localAddress(fd) };
    } catch (error) {
      closeSync(fd);
      if ((error as NodeJS.ErrnoException).code !== "ENOTCONN") throw error;
    }
  }
}
