/**
 * IP addresses as canonical text: the key under which every room looks things up.
 * IPv4-mapped IPv6 addresses are unwrapped at the edge, so one peer has one spelling.
 */
import ipaddr from "ipaddr.js";

/** Canonical text of an IPv4 or IPv6 address; never IPv4-mapped. */
export type IpAddress = string & { readonly brand: "IpAddress" };

/** @returns the canonical form, or `undefined` when the text is no IP address. */
export function parseIpAddress(text: string): IpAddress | undefined {
  if (ipv4Number(text) !== undefined) return text as IpAddress;
  if (!text.includes(":") || text.includes("%") || !ipaddr.IPv6.isValid(text)) return undefined;
  return canonicalIpv6(ipaddr.IPv6.parse(text));
}

/**
 * The address in network byte order.
 *
 * @param bytes 4 or 16 bytes.
 * @returns `undefined` for any other length.
 */
export function ipAddressFromBytes(bytes: Uint8Array): IpAddress | undefined {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as IpAddress;
  if (bytes.length !== 16) return undefined;
  return canonicalIpv6(new ipaddr.IPv6([...bytes]));
}

/** @returns 4 or 16 bytes in network order. */
export function ipAddressToBytes(ip: IpAddress): Uint8Array {
  return Uint8Array.from(ipaddr.parse(ip).toByteArray());
}

/** The address family of a canonical address. */
export function ipFamily(ip: IpAddress): 4 | 6 {
  return ip.includes(":") ? 6 : 4;
}

/** 127.0.0.0/8 and ::1. */
export function isLoopback(ip: IpAddress): boolean {
  return ip === "::1" || ip.startsWith("127.");
}

/**
 * An IPv4 address as one number, its first byte the highest.
 *
 * @returns `undefined` unless the text is four decimal numbers of 0 to 255 without leading zeros;
 *   anything looser is not an address.
 */
export function ipv4Number(text: string): number | undefined {
  if (text.length < 7 || text.length > 15) return undefined;
  let address = 0;
  let parts = 1;
  let value = -1;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 46) {
      if (value < 0 || ++parts > 4) return undefined;
      address = (address << 8) | value;
      value = -1;
    } else if (c >= 48 && c <= 57) {
      if (value === 0) return undefined;
      value = value < 0 ? c - 48 : value * 10 + c - 48;
      if (value > 255) return undefined;
    } else return undefined;
  }
  return parts === 4 && value >= 0 ? ((address << 8) | value) >>> 0 : undefined;
}

function canonicalIpv6(address: ipaddr.IPv6): IpAddress {
  const plain = address.isIPv4MappedAddress() ? address.toIPv4Address() : address;
  return (
    plain.kind() === "ipv4" ? plain.toString() : (plain as ipaddr.IPv6).toRFC5952String()
  ) as IpAddress;
}
