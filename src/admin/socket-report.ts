/** `/debug/sockets`: what the sockets of each pod were like when they were last looked at. */
import { formatSocketAddress } from "../mesh/socket-address.ts";
import type { SocketCensus } from "../net/socket-census.ts";
import type { Datagrams, UdpCounters } from "../net/udp-counters.ts";
import { formatTimestamp } from "../runtime/timestamp.ts";

/** A look at one pod. */
export interface SocketFinding {
  readonly workload: { readonly name: string; readonly namespace: string };
  readonly workloadName: string;
  /** Wall clock, milliseconds. */
  readonly at: number;
  readonly census: SocketCensus;
  readonly bypassing: Datagrams;
}

export interface SocketReport {
  readonly pods: readonly PodSockets[];
}

interface PodSockets {
  readonly name: string;
  readonly namespace: string;
  readonly workload: string;
  /** RFC 3339. */
  readonly lookedAt: string;
  /** By owner, then by state. */
  readonly tcp: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly udp: {
    /** Since the first look, without DNS through the proxy. */
    readonly bypassing: Datagrams;
    /** Since the namespace began, with DNS. */
    readonly ipv4: UdpCounters;
    readonly ipv6: UdpCounters;
    /** Sockets of applications that are connected, and the peers of some of them with how many each has. */
    readonly connected: number;
    readonly peers: Readonly<Record<string, number>>;
  };
}

export function reportSockets(findings: readonly SocketFinding[]): SocketReport {
  return { pods: findings.map(describePod) };
}

function describePod(finding: SocketFinding): PodSockets {
  const { workload, workloadName, at, census, bypassing } = finding;
  const tcp: Record<string, Record<string, number>> = {};
  for (const { owner, state, count } of census.tcp) {
    tcp[owner] = { ...tcp[owner], [state]: count };
  }
  const peers: Record<string, number> = {};
  for (const peer of census.connected.peers.map(formatSocketAddress)) {
    peers[peer] = (peers[peer] ?? 0) + 1;
  }
  return {
    name: workload.name,
    namespace: workload.namespace,
    workload: workloadName,
    lookedAt: formatTimestamp(at),
    tcp,
    udp: { bypassing, ...census.udp, connected: census.connected.count, peers },
  };
}
