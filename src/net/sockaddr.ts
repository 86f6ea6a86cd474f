/** Addresses of sockets as the kernel has them: sockaddr_in, sockaddr_in6 and sockaddr_un. */
import { endianness } from "node:os";
import { ipAddressFromBytes, ipv4Number } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";

/** Of either family of IP: that of sockaddr_in6, the longer one. */
export const SOCKADDR_BYTES = 28;
/** The file's name and its end; the kernel takes no more. */
const UNIX_PATH_BYTES = 108;

/** As Linux numbers them. */
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;

/** The family is two bytes in the machine's order, of which one is zero; the port is in the network's. */
const FAMILY_AT = endianness() === "LE" ? 0 : 1;
const PORT_AT = 2;
const IPV4_AT = 4;
const IPV4_END = 8;
/** sockaddr_in ends with zeros. */
const IPV4_BYTES = 16;
/** Behind the flow label. */
const IPV6_AT = 8;
const IPV6_END = 24;
/** Of an IPv4 address in IPv6. */
const MAPPED_PREFIX: readonly number[] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/**
 * @param ip IPv6 without zone and without dotted numbers, as canonical text is.
 * @param port 0 to 65535.
 * @returns `undefined` when the text is no address.
 */
export function encodeSockaddr(ip: string, port: number): Uint8Array | undefined {
  const ipv4 = ipv4Number(ip);
  const [family, byteCount] =
    ipv4 === undefined ? [AF_INET6, SOCKADDR_BYTES] : [AF_INET, IPV4_BYTES];
  // Of the pool, not of its own: N-API would move it out of the heap first.
  const bytes = Buffer.allocUnsafe(byteCount).fill(0);
  bytes[FAMILY_AT] = family;
  bytes.writeUInt16BE(port, PORT_AT);
  if (ipv4 !== undefined) bytes.writeUInt32BE(ipv4, IPV4_AT);
  else if (!writeGroups(ip, bytes)) return undefined;
  return bytes;
}

/**
 * @returns `undefined` when the path is empty or too long.
 * @throws TypeError when it has a null character, where the kernel would take it to end.
 */
export function encodeUnixSockaddr(path: string): Uint8Array | undefined {
  if (path.includes("\0")) throw new TypeError("path must be a string without null characters");
  const name = Buffer.from(path);
  if (name.length === 0 || name.length >= UNIX_PATH_BYTES) return undefined;
  const bytes = new Uint8Array(2 + UNIX_PATH_BYTES);
  bytes[FAMILY_AT] = AF_UNIX;
  bytes.set(name, 2);
  return bytes;
}

/**
 * IPv4-mapped IPv6 is given as IPv4.
 *
 * @param bytes may hold more than the address, and less when it begins with zeros.
 * @returns `undefined` when it is no address of IP; zeros are none.
 */
export function decodeSockaddr(bytes: Uint8Array, offset = 0): SocketAddress | undefined {
  const family = bytes[offset + FAMILY_AT];
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  const [start, end] = family === AF_INET ? [IPV4_AT, IPV4_END] : ipv6Range(bytes, offset);
  const ip = ipAddressFromBytes(bytes.subarray(offset + start, offset + end));
  const port = ((bytes[offset + PORT_AT] as number) << 8) | (bytes[offset + PORT_AT + 1] as number);
  return ip === undefined ? undefined : { ip, port };
}

function ipv6Range(bytes: Uint8Array, offset: number): readonly [start: number, end: number] {
  const isMapped = MAPPED_PREFIX.every((byte, i) => bytes[offset + IPV6_AT + i] === byte);
  return [isMapped ? IPV6_AT + MAPPED_PREFIX.length : IPV6_AT, IPV6_END];
}

/** @returns false when the text is not eight hexadecimal groups, one row of zeros as `::`. */
function writeGroups(text: string, into: Buffer): boolean {
  const [head = "", tail, ...more] = text.split("::");
  const first = head === "" ? [] : head.split(":");
  const last = tail === undefined || tail === "" ? [] : tail.split(":");
  const count = first.length + last.length;
  const isComplete = tail === undefined ? count === 8 : count < 8;
  if (more.length > 0 || !isComplete) return false;
  const groups = [...first, ...Array<string>(8 - count).fill("0"), ...last];
  return groups.every((group, i) => {
    if (!/^[\da-f]{1,4}$/i.test(group)) return false;
    into.writeUInt16BE(Number.parseInt(group, 16), IPV6_AT + 2 * i);
    return true;
  });
}
