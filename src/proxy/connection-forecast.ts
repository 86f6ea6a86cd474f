/**
 * What would become of a connection: the route that this node would choose and how the policies of
 * the destination, as this node knows them, would judge it. Plain text all through, for operators.
 */
import type { RbacConnection } from "../mesh/authorization.ts";
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import { type IpAddress, isLoopback } from "../mesh/ip-address.ts";
import { serviceKey } from "../mesh/service.ts";
import {
  formatSocketAddress,
  parseSocketAddress,
  type SocketAddress,
} from "../mesh/socket-address.ts";
import { type Workload, workloadIdentity } from "../mesh/workload.ts";
import { evaluatePolicies } from "../rbac/evaluate.ts";
import { explainPolicy, type PolicyExplanation } from "../rbac/policy-explanation.ts";
import type { Random } from "../runtime/random.ts";
import { formatTimestamp } from "../runtime/timestamp.ts";
import type { OutlierView, ThreadOutlier } from "../state/endpoint-outliers.ts";
import type { MeshState } from "../state/mesh-state.ts";
import type { SessionAffinity } from "../state/session-affinity.ts";
import { findUpstream } from "../state/upstream.ts";
import { chooseOutboundRoute, type HboneRoute, type OutboundRoute } from "./outbound-route.ts";

export interface ForecastQuery {
  readonly source: {
    /** `undefined`: the mesh does not know the address. */
    readonly workload: Workload | undefined;
    readonly ip: IpAddress;
  };
  readonly target: SocketAddress;
  /** Our own network. */
  readonly network: string;
  readonly illegalPorts: ReadonlySet<number>;
  readonly unknownPolicy: "deny" | "allow";
  /** Endpoints that are left out now. */
  readonly outliers: OutlierView & { all(): readonly ThreadOutlier[] };
  readonly affinity: SessionAffinity;
  /** Whether a proxy takes what the workload sends and what comes to it, as far as is known here. */
  isCaptured(workload: Workload): boolean;
}

/** An endpoint that the choice passes over. */
export interface ForecastOutlier extends Pick<ThreadOutlier, "workload" | "failures" | "thread"> {
  /** Of the service. */
  readonly port: number;
  /** When it is taken back, in RFC 3339. */
  readonly until: string;
}

/** One way of several where endpoints or waypoints are chosen by weight. */
export interface ForecastRoute {
  /**
   * `plain`: the source is not captured, and its connection arrives as it is. `loopback`: the
   * connection stays in the source's pod, where redirect rules leave it alone.
   */
  readonly kind: OutboundRoute["kind"] | "plain" | "loopback";
  readonly reason: string;
  /** Why it is refused. */
  readonly error?: string;
  /** Where the connection or its tunnel goes. */
  readonly remote?: string;
  /** What the tunnel's far end is asked to connect to. */
  readonly authority?: string;
  /** SPIFFE IDs, one of which the tunnel's far end must prove. */
  readonly expected?: readonly string[];
  /** `namespace/name` of whom it goes to. */
  readonly workload?: string;
  /** The same where that is a waypoint. */
  readonly waypoint?: string;
  /** The same where that is a network gateway. */
  readonly gateway?: string;
  /** SPIFFE IDs, one of which the peer behind that gateway must prove; none: it is refused. */
  readonly expectedBeyond?: readonly string[];
  /** Host name of the service that was asked for. */
  readonly service?: string;
  /** Endpoints of the service, or of the waypoint's, to which connects failed. */
  readonly leftOut?: readonly ForecastOutlier[];
  /** Where the client's connections stay with one endpoint. */
  readonly affinity?: {
    /** After its last connection. */
    readonly seconds: number;
    /** Whether it is there because it was there; else because its address leads there. */
    readonly kept: boolean;
  };
}

export interface ForecastJudgement {
  /** `namespace/name`, and the node whose proxy judges. */
  readonly workload: string;
  readonly node: string;
  /** SPIFFE ID by which the connection comes; `null`: it has none. */
  readonly identity: string | null;
  readonly verdict: "allow" | "deny";
  /** Of a denial, as in the access log. */
  readonly reason?: string;
  readonly policies: readonly PolicyExplanation[];
  /** Policies that the workload names and nobody has sent. */
  readonly unknown: readonly string[];
}

export interface ConnectionForecast {
  readonly route: ForecastRoute;
  /** `undefined`: no proxy of the mesh judges, or one in another network. */
  readonly judgement: ForecastJudgement | undefined;
}

export function forecastConnection(
  state: MeshState,
  query: ForecastQuery,
  random: Random,
): ConnectionForecast {
  const { workload, ip } = query.source;
  if (workload === undefined || !query.isCaptured(workload)) return forecastPlain(state, query);
  const { target, illegalPorts } = query;
  const isOwn = target.ip === ip || workload.ips.includes(target.ip) || isLoopback(target.ip);
  // On those ports we listen ourselves, also on its loopback.
  return isOwn && !illegalPorts.has(target.port)
    ? forecastLoopback(workload, target)
    : forecastCaptured(state, query, workload, random);
}

function forecastLoopback(source: Workload, target: SocketAddress): ConnectionForecast {
  const reason = `${target.ip} is an address of the pod itself, what goes there is not captured`;
  const remote = formatSocketAddress(target);
  return {
    route: { kind: "loopback", reason, remote, workload: nameOf(source) },
    judgement: undefined,
  };
}

function forecastCaptured(
  state: MeshState,
  query: ForecastQuery,
  source: Workload,
  random: Random,
): ConnectionForecast {
  const { target, network, illegalPorts, outliers, affinity: sessions } = query;
  const downstream = query.source.ip;
  const route = chooseOutboundRoute(
    state,
    {
      source,
      downstream,
      target,
      network,
      illegalPorts,
      bias: { outliers, affinity: { sessions, client: downstream } },
    },
    random,
  );
  return {
    route: {
      ...describeRoute(route),
      ...describeOutliers(route, outliers.all()),
      ...describeAffinity(route, sessions, downstream),
    },
    judgement: judgeRoute(state, query, { source, route }, random),
  };
}

/** @returns `undefined` where nobody judges, or others by what this node is not told. */
function judgeRoute(
  state: MeshState,
  query: ForecastQuery,
  { source, route }: { readonly source: Workload; readonly route: OutboundRoute },
  random: Random,
): ForecastJudgement | undefined {
  const downstream = query.source.ip;
  if (route.kind === "tcp") {
    const { workload, remote } = route;
    // A service leads the pod to itself: what it sends to its own address stays on its loopback.
    const isJudged = workload && workload.uid !== source.uid && query.isCaptured(workload);
    if (!isJudged) return undefined;
    return judge(state, query, { workload, address: remote }, { ip: downstream });
  }
  // Who stands beyond a network gateway is not of this node's network.
  if (route.kind !== "hbone" || route.hop === "network gateway") return undefined;
  const address = parseSocketAddress(route.authority);
  if (address === undefined) return undefined;
  if (route.hop === "destination") {
    const identity = workloadIdentity(source);
    return judge(state, query, { workload: route.workload, address }, { ip: downstream, identity });
  }
  return judgeBehindWaypoint(state, query, route.workload, random);
}

/** The waypoint judges by itself, then comes to the destination as its own caller. */
function judgeBehindWaypoint(
  state: MeshState,
  query: ForecastQuery,
  waypoint: Workload,
  random: Random,
): ForecastJudgement | undefined {
  const { network, target } = query;
  const behind = findUpstream(
    state,
    { network, source: waypoint, target, mode: "standard" },
    random,
  );
  // One that is known by its host name only has no proxy.
  if (behind.kind !== "found" || behind.upstream.ip === undefined) return undefined;
  const { workload, port, ip } = behind.upstream;
  const caller = {
    ip: waypoint.ips[0] ?? query.source.ip,
    identity: workloadIdentity(waypoint),
  };
  return judge(state, query, { workload, address: { ip, port } }, caller);
}

/** From outside the mesh: where the network takes it, and whether a proxy takes it there. */
function forecastPlain(state: MeshState, query: ForecastQuery): ConnectionForecast {
  const { source, target, network } = query;
  const known = state.findServiceByVip(network, target.ip, undefined);
  const endpoint = known && [...known.endpoints.values()][0];
  const port =
    known && endpoint?.services.get(`${known.service.namespace}/${known.service.hostname}`);
  const workload = known ? endpoint : state.findWorkloadByAddress(network, target.ip);
  const ip = endpoint?.ips[0] ?? target.ip;
  const address = { ip, port: port?.get(target.port) ?? target.port };
  const reason = source.workload
    ? `workload ${source.workload.name} is not in the mesh`
    : `the mesh does not know ${source.ip}`;
  return {
    route: {
      kind: "plain",
      reason,
      remote: formatSocketAddress(address),
      ...(workload && { workload: nameOf(workload) }),
      ...(known && { service: known.service.hostname }),
    },
    judgement:
      workload !== undefined && query.isCaptured(workload)
        ? judge(state, query, { workload, address }, { ip: source.ip })
        : undefined,
  };
}

function judge(
  state: MeshState,
  { network, unknownPolicy }: ForecastQuery,
  at: { readonly workload: Workload; readonly address: SocketAddress },
  by: { readonly ip: IpAddress; readonly identity?: Identity },
): ForecastJudgement {
  const { workload, address } = at;
  const connection: RbacConnection = {
    // Policies do not look at it.
    source: { ip: by.ip, port: 0 },
    sourceIdentity: by.identity,
    destination: address,
    destinationNetwork: network,
  };
  const { policies, unknown } = state.policiesFor(workload);
  const verdict = evaluatePolicies(policies, connection);
  const isUnknownDenied = unknown.length > 0 && unknownPolicy === "deny";
  const reason = isUnknownDenied
    ? `unknown policy: ${unknown.join(", ")}`
    : verdict.kind === "deny" && verdict.reason;
  return {
    workload: nameOf(workload),
    node: workload.node,
    identity: by.identity ? formatSpiffeId(by.identity) : null,
    verdict: reason === false ? "allow" : "deny",
    ...(reason !== false && { reason }),
    policies: policies.map((policy) => explainPolicy(policy, connection)),
    unknown,
  };
}

/** As what a route names whom it goes to. */
const HOP_NAMES: Readonly<
  Record<
    HboneRoute["hop"],
    (name: string) => Pick<ForecastRoute, "workload" | "waypoint" | "gateway">
  >
> = {
  destination: (workload) => ({ workload }),
  waypoint: (waypoint) => ({ waypoint }),
  "network gateway": (gateway) => ({ gateway }),
};

function describeRoute(route: OutboundRoute): ForecastRoute {
  const { kind, reason } = route;
  switch (route.kind) {
    case "refuse":
      return { kind, reason, error: route.error.message };
    case "unresolved":
      return { kind, reason, workload: nameOf(route.workload) };
    case "tcp":
      return {
        kind,
        reason,
        remote: formatSocketAddress(route.remote),
        ...(route.workload && { workload: nameOf(route.workload) }),
        ...(route.service && { service: route.service.hostname }),
      };
    case "hbone": {
      const name = nameOf(route.workload);
      return {
        kind,
        reason,
        remote: formatSocketAddress(route.remote),
        authority: route.authority,
        expected: route.expected.map(formatSpiffeId),
        ...HOP_NAMES[route.hop](name),
        ...(route.beyond && {
          workload: nameOf(route.beyond.workload),
          expectedBeyond: route.beyond.expected.map(formatSpiffeId),
        }),
        ...(route.service && { service: route.service.hostname }),
      };
    }
  }
}

function describeOutliers(
  route: OutboundRoute,
  outliers: readonly ThreadOutlier[],
): Pick<ForecastRoute, "leftOut"> {
  if (route.kind !== "tcp" && route.kind !== "hbone") return {};
  const known = route.upstream?.service;
  const key = known && serviceKey(known.service);
  const leftOut = outliers.flatMap(({ service, workload, port, failures, thread, until }) =>
    service === key ? [{ workload, port, failures, thread, until: formatTimestamp(until) }] : [],
  );
  return leftOut.length === 0 ? {} : { leftOut };
}

function describeAffinity(
  route: OutboundRoute,
  sessions: SessionAffinity,
  client: IpAddress,
): Pick<ForecastRoute, "affinity"> {
  if (route.kind !== "tcp" && route.kind !== "hbone") return {};
  const { service: known, workload } = route.upstream ?? {};
  const seconds = known && sessions.seconds(known.service);
  if (known === undefined || workload === undefined || seconds === undefined) return {};
  return { affinity: { seconds, kept: sessions.isAt(known.service, client, workload) } };
}

function nameOf({ namespace, name }: Workload): string {
  return `${namespace}/${name}`;
}
