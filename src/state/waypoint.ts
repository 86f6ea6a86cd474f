/**
 * Which waypoint stands before a destination, or gateway before its network, and where it is.
 *
 * @see spec data-path 2.4 to 2.6.
 */
import {
  formatNetworkAddress,
  type GatewayAddress,
  type NamespacedHostname,
} from "../mesh/gateway-address.ts";
import { sameIdentity } from "../mesh/identity.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { Service } from "../mesh/service.ts";
import { formatHostPort, type SocketAddress } from "../mesh/socket-address.ts";
import { type Workload, workloadIdentity } from "../mesh/workload.ts";
import type { Random } from "../runtime/random.ts";
import { chooseWeighted, type EndpointQuery, type UpstreamMode } from "./load-balancer.ts";
import type { KnownService, MeshState } from "./mesh-state.ts";
import {
  findServiceUpstream,
  findUpstream,
  reachWorkload,
  type Upstream,
  type UpstreamLookup,
} from "./upstream.ts";

export interface GatewayQuery {
  readonly gateway: GatewayAddress;
  readonly source: Workload;
  /** Where the connection was going; a gateway found by name is reached in its family. */
  readonly target: SocketAddress;
  readonly bias?: EndpointQuery["bias"];
}

export type GatewayLookup =
  | { readonly kind: "found"; readonly upstream: Upstream }
  /** `name` is the host name or address under which nobody was found. */
  | { readonly kind: "missing"; readonly name: string }
  | { readonly kind: "unroutable"; readonly workload: Workload };

/** What a gateway address names. */
export type GatewayDestination =
  | { readonly kind: "service"; readonly known: KnownService }
  | { readonly kind: "workload"; readonly workload: Workload };

/**
 * The waypoint for one connection to a service: one of the weighted ones, else the single one.
 *
 * @returns `undefined` when connections go to the service directly.
 */
export function chooseServiceWaypoint(
  service: Service,
  random: Random,
): GatewayAddress | undefined {
  const weighted = chooseWeighted(service.weightedWaypoints, ({ weight }) => weight, random);
  return weighted?.destination ?? service.waypoint;
}

/** Finds the workload that serves as the waypoint. */
export function findWaypoint(state: MeshState, query: GatewayQuery, random: Random): GatewayLookup {
  return findGateway(state, query, "waypoint", random);
}

/** Finds the workload that leads into another network. */
export function findNetworkGateway(
  state: MeshState,
  query: GatewayQuery,
  random: Random,
): GatewayLookup {
  return findGateway(state, query, "standard", random);
}

function findGateway(
  state: MeshState,
  query: GatewayQuery,
  mode: UpstreamMode,
  random: Random,
): GatewayLookup {
  const { gateway, source, bias } = query;
  const { destination, hboneMtlsPort: port } = gateway;
  const lookup =
    destination.kind === "address"
      ? findUpstream(
          state,
          {
            network: destination.network,
            source,
            target: { ip: destination.ip, port },
            mode,
            bias,
          },
          random,
        )
      : findByHostname(state, { ...query, host: destination, port, mode }, random);
  switch (lookup.kind) {
    case "found":
    case "unroutable":
      return lookup;
    case "none":
    case "original-destination":
      return { kind: "missing", name: gatewayName(gateway) };
  }
}

/** The service or workload that a gateway address names, before any choice of an endpoint. */
export function findGatewayDestination(
  state: MeshState,
  gateway: GatewayAddress,
): GatewayDestination | undefined {
  const { destination } = gateway;
  if (destination.kind === "hostname") {
    const { namespace, hostname } = destination;
    const known = state.findService(namespace, hostname);
    if (known !== undefined) return { kind: "service", known };
    return asDestination(state.findWorkloadByHostname(namespace, hostname));
  }
  const { network, ip } = destination;
  const workload = state.findWorkloadByAddress(network, ip);
  if (workload !== undefined) return { kind: "workload", workload };
  const known = state.findServiceByVip(network, ip, undefined);
  return known === undefined ? undefined : { kind: "service", known };
}

/**
 * True when the connection comes from the workload's own waypoint, which must not be sent back to
 * itself.
 *
 * @param source the local workload, whose client sits at the address `downstream`.
 */
export function isOwnWaypoint(
  state: MeshState,
  workload: Workload,
  source: Workload,
  downstream: IpAddress,
): boolean {
  if (workload.waypoint === undefined) return false;
  const isSource = (candidate: Workload | undefined): boolean =>
    candidate?.ips.includes(downstream) === true &&
    sameIdentity(workloadIdentity(candidate), workloadIdentity(source));
  const destination = findGatewayDestination(state, workload.waypoint);
  switch (destination?.kind) {
    case undefined:
      return false;
    case "workload":
      return isSource(destination.workload);
    case "service":
      return [...destination.known.endpoints.values()].some(isSource);
  }
}

function findByHostname(
  state: MeshState,
  query: GatewayQuery & {
    readonly host: NamespacedHostname;
    readonly port: number;
    readonly mode: UpstreamMode;
  },
  random: Random,
): UpstreamLookup {
  const { host, port, source, target, mode, bias } = query;
  const known = state.findService(host.namespace, host.hostname);
  if (known !== undefined) {
    return findServiceUpstream(state, { known, source, target, port, mode, bias }, random);
  }
  const workload = state.findWorkloadByHostname(host.namespace, host.hostname);
  if (workload === undefined) return { kind: "none" };
  return reachWorkload(state, { workload, port, servicePort: port, service: undefined, target });
}

function gatewayName({ destination, hboneMtlsPort }: GatewayAddress): string {
  return destination.kind === "hostname"
    ? destination.hostname
    : formatNetworkAddress(destination.network, formatHostPort(destination.ip, hboneMtlsPort));
}

function asDestination(workload: Workload | undefined): GatewayDestination | undefined {
  return workload === undefined ? undefined : { kind: "workload", workload };
}
