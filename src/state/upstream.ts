/**
 * From the address that was dialled to the workload that serves it.
 *
 * @see spec data-path 2.3 and control-plane 3.5.
 */
import type { Identity } from "../mesh/identity.ts";
import { type IpAddress, ipFamily } from "../mesh/ip-address.ts";
import type { IpFamilies } from "../mesh/service.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Random } from "../runtime/random.ts";
import { chooseEndpoint, type EndpointQuery, type UpstreamMode } from "./load-balancer.ts";
import type { ChosenEndpoint, KnownService, MeshState } from "./mesh-state.ts";

/** A workload chosen to serve one connection. */
export interface Upstream extends ChosenEndpoint {
  /** The workload's own port. */
  readonly port: number;
  /** `undefined`: its host name has to be looked up, or without one its network gateway reaches it. */
  readonly ip: IpAddress | undefined;
  /** Of the address that was asked for; a host name's addresses of this family come first. */
  readonly family: 4 | 6;
  /** Whom the peer may prove to be: the service's names, then the workload itself. */
  readonly identities: readonly Identity[];
}

export type UpstreamLookup =
  | { readonly kind: "found"; readonly upstream: Upstream }
  /** The service wants its connections to go where they were sent. */
  | { readonly kind: "original-destination" }
  /** Nothing known there, or a service with no endpoint for the port. */
  | { readonly kind: "none" }
  /** Known, but without an address to connect to. */
  | { readonly kind: "unroutable"; readonly workload: Workload };

export interface UpstreamQuery {
  readonly network: string;
  readonly source: Workload;
  readonly target: SocketAddress;
  readonly mode: UpstreamMode;
  readonly bias?: EndpointQuery["bias"];
}

/** Looks for a service with that address first, for a workload second. */
export function findUpstream(
  state: MeshState,
  query: UpstreamQuery,
  random: Random,
): UpstreamLookup {
  const { network, source, target, mode, bias } = query;
  const known = state.findServiceByVip(network, target.ip, source.namespace);
  if (known !== undefined) {
    if (known.service.loadBalancer?.mode === "Passthrough") return { kind: "original-destination" };
    return findServiceUpstream(
      state,
      { known, source, target, port: target.port, mode, bias },
      random,
    );
  }
  const workload = state.findWorkloadByAddress(network, target.ip);
  if (workload === undefined) return { kind: "none" };
  const { port } = target;
  return reachWorkload(state, { workload, port, servicePort: port, service: undefined, target });
}

/** Chooses an endpoint of a service that is already known. */
export function findServiceUpstream(
  state: MeshState,
  query: {
    readonly known: KnownService;
    readonly source: Workload;
    /** Its address family is preferred. */
    readonly target: SocketAddress;
    /** Port of the service. */
    readonly port: number;
    readonly mode: UpstreamMode;
    readonly bias: EndpointQuery["bias"];
  },
  random: Random,
): UpstreamLookup {
  const { known, target, port: servicePort } = query;
  const chosen = chooseEndpoint(known, query, random);
  if (chosen === undefined) return { kind: "none" };
  return reachWorkload(state, { ...chosen, servicePort, service: known, target });
}

/** The workload at the address that suits the target best. */
export function reachWorkload(
  state: MeshState,
  reached: Pick<Upstream, "workload" | "port" | "servicePort" | "service"> & {
    readonly target: SocketAddress;
  },
): UpstreamLookup {
  const { workload, port, servicePort, service, target } = reached;
  const family = ipFamily(target.ip);
  const families = service?.service.ipFamilies ?? "Automatic";
  const ip = workload.ips.includes(target.ip)
    ? target.ip
    : chooseAddress(workload, families, family);
  const isRoutable =
    ip !== undefined || workload.hostname !== "" || workload.networkGateway !== undefined;
  if (!isRoutable) return { kind: "unroutable", workload };
  const identities = state.identitiesOf(workload, service);
  return {
    kind: "found",
    upstream: { workload, port, servicePort, ip, family, service, identities },
  };
}

/** The first of the family asked for, else the first that the service allows. */
function chooseAddress(
  workload: Workload,
  families: IpFamilies,
  family: 4 | 6,
): IpAddress | undefined {
  let first: IpAddress | undefined;
  for (const ip of workload.ips) {
    if (!allowsFamily(families, ipFamily(ip))) continue;
    if (ipFamily(ip) === family) return ip;
    first ??= ip;
  }
  return first;
}

function allowsFamily(families: IpFamilies, family: 4 | 6): boolean {
  switch (families) {
    case "Automatic":
    case "Dual":
      return true;
    case "IPv4":
      return family === 4;
    case "IPv6":
      return family === 6;
  }
}
