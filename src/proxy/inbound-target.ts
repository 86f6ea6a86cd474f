/**
 * Whether a CONNECT on 15008 is meant for this workload, and which of its ports it wants.
 *
 * The target's address is always the one that the peer connected to; the authority only contributes
 * the port.
 *
 * @see spec data-path 4.3 (checks 1 to 5), 4.4, 4.5 and 4.8.
 */
import type { NetworkAddress } from "../mesh/gateway-address.ts";
import { type IpAddress, ipFamily } from "../mesh/ip-address.ts";
import { type Service, serviceKey } from "../mesh/service.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { KnownService, MeshState } from "../state/mesh-state.ts";
import { findGatewayDestination } from "../state/waypoint.ts";
import { type ConnectAuthority, parseAuthority } from "../wire/connect-authority.ts";
import {
  authorityError,
  ipMismatchError,
  methodError,
  ProxyError,
  selfCallError,
} from "./proxy-error.ts";
import { noServiceAddressError, unknownHostnameError, unknownPortError } from "./route-error.ts";

export type InboundTarget =
  | { readonly kind: "refuse"; readonly status: 400 | 503; readonly error: ProxyError }
  | {
      readonly kind: "accept";
      /** What policies judge, and where the application listens. */
      readonly target: SocketAddress;
      /** Whom the client calls, for an application that wants to be told (PROXY protocol). */
      readonly announced: SocketAddress | undefined;
      readonly authority: string;
      /** Most likely the service that was asked for; only for logs and metrics. */
      readonly service: Service | undefined;
    };

export interface InboundQuery {
  /** The local workload. */
  readonly workload: Workload;
  /** The local address of the tunnel's connection. */
  readonly local: SocketAddress;
  readonly method: string;
  readonly authority: string | undefined;
  /** `host=` of the `forwarded` header. */
  readonly forwardedHost: string | undefined;
  /** Our own network. */
  readonly network: string;
  readonly illegalPorts: ReadonlySet<number>;
}

export function chooseInboundTarget(state: MeshState, query: InboundQuery): InboundTarget {
  const { workload, local } = query;
  if (query.method !== "CONNECT") return refuse(400, methodError(query.method));
  const authority = query.authority === undefined ? undefined : parseAuthority(query.authority);
  if (query.authority === undefined || authority === undefined) {
    return refuse(400, authorityError(query.authority));
  }
  if (authority.kind === "address" && !isMeantForUs(state, query, authority.address.ip)) {
    return refuse(400, ipMismatchError(local.ip, authority.address.ip));
  }

  const hop = findNextHop(state, workload, authority);
  if (hop instanceof ProxyError) return refuse(503, hop);
  if (query.illegalPorts.has(hop.port)) return refuse(503, selfCallError());
  const tunnel = workload.applicationTunnel;
  const announced =
    tunnel?.protocol === "PROXY" ? findAnnounced(authority, hop.candidates, query) : undefined;
  if (announced instanceof ProxyError) return refuse(503, announced);

  const target: SocketAddress = { ip: local.ip, port: tunnel?.port ?? hop.port };
  return {
    kind: "accept",
    target,
    announced,
    authority: query.authority,
    service: guessService(hop.candidates, workload, target.port, query.forwardedHost),
  };
}

/**
 * The service that a connection to a workload was most likely meant for: the one that the peer names,
 * else the first that leads to the port.
 *
 * @param port the workload's own port.
 */
export function guessService(
  candidates: readonly KnownService[],
  workload: Workload,
  port: number,
  forwardedHost: string | undefined,
): Service | undefined {
  const named = candidates.find(({ service }) => service.hostname === forwardedHost);
  const guess = named ?? candidates.find(({ service }) => leadsTo(service, workload, port));
  return guess?.service;
}

/** A waypoint gets connections for the destinations that it stands before. */
function isMeantForUs(state: MeshState, query: InboundQuery, requested: IpAddress): boolean {
  const { workload, local, network } = query;
  if (requested === local.ip) return true;
  // A tunnelling application judges for itself.
  if (workload.applicationTunnel !== undefined) return true;
  const destination =
    state.findWorkloadByAddress(network, requested) ??
    state.findServiceByVip(network, requested, undefined)?.service;
  if (destination?.waypoint === undefined) return false;
  const waypoint = findGatewayDestination(state, destination.waypoint);
  switch (waypoint?.kind) {
    case undefined:
      return false;
    case "service":
      return waypoint.known.endpoints.has(workload.uid);
    case "workload":
      return waypoint.workload.ips.includes(local.ip);
  }
}

/** The port that is asked for, and the services that it may belong to. */
function findNextHop(
  state: MeshState,
  workload: Workload,
  authority: ConnectAuthority,
): { port: number; candidates: readonly KnownService[] } | ProxyError {
  if (authority.kind === "address") {
    return { port: authority.address.port, candidates: state.servicesOf(workload) };
  }
  const { hostname, port } = authority;
  const known = state.findServiceByHostname(hostname, workload.namespace);
  if (known === undefined) return unknownHostnameError(hostname);
  // The workload need not be an endpoint of the service; policies still apply.
  const target =
    workload.services.get(serviceKey(known.service))?.get(port) || known.service.ports.get(port);
  if (target === undefined || target === 0) return unknownPortError(hostname, port);
  return { port: target, candidates: [known] };
}

/** The address asked for; of a service its own, best one of our network and of IPv4. */
function findAnnounced(
  authority: ConnectAuthority,
  candidates: readonly KnownService[],
  { network }: InboundQuery,
): SocketAddress | ProxyError {
  if (authority.kind === "address") return authority.address;
  const { hostname, port } = authority;
  let best: NetworkAddress | undefined;
  let bestRank = 0;
  for (const vip of candidates.flatMap(({ service }) => service.vips)) {
    const rank = (vip.network === network ? 2 : 0) + (ipFamily(vip.ip) === 4 ? 1 : 0);
    if (rank < bestRank) continue;
    best = vip;
    bestRank = rank;
  }
  return best === undefined ? noServiceAddressError(hostname) : { ip: best.ip, port };
}

function leadsTo(service: Service, workload: Workload, port: number): boolean {
  for (const target of service.ports.values()) if (target === port) return true;
  for (const target of workload.services.get(serviceKey(service))?.values() ?? []) {
    if (target === port) return true;
  }
  return false;
}

function refuse(status: 400 | 503, error: ProxyError): InboundTarget {
  return { kind: "refuse", status, error };
}
