/**
 * The `forwarded` header of a CONNECT (RFC 7239 in the narrow form that the mesh speaks): the
 * client's address before the tunnel and the service that it asked for.
 *
 * @see spec data-path 3.3 for what is written and 4.8 for how the host is read.
 */
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import { isHeaderText } from "./header-text.ts";

/**
 * `for="10.0.0.1:4711"`, and `;host=<host>` when a service is known; the host stands unquoted.
 *
 * @param host left out when no header can carry it.
 */
export function formatForwarded(client: SocketAddress, host?: string): string {
  const header = `for="${formatSocketAddress(client)}"`;
  return host === undefined || !isHeaderText(host) ? header : `${header};host=${host}`;
}

/** The first `host=` part without its quotes; `undefined` when it is missing or empty. */
export function parseForwardedHost(header: string): string | undefined {
  if (!header.includes("host=") || !isHeaderText(header)) return undefined;
  for (const part of header.split(";")) {
    const trimmed = part.trim();
    if (!trimmed.startsWith("host=")) continue;
    const value = trimmed.slice("host=".length);
    const start = value.startsWith('"') ? 1 : 0;
    const end = value.length > start && value.endsWith('"') ? value.length - 1 : value.length;
    return end > start ? value.slice(start, end) : undefined;
  }
  return undefined;
}
