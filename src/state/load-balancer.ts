/**
 * Which endpoint of a service serves a connection: who can, who is near enough, then by weight.
 *
 * @see spec data-path 2.3 and control-plane 3.5.
 */
import type { LoadBalancer, LoadBalancingScope } from "../mesh/service.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Random } from "../runtime/random.ts";
import type { Endpoint, ReadonlyEndpointSet } from "./endpoint-set.ts";
import type { KnownService } from "./service-store.ts";

/** When this many draws in a row hit nothing usable, all endpoints are looked at. */
const DRAWS_MAX = 4;

/** A waypoint may listen on a port that its service does not list. */
export type UpstreamMode = "standard" | "waypoint";

export interface EndpointQuery {
  readonly source: Workload;
  /** Port of the service. */
  readonly port: number;
  readonly mode: UpstreamMode;
}

/** An endpoint with the port to connect to. */
export interface ChosenEndpoint {
  readonly workload: Workload;
  readonly port: number;
}

/** @returns `undefined` when no endpoint can serve the port. */
export function chooseEndpoint(
  known: KnownService,
  findWorkload: (uid: string) => Workload | undefined,
  query: EndpointQuery,
  random: Random,
): ChosenEndpoint | undefined {
  const { service } = known;
  if (query.mode === "standard" && !service.ports.has(query.port)) return undefined;
  const usable = (endpoint: Endpoint): ChosenEndpoint | undefined => {
    const workload = findWorkload(endpoint.workloadUid);
    if (workload === undefined || !isReachable(workload, query.source)) return undefined;
    const port = targetPort(known, endpoint, workload, query);
    return port === undefined ? undefined : { workload, port };
  };
  if (known.endpoints.isEven && !prefersNear(service.loadBalancer)) {
    const drawn = drawUsable(known.endpoints, usable, random);
    if (drawn !== undefined) return drawn;
  }
  let candidates: ChosenEndpoint[] = [];
  let candidatesRank = 0;
  for (const endpoint of known.endpoints.values()) {
    const candidate = usable(endpoint);
    if (candidate === undefined) continue;
    const rank = localityRank(service.loadBalancer, query.source, candidate.workload);
    if (rank < candidatesRank) continue;
    if (rank > candidatesRank) {
      candidates = [];
      candidatesRank = rank;
    }
    candidates.push(candidate);
  }
  return chooseWeighted(candidates, ({ workload }) => workload.capacity, random);
}

/**
 * Draws among endpoints of the same weight without looking at all of them: mostly the first will do,
 * and every usable one is as likely as any other.
 *
 * @returns `undefined` when the draws hit none that is usable.
 */
function drawUsable(
  endpoints: ReadonlyEndpointSet,
  usable: (endpoint: Endpoint) => ChosenEndpoint | undefined,
  random: Random,
): ChosenEndpoint | undefined {
  for (let i = 0; i < DRAWS_MAX; i++) {
    const endpoint = endpoints.at(Math.floor(random.unit() * endpoints.size));
    const drawn = endpoint && usable(endpoint);
    if (drawn !== undefined) return drawn;
  }
  return undefined;
}

/** An endpoint without an address can only be reached through its network's gateway. */
function isReachable(workload: Workload, source: Workload): boolean {
  if (workload.ips.length > 0 || workload.hostname !== "") return true;
  return workload.network !== source.network && workload.networkGateway !== undefined;
}

/** The endpoint's own port, the service's, or for a tunnelling application the port asked for. */
function targetPort(
  { service }: KnownService,
  endpoint: Endpoint,
  workload: Workload,
  query: EndpointQuery,
): number | undefined {
  const tunnel = workload.applicationTunnel;
  if (query.mode === "waypoint" && !service.ports.has(query.port) && tunnel === undefined) {
    return undefined;
  }
  // A target of 0 is a named port, of which only the endpoint knows the number.
  const target = endpoint.ports.get(query.port) || service.ports.get(query.port);
  if (target !== undefined && target > 0) return target;
  const isTunnel = query.mode === "waypoint" && tunnel?.port !== undefined;
  return isTunnel ? query.port : undefined;
}

/**
 * How near an endpoint is: the number of leading preferences that it shares with the source.
 *
 * @returns -1 when it must not be used.
 */
function localityRank(
  loadBalancer: LoadBalancer | undefined,
  source: Workload,
  workload: Workload,
): number {
  if (loadBalancer === undefined || !prefersNear(loadBalancer)) return 0;
  const { mode, routingPreferences: preferences } = loadBalancer;
  const networkFirst = preferences[0] === "Network";
  let rank = 0;
  for (const scope of preferences) {
    if (sharesScope(scope, source, workload)) rank++;
    else if (!(networkFirst && scope === "Network")) break;
  }
  if (mode === "Strict" && rank !== preferences.length) return -1;
  // Any endpoint of our network is nearer than the nearest of another.
  const boosted = networkFirst && source.network === workload.network;
  return boosted ? rank + preferences.length - 1 : rank;
}

/** Whether it matters where an endpoint is. */
function prefersNear(loadBalancer: LoadBalancer | undefined): boolean {
  return loadBalancer?.mode === "Strict" || loadBalancer?.mode === "Failover";
}

function sharesScope(scope: LoadBalancingScope, source: Workload, workload: Workload): boolean {
  switch (scope) {
    case "Region":
      return source.locality.region === workload.locality.region;
    case "Zone":
      return source.locality.zone === workload.locality.zone;
    case "Subzone":
      return source.locality.subzone === workload.locality.subzone;
    case "Node":
      return source.node === workload.node;
    case "Cluster":
      return source.clusterId === workload.clusterId;
    case "Network":
      return source.network === workload.network;
  }
}

/** One item in proportion to its weight. @returns `undefined` when there is no weight at all. */
export function chooseWeighted<Item>(
  items: readonly Item[],
  weightOf: (item: Item) => number,
  random: Random,
): Item | undefined {
  let total = 0;
  for (const item of items) total += weightOf(item);
  if (total <= 0) return undefined;
  let left = random.unit() * total;
  for (const item of items) {
    left -= weightOf(item);
    if (left < 0) return item;
  }
  return undefined;
}
