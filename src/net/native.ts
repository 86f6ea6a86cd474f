/**
 * The typed face of the addon in native/: sockets made inside namespaces, and what Node's own API
 * can't say about them. Nothing here decides anything. Every function throws errors in Node's own
 * shape (`code`, `errno`, `syscall`); for EPERM the message names the missing capability.
 */
import { addon } from "./addon.ts";

/** Options set before bind and connect. Anything left out is left as the kernel has it. */
export interface NativeSocketOptions {
  /** Descriptor of a network namespace; left out: the calling thread's own. */
  readonly netnsFd?: number;
  /**
   * What a `packet` or `netlink` socket hears is read with `fs.readSync` (EAGAIN when there is nothing),
   * what a `netlink` socket says to the kernel is written with `fs.writeSync`.
   */
  readonly family: "ipv4" | "ipv6" | "packet" | "netlink";
  readonly type: "stream" | "dgram" | "raw";
  /** For `packet`: an EtherType in host order, such as 0x0800; for `netlink`: its family of questions. */
  readonly protocol?: number;
  /** SO_MARK. */
  readonly mark?: number;
  /**
   * IP_TRANSPARENT; for `ipv6` IPV6_TRANSPARENT too: also binds to addresses that are not this
   * machine's. `try` never throws.
   */
  readonly transparent?: "required" | "try";
  readonly reusePort?: boolean;
  readonly reuseAddress?: boolean;
  /** IP_BIND_ADDRESS_NO_PORT: the port is chosen at connect, not at bind. */
  readonly bindAddressNoPort?: boolean;
  /** `ipv6` only: also take IPv4 (IPV6_V6ONLY off). */
  readonly dualStack?: boolean;
  readonly noDelay?: boolean;
  readonly keepAlive?: boolean;
  readonly keepAliveIdleSeconds?: number;
  readonly keepAliveIntervalSeconds?: number;
  readonly keepAliveProbes?: number;
  /** TCP_USER_TIMEOUT, milliseconds. */
  readonly userTimeoutMs?: number;
  readonly bind?: { readonly ip: string; readonly port: number };
  /** Calls listen() with this accept queue length after bind. */
  readonly listenBacklog?: number;
  /** Of {@link Native.loadQueueMigration}; with `listenBacklog` and `reusePort`. */
  readonly queueMigrationFd?: number;
}

/** IPv4-mapped IPv6 addresses are given as IPv4. */
export interface NativeAddress {
  readonly ip: string;
  readonly port: number;
}

export interface NativePacket {
  readonly data: Uint8Array;
  /** Descriptors that came along, at most two, close-on-exec; the receiver owns them. */
  readonly fds: readonly number[];
  /** The packet or its ancillary data did not fit (MSG_TRUNC, MSG_CTRUNC). */
  readonly truncated: boolean;
}

/** A watch on a descriptor's readability; level triggered. */
export interface NativeWatch {
  /** Stops for good; the descriptor stays open. Idempotent. */
  close(): void;
}

/** All descriptors returned are non-blocking and close-on-exec and belong to the caller. */
export interface Native {
  /** `transparent` tells whether IP_TRANSPARENT is set. */
  socketInNamespace(options: NativeSocketOptions): {
    readonly fd: number;
    readonly transparent: boolean;
  };
  /**
   * Opens a file for reading, whose content depends on the namespace that it is opened in, such as
   * `/proc/thread-self/net/snmp`: it stays with that namespace.
   *
   * @param netnsFd left out: the calling thread's own.
   */
  openInNamespace(path: string, netnsFd?: number): number;
  /**
   * Where it is attached, a closed listener hands what waits in its queue to the others of its port,
   * also to those of another process; without it the kernel resets them. Needs Linux 5.14.
   */
  loadQueueMigration(): number;
  /**
   * From a listener of any kind; options that the kernel hands on are inherited from it.
   *
   * @returns `undefined` when nobody waits.
   */
  accept(listenFd: number): number | undefined;
  /** Begins to connect: {@link peerAddress} knows when it is done, reading when it failed. */
  connect(fd: number, ip: string, port: number): void;
  /** SO_ORIGINAL_DST, then its IPv6 twin; `undefined` when neither is known. */
  originalDestination(fd: number): NativeAddress | undefined;
  localAddress(fd: number): NativeAddress;
  /** ENOTCONN when the peer has reset the connection. */
  peerAddress(fd: number): NativeAddress;
  /** Of getsockopt(), in host order; at most 512 bytes. */
  socketOption(fd: number, level: number, name: number): Uint8Array;
  /** SOCK_SEQPACKET over a Unix path. */
  connectSeqpacket(path: string): number;
  listenSeqpacket(path: string, backlog: number): number;
  /** @returns `undefined` when nothing is there; empty `data` at the end of the conversation. */
  receivePacket(fd: number, bytesMax: number): NativePacket | undefined;
  /**
   * One packet, whole or not at all (EAGAIN when the peer's queue is full).
   *
   * @param passFds at most four; duplicates are sent, the caller keeps its own.
   */
  sendPacket(fd: number, data: Uint8Array, ...passFds: readonly number[]): void;
  /**
   * Calls back on this thread's event loop while the descriptor is readable or failed. Keeps the
   * thread running. One watch per descriptor at a time, closed before the descriptor is.
   */
  watchReadable(fd: number, readable: () => void): NativeWatch;
  /**
   * Gives back what this process holds and does not need: free pieces of the C heap, and the pages of
   * program files. Those come back one by one, from the page cache, when they are touched. Takes some
   * milliseconds, during which other threads may wait for memory.
   */
  releaseResidentMemory(): void;
  /**
   * From now on this process leaves no core behind and lets nobody without privileges look into its
   * memory: private keys are in it. There is no way back.
   *
   * @throws an error of the system.
   */
  forbidMemoryDumps(): void;
}

export const native: Native = addon as Native;
