/** An address range, prepared once so that a policy check is a few integer comparisons. */
import { type IpAddress, ipAddressToBytes, parseIpAddress } from "./ip-address.ts";

/** Host bits may be set; they do not take part in matching. 0 ≤ prefixLength ≤ 32 or 128. */
export interface Cidr {
  readonly ip: IpAddress;
  readonly prefixLength: number;
  /** 4 or 16 bytes, network order, host bits cleared. */
  readonly network: Uint8Array;
}

/** @returns `undefined` when the prefix does not fit the address. */
export function makeCidr(ip: IpAddress, prefixLength: number): Cidr | undefined {
  const network = ipAddressToBytes(ip);
  const bits = network.length * 8;
  if (!Number.isInteger(prefixLength) || prefixLength < 0 || prefixLength > bits) return undefined;
  for (let i = 0; i < network.length; i++) {
    const kept = Math.min(8, Math.max(0, prefixLength - i * 8));
    network[i] = (network[i] as number) & (0xff << (8 - kept));
  }
  return { ip, prefixLength, network };
}

/** @param text `ip/length`; the length is not optional. */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf("/");
  if (slash < 0) return undefined;
  const ip = parseIpAddress(text.slice(0, slash));
  const length = text.slice(slash + 1);
  if (ip === undefined || !/^\d{1,3}$/.test(length)) return undefined;
  return makeCidr(ip, Number(length));
}

/**
 * True when the address lies in the range. Families never match each other.
 *
 * @param bytes 4 or 16, network order.
 */
export function cidrContainsBytes(cidr: Cidr, bytes: Uint8Array): boolean {
  const network = cidr.network;
  if (bytes.length !== network.length) return false;
  const whole = cidr.prefixLength >> 3;
  for (let i = 0; i < whole; i++) if (bytes[i] !== network[i]) return false;
  const rest = cidr.prefixLength & 7;
  if (rest === 0) return true;
  return (
    (((bytes[whole] as number) ^ (network[whole] as number)) & (0xff << (8 - rest)) & 0xff) === 0
  );
}
