/**
 * Where an outbound connection goes: a pure function from (source workload, destination, mesh) to a
 * decision with its reason.
 *
 * Only the destination's waypoint counts, never the source's, and the node does not matter: a pod on
 * the same node is reached like any other. Workloads of other networks are reached as part of a
 * service and through a network gateway.
 *
 * @see spec data-path 2.2 and 2.8.
 */
import type { GatewayAddress } from "../mesh/gateway-address.ts";
import type { Identity } from "../mesh/identity.ts";
import { type IpAddress, isLoopback } from "../mesh/ip-address.ts";
import { type Service, serviceIdentities } from "../mesh/service.ts";
import { formatHostPort, formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Random } from "../runtime/random.ts";
import type { EndpointBias } from "../state/load-balancer.ts";
import type { MeshState } from "../state/mesh-state.ts";
import { findUpstream, type Upstream } from "../state/upstream.ts";
import {
  chooseServiceWaypoint,
  findNetworkGateway,
  findWaypoint,
  isOwnWaypoint,
} from "../state/waypoint.ts";
import { type ProxyError, selfCallError } from "./proxy-error.ts";
import {
  noHealthyUpstreamError,
  noServiceError,
  unknownGatewayError,
  unknownWaypointError,
  unroutableError,
} from "./route-error.ts";

/** Every proxy of the mesh listens here; the port is not configurable. */
const HBONE_PORT = 15008;

/** `reason` is one sentence for people: lower case, without a full stop. */
export type OutboundRoute =
  | RefusedRoute
  | {
      readonly kind: "tcp";
      readonly remote: SocketAddress;
      readonly workload: Workload | undefined;
      readonly service: Service | undefined;
      /** Whom it goes to; `undefined` where it goes on unchanged. */
      readonly upstream: Upstream | undefined;
      readonly reason: string;
    }
  | HboneRoute
  | UnresolvedRoute;

export interface RefusedRoute {
  readonly kind: "refuse";
  readonly error: ProxyError;
  /** A network gateway that the mesh does not know, which may yet be learnt of. */
  readonly missing?: GatewayAddress;
  readonly reason: string;
}

export interface HboneRoute {
  readonly kind: "hbone";
  /** The destination's HBONE port, or the waypoint's. */
  readonly remote: SocketAddress;
  /** Where the tunnel's far end is to connect: `ip:port`, in another network `host:port`. */
  readonly authority: string;
  /** Whom the peer may prove to be. */
  readonly expected: readonly Identity[];
  /** The one that the tunnel ends at: the destination or its waypoint. */
  readonly workload: Workload;
  /** The one that was asked for, also behind a waypoint. */
  readonly service: Service | undefined;
  /** As what {@link workload} was found. */
  readonly upstream: Upstream;
  /** Whether {@link workload} is what was asked for, or stands before it. */
  readonly hop: "destination" | "waypoint" | "network gateway";
  /** What is to be reached through the network gateway, by a tunnel inside of this one. */
  readonly beyond: BeyondGateway | undefined;
  readonly reason: string;
}

/** An endpoint, or a waypoint, of another network. */
export interface BeyondGateway {
  readonly workload: Workload;
  /** As what it was found. */
  readonly upstream: Upstream;
  /** Whom the peer there may prove to be; nobody, where the mesh names none. */
  readonly expected: readonly Identity[];
}

/** All is chosen but the address of a workload that is known by its host name only. */
export interface UnresolvedRoute {
  readonly kind: "unresolved";
  readonly workload: Workload;
  /** Addresses of this family come first. */
  readonly family: 4 | 6;
  /** The route to one of the host's addresses. */
  readonly at: (ip: IpAddress) => ResolvedRoute;
  readonly reason: string;
}

export type ResolvedRoute = Exclude<OutboundRoute, UnresolvedRoute>;

/** One that leads somewhere. */
export type OpenRoute = Exclude<ResolvedRoute, { kind: "refuse" }>;

export interface OutboundQuery {
  readonly source: Workload;
  /** The client's address. */
  readonly downstream: IpAddress;
  /** The original destination. */
  readonly target: SocketAddress;
  /** Our own network. */
  readonly network: string;
  readonly illegalPorts: ReadonlySet<number>;
  /** Of endpoints, waypoints and network gateways. */
  readonly bias?: EndpointBias | undefined;
}

export function chooseOutboundRoute(
  state: MeshState,
  query: OutboundQuery,
  random: Random,
): OutboundRoute {
  const { source, target, bias } = query;
  if (isLoopback(target.ip) && query.illegalPorts.has(target.port)) {
    return refuse(selfCallError(), "the destination is one of our own ports");
  }

  const addressed = findAddressedService(state, query);
  const serviceWaypoint = addressed && chooseServiceWaypoint(addressed, random);
  if (addressed !== undefined && serviceWaypoint !== undefined) {
    return routeToWaypoint(
      state,
      query,
      serviceWaypoint,
      { service: addressed, addressed },
      random,
    );
  }

  const lookup = findUpstream(
    state,
    { network: source.network, source, target, mode: "standard", bias },
    random,
  );
  switch (lookup.kind) {
    case "unroutable":
      return refuse(unroutableError(lookup.workload), "the workload has no address");
    case "none":
    case "original-destination":
      return addressed === undefined || addressed.loadBalancer?.mode === "Passthrough"
        ? passThrough(target, addressed)
        : refuse(
            noHealthyUpstreamError(target),
            `service ${addressed.hostname} has no endpoint for port ${target.port}`,
          );
    case "found":
      break;
  }

  const { upstream } = lookup;
  const { workload } = upstream;
  if (workload.network !== source.network) {
    return addressed === undefined
      ? refuse(noServiceError(target), foreignReason(workload))
      : routeBeyond(state, query, upstream, addressed, random);
  }
  if (
    addressed === undefined &&
    workload.waypoint !== undefined &&
    !isOwnWaypoint(state, workload, source, query.downstream)
  ) {
    const service = upstream.service?.service;
    return routeToWaypoint(state, query, workload.waypoint, { service, addressed }, random);
  }
  return atAddress(upstream, (ip) => routeDirectly(upstream, ip));
}

/** The service whose address was dialled; a workload with that address comes first. */
function findAddressedService(state: MeshState, query: OutboundQuery): Service | undefined {
  const { network, target, source } = query;
  if (state.findWorkloadByAddress(network, target.ip) !== undefined) return undefined;
  return state.findServiceByVip(network, target.ip, source.namespace)?.service;
}

/** The waypoint gets the original destination and decides on its own. */
function routeToWaypoint(
  state: MeshState,
  query: OutboundQuery,
  gateway: GatewayAddress,
  { service, addressed }: Readonly<Record<"service" | "addressed", Service | undefined>>,
  random: Random,
): OutboundRoute {
  const { source, target, bias } = query;
  const lookup = findWaypoint(state, { gateway, source, target, bias }, random);
  switch (lookup.kind) {
    case "missing":
      return refuse(unknownWaypointError(lookup.name), "the destination's waypoint is not known");
    case "unroutable":
      return refuse(unroutableError(lookup.workload), "the waypoint has no address");
    case "found":
      break;
  }
  const { workload, port, identities } = lookup.upstream;
  if (workload.network !== source.network) {
    return addressed === undefined
      ? refuse(noServiceError(target), foreignReason(workload))
      : routeBeyond(state, query, lookup.upstream, addressed, random);
  }
  return atAddress(lookup.upstream, (ip) => ({
    kind: "hbone",
    remote: { ip, port },
    authority: formatSocketAddress(target),
    expected: identities,
    workload,
    service,
    upstream: lookup.upstream,
    hop: "waypoint",
    beyond: undefined,
    reason: `waypoint ${workload.name} stands before the destination`,
  }));
}

/** The service is asked for by its name: addresses mean nothing in another network. */
function routeBeyond(
  state: MeshState,
  query: OutboundQuery,
  upstream: Upstream,
  service: Service,
  random: Random,
): OutboundRoute {
  const { source, target, bias } = query;
  const { workload, service: serving } = upstream;
  const gateway = workload.networkGateway;
  if (gateway === undefined) return refuse(unroutableError(workload), foreignReason(workload));
  const lookup = findNetworkGateway(state, { gateway, source, target, bias }, random);
  switch (lookup.kind) {
    case "missing":
      return {
        ...refuse(unknownGatewayError(lookup.name), foreignReason(workload)),
        missing: gateway,
      };
    case "unroutable":
      return refuse(unroutableError(lookup.workload), "the network gateway has no address");
    case "found":
      break;
  }
  const { workload: hop, port, identities } = lookup.upstream;
  return atAddress(lookup.upstream, (ip) => ({
    kind: "hbone",
    remote: { ip, port },
    authority: formatHostPort(service.hostname, target.port),
    expected: identities,
    workload: hop,
    service,
    upstream: lookup.upstream,
    hop: "network gateway",
    beyond: {
      workload,
      upstream,
      expected: serving === undefined ? [] : serviceIdentities(serving.service),
    },
    reason: `${foreignReason(workload)}, behind network gateway ${hop.name}`,
  }));
}

/** At once where the upstream has an address, when its host name was looked up where it has none. */
function atAddress(
  { ip, family, workload }: Upstream,
  at: (ip: IpAddress) => ResolvedRoute,
): OutboundRoute {
  if (ip !== undefined) return at(ip);
  if (workload.hostname === "") {
    return refuse(unroutableError(workload), "the workload has no address");
  }
  const reason = `workload ${workload.name} is known by its host name ${workload.hostname} only`;
  return { kind: "unresolved", workload, family, at, reason };
}

function routeDirectly(upstream: Upstream, ip: IpAddress): ResolvedRoute {
  const { workload, port } = upstream;
  const service = upstream.service?.service;
  const destination: SocketAddress = { ip, port };
  switch (workload.protocol) {
    case "TCP":
      return {
        kind: "tcp",
        remote: destination,
        workload,
        service,
        upstream,
        reason: `workload ${workload.name} does not speak HBONE`,
      };
    case "HBONE":
      return {
        kind: "hbone",
        remote: { ip, port: HBONE_PORT },
        authority: formatSocketAddress(destination),
        expected: upstream.identities,
        workload,
        service,
        upstream,
        hop: "destination",
        beyond: undefined,
        reason: `workload ${workload.name} speaks HBONE`,
      };
  }
}

function passThrough(target: SocketAddress, service: Service | undefined): OutboundRoute {
  return {
    kind: "tcp",
    remote: target,
    workload: undefined,
    service: undefined,
    upstream: undefined,
    reason:
      service === undefined
        ? `the mesh does not know ${target.ip}`
        : `service ${service.hostname} passes connections through`,
  };
}

function refuse(error: ProxyError, reason: string): RefusedRoute {
  return { kind: "refuse", error, reason };
}

/** A network's name may be empty. */
function foreignReason({ name, network }: Workload): string {
  return `workload ${name} is on network "${network}"`;
}
