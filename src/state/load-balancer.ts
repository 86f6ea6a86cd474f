/**
 * Which endpoint of a service serves a connection: who can, who is near enough, then by weight.
 *
 * @see spec data-path 2.3 and control-plane 3.5.
 */
import type { IpAddress } from "../mesh/ip-address.ts";
import {
  LOAD_BALANCING_SCOPES,
  type LoadBalancingScope,
  placeIn,
} from "../mesh/load-balancing-scope.ts";
import { type LoadBalancer, type Service, serviceKey } from "../mesh/service.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Random } from "../runtime/random.ts";
import type { OutlierView } from "./endpoint-outliers.ts";
import type { KnownService } from "./mesh-state.ts";
import type { ServiceEndpoints } from "./service-endpoints.ts";
import type { ClientPreference, SessionAffinity } from "./session-affinity.ts";

/** When this many draws in a row hit nothing usable, all endpoints are looked at. */
const DRAWS_MAX = 4;
/** The rank of an endpoint that must not be used. */
const NEVER = -1;

/** A waypoint may listen on a port that its service does not list. */
export type UpstreamMode = "standard" | "waypoint";

export interface EndpointQuery {
  readonly source: Workload;
  /** Port of the service. */
  readonly port: number;
  readonly mode: UpstreamMode;
  readonly bias?: EndpointBias | undefined;
}

/** What is known of endpoints besides what the mesh says. */
export interface EndpointBias {
  /** Uids of those that this connection has tried in vain: they are passed over. */
  readonly tried?: ReadonlySet<string> | undefined;
  /** Who is passed over while others are there. */
  readonly outliers?: OutlierView | undefined;
  /** Whose connection it is, where services keep a client at an endpoint. */
  readonly affinity?:
    | { readonly sessions: SessionAffinity; readonly client: IpAddress }
    | undefined;
}

/** An endpoint with the port to connect to. */
export interface ChosenEndpoint {
  readonly workload: Workload;
  readonly port: number;
}

/** @returns `undefined` when no endpoint can serve the port. */
export function chooseEndpoint(
  known: KnownService,
  query: EndpointQuery,
  random: Random,
): ChosenEndpoint | undefined {
  const { service } = known;
  if (query.mode === "standard" && !service.ports.has(query.port)) return undefined;
  const leftOut = query.bias?.outliers?.leftOut(service, query.port);
  if (leftOut !== undefined) {
    const chosen = chooseAmong(known, query, leftOut, random);
    if (chosen !== undefined) return chosen;
    // Better one that failed lately than none.
  }
  return chooseAmong(known, query, undefined, random);
}

function chooseAmong(
  known: KnownService,
  query: EndpointQuery,
  leftOut: ReadonlySet<string> | undefined,
  random: Random,
): ChosenEndpoint | undefined {
  const { service, endpoints } = known;
  const { tried, affinity } = query.bias ?? {};
  const usable = (workload: Workload | undefined): ChosenEndpoint | undefined => {
    if (workload === undefined || !isReachable(workload, query.source)) return undefined;
    if (tried?.has(workload.uid) || leftOut?.has(workload.uid)) return undefined;
    const port = targetPort(service, workload, query);
    return port === undefined ? undefined : { workload, port };
  };
  const preference = affinity?.sessions.preference(service, affinity.client);
  if (preference === undefined && endpoints.isEven && !prefersNear(service.loadBalancer)) {
    const drawn = drawUsable(endpoints, usable, random);
    if (drawn !== undefined) return drawn;
  }
  return chooseSurveyed(known, { source: query.source, usable, preference }, random);
}

/**
 * Draws among endpoints of the same weight without looking at all of them: mostly the first will do,
 * and every usable one is as likely as any other.
 *
 * @returns `undefined` when the draws hit none that is usable.
 */
function drawUsable(
  endpoints: ServiceEndpoints,
  usable: (workload: Workload | undefined) => ChosenEndpoint | undefined,
  random: Random,
): ChosenEndpoint | undefined {
  const { size } = endpoints;
  for (let i = 0; i < DRAWS_MAX; i++) {
    const drawn = usable(endpoints.at(Math.floor(random.unit() * size)));
    if (drawn !== undefined) return drawn;
  }
  return undefined;
}

/**
 * Ranks all endpoints by what can be told of them without decoding them, then draws among the nearest,
 * or takes the one that the client prefers.
 * One that turns out to be of no use is put aside and the draw repeated, which leaves every usable one
 * its share.
 */
function chooseSurveyed(
  { service: { loadBalancer }, endpoints }: KnownService,
  choice: {
    readonly source: Workload;
    readonly usable: (workload: Workload | undefined) => ChosenEndpoint | undefined;
    readonly preference: ClientPreference | undefined;
  },
  random: Random,
): ChosenEndpoint | undefined {
  const { source, usable, preference } = choice;
  const { refs, capacities, shared } = endpoints.survey(source);
  const rankOf = ranksOf(loadBalancer);
  const capacityOf = (number: number): number => capacities[number] as number;
  const draw =
    preference === undefined
      ? (among: readonly number[]) => chooseWeighted(among, capacityOf, random)
      : preferring(preference, endpoints.uidHashes(refs), capacityOf);
  /** Rank → numbers of the endpoints. */
  const byRank = new Map<number, number[]>();
  for (const [number, mask] of shared.entries()) {
    const rank = rankOf(mask);
    const same = byRank.get(rank);
    if (same === undefined) byRank.set(rank, [number]);
    else same.push(number);
  }
  byRank.delete(NEVER);
  for (const rank of [...byRank.keys()].sort((a, b) => b - a)) {
    const load = (number: number): ChosenEndpoint | undefined => {
      const workload = endpoints.load(refs[number] as number);
      const isSure =
        workload !== undefined &&
        rank === localityRank(loadBalancer, (scope) => isAlike(scope, source, workload));
      return isSure ? usable(workload) : undefined;
    };
    let left = byRank.get(rank) ?? [];
    for (;;) {
      const number = draw(left);
      if (number === undefined) break;
      const chosen = load(number);
      if (chosen !== undefined) return chosen;
      left = left.filter((other) => other !== number);
    }
    // The nearest that can be reached decide, also when none of them wants a connection.
    if (left.some((number) => load(number) !== undefined)) return undefined;
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
  service: Service,
  workload: Workload,
  query: EndpointQuery,
): number | undefined {
  const tunnel = workload.applicationTunnel;
  if (query.mode === "waypoint" && !service.ports.has(query.port) && tunnel === undefined) {
    return undefined;
  }
  // A target of 0 is a named port, of which only the endpoint knows the number.
  const own = workload.services.get(serviceKey(service))?.get(query.port);
  const target = own || service.ports.get(query.port);
  if (target !== undefined && target > 0) return target;
  const isTunnel = query.mode === "waypoint" && tunnel?.port !== undefined;
  return isTunnel ? query.port : undefined;
}

/**
 * How near an endpoint is: the number of leading preferences that it shares with the source.
 *
 * @returns {@link NEVER} when it must not be used.
 */
function localityRank(
  loadBalancer: LoadBalancer | undefined,
  shares: (scope: LoadBalancingScope) => boolean,
): number {
  if (loadBalancer === undefined || !prefersNear(loadBalancer)) return 0;
  const { mode, routingPreferences: preferences } = loadBalancer;
  const networkFirst = preferences[0] === "Network";
  let rank = 0;
  for (const scope of preferences) {
    if (shares(scope)) rank++;
    else if (!(networkFirst && scope === "Network")) break;
  }
  if (mode === "Strict" && rank !== preferences.length) return NEVER;
  // Any endpoint of our network is nearer than the nearest of another.
  return networkFirst && shares("Network") ? rank + preferences.length - 1 : rank;
}

/** {@link localityRank} by the bits of a survey. */
function ranksOf(loadBalancer: LoadBalancer | undefined): (shared: number) => number {
  const ranks: number[] = [];
  return (shared) => {
    ranks[shared] ??= localityRank(loadBalancer, (scope) => {
      return (shared & (1 << LOAD_BALANCING_SCOPES.indexOf(scope))) !== 0;
    });
    return ranks[shared] as number;
  };
}

/** Whether it matters where an endpoint is. */
function prefersNear(loadBalancer: LoadBalancer | undefined): boolean {
  return loadBalancer?.mode === "Strict" || loadBalancer?.mode === "Failover";
}

function isAlike(scope: LoadBalancingScope, source: Workload, workload: Workload): boolean {
  return placeIn(scope, source) === placeIn(scope, workload);
}

function preferring(
  { score }: ClientPreference,
  uidHashes: Uint32Array,
  capacityOf: (number: number) => number,
): (among: readonly number[]) => number | undefined {
  return (among) =>
    chooseBest(among, (number) => score(uidHashes[number] as number, capacityOf(number)));
}

/** The one with the highest score above 0. */
function chooseBest(
  numbers: readonly number[],
  scoreOf: (number: number) => number,
): number | undefined {
  let best: number | undefined;
  let bestScore = 0;
  for (const number of numbers) {
    const score = scoreOf(number);
    if (score > bestScore) [best, bestScore] = [number, score];
  }
  return best;
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
