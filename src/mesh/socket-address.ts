/** An IP address with a port, as in logs, `:authority` and sockets. */
import { type IpAddress, parseIpAddress } from "./ip-address.ts";

/** Invariant: 0 ≤ port ≤ 65535. */
export interface SocketAddress {
  readonly ip: IpAddress;
  readonly port: number;
}

/** `10.0.0.1:80` or `[::1]:80`. */
export function formatSocketAddress(address: SocketAddress): string {
  return formatHostPort(address.ip, address.port);
}

/** As {@link formatSocketAddress} for an IP given as text. */
export function formatHostPort(ip: string, port: number): string {
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** @returns `undefined` unless the text is `IPv4:port` or `[IPv6]:port`. */
export function parseSocketAddress(text: string): SocketAddress | undefined {
  const colon = text.lastIndexOf(":");
  if (colon <= 0) return undefined;
  const port = parsePort(text.slice(colon + 1));
  if (port === undefined) return undefined;
  const host = text.slice(0, colon);
  const bracketed = host.startsWith("[") && host.endsWith("]");
  if (!bracketed && host.includes(":")) return undefined;
  const ip = parseIpAddress(bracketed ? host.slice(1, -1) : host);
  if (ip === undefined || bracketed !== text.startsWith("[")) return undefined;
  return { ip, port };
}

/** @returns a port of 0 to 65535 written in plain decimal digits, else `undefined`. */
export function parsePort(text: string): number | undefined {
  if (!/^\d{1,5}$/.test(text)) return undefined;
  const port = Number(text);
  return port <= 65535 ? port : undefined;
}
