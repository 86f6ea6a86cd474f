/**
 * Which sockets a network namespace has: questions to the kernel by NETLINK_SOCK_DIAG and its answers,
 * as bytes. Numbers are in the machine's order, but for ports and addresses.
 *
 * @see sock_diag(7), netlink(7), linux/inet_diag.h
 */
import { endianness } from "node:os";
import { type IpAddress, ipAddressFromBytes } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import { invariant } from "../runtime/invariant.ts";
import { NetError } from "./net-error.ts";

/** By which a netlink socket asks. */
export const NETLINK_SOCK_DIAG = 4;

const IS_LITTLE_ENDIAN = endianness() === "LE";
const FAMILIES = { 4: 2, 6: 10 } as const;
const PROTOCOLS = { tcp: 6, udp: 17 } as const;

const SOCK_DIAG_BY_FAMILY = 20;
/** NLM_F_REQUEST and NLM_F_DUMP. */
const ASK_FOR_ALL = 0x301;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
/** Of struct nlmsghdr, inet_diag_req_v2 and inet_diag_msg. */
const HEADER_BYTES = 16;
const REQUEST_BYTES = 56;
const ENTRY_BYTES = 72;
/** Only told to who has CAP_NET_ADMIN. */
const INET_DIAG_MARK = 15;

export interface DiagQuestion {
  readonly family: 4 | 6;
  readonly protocol: "tcp" | "udp";
  /** A bit for each state of the kernel's tcp_states.h; connected datagram sockets are established. */
  readonly states: number;
}

/** A message for a fresh netlink socket; everything else that is read from it is the answer. */
export function encodeDiagQuestion({ family, protocol, states }: DiagQuestion): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + REQUEST_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, IS_LITTLE_ENDIAN);
  view.setUint16(4, SOCK_DIAG_BY_FAMILY, IS_LITTLE_ENDIAN);
  view.setUint16(6, ASK_FOR_ALL, IS_LITTLE_ENDIAN);
  bytes[HEADER_BYTES] = FAMILIES[family];
  bytes[HEADER_BYTES + 1] = PROTOCOLS[protocol];
  view.setUint32(HEADER_BYTES + 4, states, IS_LITTLE_ENDIAN);
  return bytes;
}

/** One socket, in the bytes of an answer; valid as long as those are. */
export class DiagEntry {
  readonly #view: DataView;
  readonly #at: number;
  readonly #end: number;

  /** @param at where its struct inet_diag_msg begins; its attributes end at `end`. */
  constructor(view: DataView, at: number, end: number) {
    this.#view = view;
    this.#at = at;
    this.#end = end;
  }

  /** Of the kernel's tcp_states.h. */
  get state(): number {
    return this.#view.getUint8(this.#at + 1);
  }

  get remote(): SocketAddress {
    const isIpv4 = this.#view.getUint8(this.#at) === FAMILIES[4];
    const { buffer, byteOffset } = this.#view;
    const bytes = new Uint8Array(buffer, byteOffset + this.#at + 24, isIpv4 ? 4 : 16);
    const ip: IpAddress | undefined = ipAddressFromBytes(bytes);
    invariant(ip !== undefined, "4 or 16 bytes are an address");
    return { ip, port: this.#view.getUint16(this.#at + 6) };
  }

  /** SO_MARK; `undefined` when the kernel does not tell. */
  get mark(): number | undefined {
    const view = this.#view;
    for (let at = this.#at + ENTRY_BYTES; at + 8 <= this.#end; ) {
      const length = view.getUint16(at, IS_LITTLE_ENDIAN);
      if (view.getUint16(at + 2, IS_LITTLE_ENDIAN) === INET_DIAG_MARK) {
        return view.getUint32(at + 4, IS_LITTLE_ENDIAN);
      }
      at += aligned(Math.max(length, 4));
    }
    return undefined;
  }
}

/**
 * Takes what one read of the answer has brought.
 *
 * @returns `undefined` while more follows; at the end 0, or the errno of what went wrong.
 * @throws NetError `socket-diag` for what is no such answer.
 */
export function takeDiagAnswer(
  bytes: Uint8Array,
  take: (entry: DiagEntry) => void,
): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length; ) {
    const rest = bytes.length - at;
    const length = rest < HEADER_BYTES ? 0 : view.getUint32(at, IS_LITTLE_ENDIAN);
    const payload = length - HEADER_BYTES;
    if (payload < 0 || length > rest) throw broken(length, rest);
    const type = view.getUint16(at + 4, IS_LITTLE_ENDIAN);
    if (type === NLMSG_DONE || type === NLMSG_ERROR) {
      if (payload < 4) throw broken(length, rest);
      return Math.abs(view.getInt32(at + HEADER_BYTES, IS_LITTLE_ENDIAN));
    }
    if (type === SOCK_DIAG_BY_FAMILY) {
      if (payload < ENTRY_BYTES) throw broken(length, rest);
      take(new DiagEntry(view, at + HEADER_BYTES, at + length));
    }
    at += aligned(length);
  }
  return undefined;
}

function broken(length: number, rest: number): NetError {
  return new NetError(
    "socket-diag",
    `the kernel's list of sockets has a message of ${length} bytes where ${rest} are left`,
  );
}

/** Messages and attributes begin at multiples of four. */
function aligned(length: number): number {
  return (length + 3) & ~3;
}
