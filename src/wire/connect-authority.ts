/**
 * The `:authority` of a CONNECT: an address, or a host name with a port when a waypoint or gateway
 * speaks (RFC 9113 8.5, RFC 3986 3.2).
 *
 * @see spec data-path 4.3, check 2.
 */
import { parsePort, parseSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";

export type ConnectAuthority =
  | { readonly kind: "address"; readonly address: SocketAddress }
  /** Spelled as it came; never empty. */
  | { readonly kind: "hostname"; readonly hostname: string; readonly port: number };

/** RFC 3986 reg-name: what a host may be spelled with. */
const REG_NAME = /^[A-Za-z0-9\-._~!$&'()*+,;=%]+$/;

/** @returns `undefined` unless host and port are both there. User information is refused. */
export function parseAuthority(text: string): ConnectAuthority | undefined {
  const address = parseSocketAddress(text);
  if (address !== undefined) return { kind: "address", address };
  const colon = text.lastIndexOf(":");
  if (colon <= 0) return undefined;
  const hostname = text.slice(0, colon);
  const port = parsePort(text.slice(colon + 1));
  if (port === undefined || !REG_NAME.test(hostname)) return undefined;
  return { kind: "hostname", hostname, port };
}
