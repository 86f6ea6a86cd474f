/**
 * Sockets made inside namespaces, and what Node's own API can't say about them, in words: what the
 * addon's functions of numbers and bytes are put together to. Every function throws errors in Node's own
 * shape (`code`, `errno`, `syscall`); for EPERM the message names the missing capability.
 */
import { closeSync } from "node:fs";
import { constants, endianness } from "node:os";
import type { SocketAddress } from "../mesh/socket-address.ts";
import {
  connectSeqpacket,
  listenSeqpacket,
  type NativePacket,
  receivePacket,
  sendPacket,
} from "./seqpacket.ts";
import { AF_INET, AF_INET6, decodeSockaddr, encodeSockaddr, SOCKADDR_BYTES } from "./sockaddr.ts";
import { attachQueueMigration, PreparedOptions, type SocketOptions } from "./socket-options.ts";
import { type CallSubject, NOT_ENTERED, systemCallError, systemCalls } from "./system-calls.ts";

/** What is made, and what it is bound to. */
export interface SocketPlace {
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
  readonly bind?: { readonly ip: string; readonly port: number };
  /** Calls listen() with this accept queue length after bind. */
  readonly listenBacklog?: number;
  /** Of {@link Native.loadQueueMigration}; with `listenBacklog` and `reusePort`. */
  readonly queueMigrationFd?: number;
}

/** The options are set before bind and connect. */
export interface NativeSocketOptions extends SocketPlace, SocketOptions {}

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
  /** The same for one of many sockets with the same options. */
  preparedSocket(place: SocketPlace, options: PreparedOptions): number;
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
  /** Of Unix stream sockets, connected to each other. */
  socketPair(): readonly [number, number];
  /** IPv4-mapped IPv6 addresses are given as IPv4. */
  localAddress(fd: number): SocketAddress;
  /** As `localAddress`; ENOTCONN when the peer has reset the connection. */
  peerAddress(fd: number): SocketAddress;
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

export const native: Native = {
  socketInNamespace: (options) => makeSocket(options, new PreparedOptions(options)),
  preparedSocket: (place, options) => makeSocket(place, options).fd,
  openInNamespace(path, netnsFd) {
    if (path.includes("\0")) throw new TypeError("path must be a string without null characters");
    const answer = systemCalls.openIn(netnsNumber(netnsFd), Buffer.from(`${path}\0`));
    return opened(answer, netnsFd, { syscall: "open", detail: path });
  },
  loadQueueMigration() {
    const answer = systemCalls.loadQueueMigration();
    return opened(answer, undefined, { syscall: "bpf", capability: "CAP_BPF or CAP_SYS_ADMIN" });
  },
  accept(listenFd) {
    for (;;) {
      const answer = systemCalls.accept(listenFd);
      if (answer === -EAGAIN) return undefined;
      if (answer >= 0) return answer;
      // A connection that left while it waited is none.
      if (answer !== -EINTR && answer !== -ECONNABORTED) {
        throw systemCallError(answer, { syscall: "accept4" });
      }
    }
  },
  connect(fd, ip, port) {
    const answer = systemCalls.connect(fd, sockaddrOf(ip, port, ""));
    if (answer < 0 && answer !== -EINPROGRESS) {
      throw systemCallError(answer, { syscall: "connect" });
    }
  },
  socketPair() {
    const fds = new Int32Array(2);
    const answer = systemCalls.socketPair(new Uint8Array(fds.buffer));
    if (answer < 0) throw systemCallError(answer, { syscall: "socketpair" });
    const [near = -1, far = -1] = fds;
    return [near, far];
  },
  localAddress(fd) {
    const bytes = Buffer.allocUnsafe(SOCKADDR_BYTES);
    return addressIn(bytes, systemCalls.socketName(fd, bytes), "getsockname");
  },
  peerAddress(fd) {
    const bytes = Buffer.allocUnsafe(SOCKADDR_BYTES);
    return addressIn(bytes, systemCalls.peerName(fd, bytes), "getpeername");
  },
  socketOption(fd, level, name) {
    const bytes = Buffer.allocUnsafe(OPTION_BYTES_MAX);
    const length = systemCalls.option(fd, level, name, bytes);
    if (length < 0) throw systemCallError(length, { syscall: "getsockopt" });
    return bytes.subarray(0, length);
  },
  connectSeqpacket,
  listenSeqpacket,
  receivePacket,
  sendPacket,
  watchReadable(fd, readable) {
    const answer = systemCalls.watchReadable(fd, readable);
    if (answer < 0) throw systemCallError(answer, { syscall: "uv_poll_init", detail: `fd ${fd}` });
    let isOpen = true;
    return {
      close() {
        // The number may be another watch's by now.
        if (isOpen) systemCalls.endWatch(fd);
        isOpen = false;
      },
    };
  },
  releaseResidentMemory() {
    systemCalls.releaseResidentMemory();
  },
  forbidMemoryDumps() {
    const answer = systemCalls.forbidMemoryDumps();
    if (answer < 0) throw systemCallError(answer, { syscall: "prctl" });
  },
};

/** As Linux numbers them. */
const FAMILIES = { ipv4: AF_INET, ipv6: AF_INET6, netlink: 16, packet: 17 } as const;
const TYPES = { stream: 1, dgram: 2, raw: 3 } as const;

const { EAFNOSUPPORT, EAGAIN, ECONNABORTED, EINPROGRESS, EINTR } = constants.errno;

/** The kernel cuts off what is longer. */
const OPTION_BYTES_MAX = 512;
const INT32_MAX = 0x7fff_ffff;
const UINT16_MAX = 0xffff;

function makeSocket(
  place: SocketPlace,
  options: PreparedOptions,
): { readonly fd: number; readonly transparent: boolean } {
  const { netnsFd, family, type, bind, listenBacklog, queueMigrationFd } = place;
  const netns = netnsNumber(netnsFd);
  const made = systemCalls.socketIn(netns, FAMILIES[family], TYPES[type], protocolOf(place));
  const fd =
    made >= 0 ? made : opened(made, netnsFd, { syscall: "socket", capability: "CAP_NET_RAW" });
  try {
    const transparent = options.apply(fd);
    if (bind !== undefined) bindTo(fd, family, bind);
    if (listenBacklog !== undefined) {
      const answer = systemCalls.listen(fd, listenBacklog);
      if (answer < 0) throw systemCallError(answer, { syscall: "listen" });
      if (queueMigrationFd !== undefined) attachQueueMigration(fd, queueMigrationFd);
    }
    return { fd, transparent };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** In the order of bytes that the kernel has it in: that of the network for `packet`. */
function protocolOf({ family, protocol = 0 }: SocketPlace): number {
  if (family !== "packet" || endianness() === "BE") return protocol;
  return ((protocol & 0xff) << 8) | (protocol >> 8);
}

function bindTo(
  fd: number,
  family: SocketPlace["family"],
  { ip, port }: SocketPlace["bind"] & {},
): void {
  const sockaddr = sockaddrOf(ip, port, "bind.");
  if (ip.includes(":") !== (family === "ipv6")) {
    throw new TypeError("bind.ip must be an address of the socket's family");
  }
  const answer = systemCalls.bind(fd, sockaddr);
  if (answer >= 0) return;
  const detail = `${ip} port ${port}`;
  throw systemCallError(answer, { syscall: "bind", detail, capability: "CAP_NET_BIND_SERVICE" });
}

/** @param where stands before the names in errors. */
function sockaddrOf(ip: string, port: number, where: string): Uint8Array {
  if (!Number.isInteger(port) || port < 0 || port > UINT16_MAX) {
    throw new TypeError(`${where}port must be an integer from 0 to ${UINT16_MAX}`);
  }
  const sockaddr = encodeSockaddr(ip, port);
  if (sockaddr === undefined) throw new TypeError(`${where}ip must be an IP address`);
  return sockaddr;
}

/** A negative number stands for the own one, so nobody may give it. */
function netnsNumber(netnsFd: number | undefined): number {
  if (netnsFd === undefined) return -1;
  if (Number.isInteger(netnsFd) && netnsFd >= 0 && netnsFd <= INT32_MAX) return netnsFd;
  throw new TypeError(`netnsFd must be an integer from 0 to ${INT32_MAX}`);
}

/** A descriptor, or an error: of `subject`, or of the way into the namespace. */
function opened(answer: number, netnsFd: number | undefined, subject: CallSubject): number {
  if (answer >= 0) return answer;
  if (answer > -NOT_ENTERED) throw systemCallError(answer, subject);
  const entering = { syscall: "setns", detail: `fd ${netnsFd}`, capability: "CAP_SYS_ADMIN" };
  throw systemCallError(answer + NOT_ENTERED, entering);
}

/** @param length of the address, or an errno. */
function addressIn(bytes: Uint8Array, length: number, syscall: string): SocketAddress {
  if (length < 0) throw systemCallError(length, { syscall });
  const address = decodeSockaddr(bytes.subarray(0, length));
  if (address === undefined) throw systemCallError(-EAFNOSUPPORT, { syscall });
  return address;
}
