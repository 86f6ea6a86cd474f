/** A live connection as the operators' pages list it, in the original's shape. */
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { ConnectionSummary } from "../proxy/connection-report.ts";

export interface DumpedConnection {
  readonly src: string;
  readonly originalDst: string | null;
  readonly actualDst: string;
  readonly protocol: string;
}

export function dumpConnection(connection: ConnectionSummary): DumpedConnection {
  const { source, originalDestination, actualDestination, protocol } = connection;
  return {
    src: formatSocketAddress(source),
    originalDst: formatDestination(originalDestination),
    actualDst: formatSocketAddress(actualDestination),
    protocol,
  };
}

function formatDestination(destination: SocketAddress | string | undefined): string | null {
  if (destination === undefined || typeof destination === "string") return destination ?? null;
  return formatSocketAddress(destination);
}
