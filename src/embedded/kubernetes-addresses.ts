/** Addresses as Kubernetes writes them, in the bytes in which the mesh says them. */
import { ipAddressToBytes, parseIpAddress } from "../mesh/ip-address.ts";
import type { NetworkAddress } from "../wire/proto/istio-workload.ts";

export interface AddressRange {
  /** 4 or 16, network order, as written. */
  readonly bytes: Uint8Array;
  readonly prefixLength: number;
}

/** @returns `undefined` when the text is no IP address. */
export function parseAddress(text: string): Uint8Array | undefined {
  const ip = parseIpAddress(text);
  return ip === undefined ? undefined : ipAddressToBytes(ip);
}

/** `10.0.0.0/8`, or an address alone, which is a range of one. */
export function parseRange(text: string): AddressRange | undefined {
  const [address = "", length, ...rest] = text.split("/");
  const bytes = parseAddress(address);
  if (bytes === undefined || rest.length > 0) return undefined;
  if (length === undefined) return { bytes, prefixLength: bytes.length * 8 };
  const prefixLength = Number(length);
  const isLength = /^\d{1,3}$/.test(length) && prefixLength <= bytes.length * 8;
  return isLength ? { bytes, prefixLength } : undefined;
}

/** The range as a service's address; a range of one has no length. */
export function toNetworkAddress(network: string, range: AddressRange): NetworkAddress {
  const { bytes, prefixLength } = range;
  if (prefixLength === bytes.length * 8) return { network, address: bytes };
  const address = bytes.map((byte, index) => byte & maskOf(prefixLength - index * 8));
  return { network, address, length: prefixLength };
}

/** Of one byte that has this many bits of the prefix, or fewer than none, or more than eight. */
function maskOf(bits: number): number {
  if (bits >= 8) return 0xff;
  return bits <= 0 ? 0 : (0xff << (8 - bits)) & 0xff;
}
