/**
 * What all workloads have in common, wherever they come from: policies, waypoint, services, tunnel,
 * canonical name.
 *
 * @see istio pilot/pkg/serviceregistry/ambient/workloads.go
 */
import {
  type Locality,
  NetworkMode,
  type Port,
  type PortList,
  TunnelProtocol,
  type Workload as WorkloadMessage,
  WorkloadStatus,
  WorkloadType,
} from "../wire/proto/istio-workload.ts";
import { parseAddress } from "./kubernetes-addresses.ts";
import type { Labels } from "./kubernetes-fields.ts";
import { type KubernetesMetadata, selects } from "./kubernetes-metadata.ts";
import { type NetworkGateway, toGatewayAddress } from "./kubernetes-network-gateways.ts";
import type { WorkloadPolicies } from "./kubernetes-policies.ts";
import type { KnownPort, KnownService } from "./kubernetes-services.ts";
import type { Waypoint, Waypoints } from "./kubernetes-waypoints.ts";

const REDIRECTION_ANNOTATION = "ambient.istio.io/redirection";
const TUNNEL_LABEL = "networking.istio.io/tunnel";
const NAME_LABELS = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
const REVISION_LABELS = [
  "service.istio.io/canonical-revision",
  "app.kubernetes.io/version",
  "version",
];
/** Left out on the wire. */
const DEFAULT_TRUST_DOMAIN = "cluster.local";

/** What workloads take from around them. */
export interface WorkloadSurroundings {
  readonly clusterId: string;
  readonly trustDomain: string;
  readonly clusterDomain: string;
  /** Of the cluster. */
  readonly network: string;
  readonly networkGateways: readonly NetworkGateway[];
  readonly waypoints: Waypoints;
  readonly policies: WorkloadPolicies;
  readonly services: readonly KnownService[];
}

/** One workload, before what is around it is looked at. */
export interface WorkloadSource {
  readonly uid: string;
  /** Its labels are those that policies select. */
  readonly metadata: KubernetesMetadata;
  /** IP addresses in bytes. */
  readonly addresses: readonly Uint8Array[];
  /** Where there is no address. */
  readonly hostname: string;
  readonly network: string;
  readonly serviceAccount: string;
  readonly workloadName: string;
  /** In which a waypoint is looked for; `undefined` when none can stand before the workload. */
  readonly waypointLabels: Labels | undefined;
  readonly services: readonly KnownService[];
  /** The port of the workload; `undefined` when it has none for this one. */
  targetPort(port: KnownPort, service: KnownService): number | undefined;
  readonly locality: Locality | undefined;
  /** 0 is not written. */
  readonly weight: number;
}

export function makeWorkload(
  source: WorkloadSource,
  surroundings: WorkloadSurroundings,
): WorkloadMessage {
  const { metadata, network, waypointLabels } = source;
  const { waypoints, policies } = surroundings;
  const { namespace, labels } = metadata;
  const part = waypointLabels && waypoints.ofPart(namespace, waypointLabels);
  const waypoint =
    waypointLabels && part === undefined
      ? waypoints.forWorkload(namespace, waypointLabels)
      : undefined;
  const gateway = surroundings.networkGateways.find((candidate) => candidate.network === network);
  return {
    ...plainWorkload(surroundings),
    ...tunnelOf(metadata),
    uid: source.uid,
    name: metadata.name,
    namespace,
    addresses: [...source.addresses],
    hostname: source.hostname,
    network,
    networkGateway: gateway && toGatewayAddress(gateway),
    clusterId: surroundings.clusterId,
    serviceAccount: source.serviceAccount,
    waypoint: waypoint?.address,
    applicationTunnel: part?.tunnel,
    workloadName: source.workloadName,
    canonicalName: firstLabel(labels, NAME_LABELS) ?? source.workloadName,
    canonicalRevision: firstLabel(labels, REVISION_LABELS) ?? "latest",
    // Whatever it is: older versions of the proxies know no other word.
    workloadType: WorkloadType.POD,
    authorizationPolicies: [
      ...policies.of(namespace, labels),
      ...policies.ofWaypoints(waypointsBefore(waypoint, source.services)),
    ],
    services: portsBehind(source),
    locality: source.locality,
    capacity: source.weight === 0 ? undefined : source.weight,
  };
}

/** A workload of which nothing is known but its trust domain. */
export function plainWorkload({
  trustDomain,
}: Pick<WorkloadSurroundings, "trustDomain">): WorkloadMessage {
  return {
    uid: "",
    name: "",
    namespace: "",
    addresses: [],
    hostname: "",
    network: "",
    networkGateway: undefined,
    clusterId: "",
    trustDomain: trustDomain === DEFAULT_TRUST_DOMAIN ? "" : trustDomain,
    serviceAccount: "",
    waypoint: undefined,
    applicationTunnel: undefined,
    node: "",
    workloadName: "",
    canonicalName: "",
    canonicalRevision: "",
    workloadType: WorkloadType.DEPLOYMENT,
    tunnelProtocol: TunnelProtocol.NONE,
    nativeTunnel: false,
    authorizationPolicies: [],
    status: WorkloadStatus.HEALTHY,
    services: new Map(),
    locality: undefined,
    networkMode: NetworkMode.STANDARD,
    extensions: [],
    capacity: undefined,
  };
}

/** Services with a selector that the labels fulfil. */
export function selectingServices(
  { namespace, labels }: KubernetesMetadata,
  services: readonly KnownService[],
): readonly KnownService[] {
  return services.filter(
    ({ source, selector }) =>
      source.namespace === namespace && selector.size > 0 && selects(selector, labels),
  );
}

/** An address in the form that {@link WorkloadSource} has for it; another text is a hostname. */
export function addressOrHostname(text: string): Pick<WorkloadSource, "addresses" | "hostname"> {
  const address = parseAddress(text);
  return address === undefined
    ? { addresses: [], hostname: text }
    : { addresses: [address], hostname: "" };
}

/** @returns `namespace/hostname`. */
export function serviceKey({ message }: KnownService): string {
  return `${message.namespace}/${message.hostname}`;
}

function portsBehind(source: WorkloadSource): Map<string, PortList> {
  return new Map(
    source.services.map((service) => {
      const ports = service.ports.flatMap((port): Port[] => {
        const targetPort = source.targetPort(port, service);
        if (targetPort === undefined) return [];
        return [{ servicePort: port.servicePort, targetPort, appProtocol: 0 }];
      });
      return [serviceKey(service), { ports }];
    }),
  );
}

function tunnelOf(
  metadata: KubernetesMetadata,
): Pick<WorkloadMessage, "tunnelProtocol" | "nativeTunnel"> {
  return {
    tunnelProtocol: isTunnelled(metadata) ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
    nativeTunnel: takesTunnels(metadata),
  };
}

/** Whether others are to come to it through tunnels. */
export function isTunnelled(metadata: KubernetesMetadata): boolean {
  return takesTunnels(metadata) || metadata.annotations.get(REDIRECTION_ANNOTATION) === "enabled";
}

/** By itself, without a proxy beside it. */
function takesTunnels({ labels }: KubernetesMetadata): boolean {
  return (labels.get(TUNNEL_LABEL) ?? "").split(",").includes("http");
}

/** Those of the services, then the workload's own, each once. */
function waypointsBefore(
  own: Waypoint | undefined,
  services: readonly KnownService[],
): readonly Waypoint[] {
  const all = [...services.map(({ waypoint }) => waypoint), own];
  const others = all.filter((waypoint) => waypoint !== undefined && waypoint !== own);
  return [...new Set([...others, own])].filter((waypoint) => waypoint !== undefined);
}

function firstLabel(labels: Labels, keys: readonly string[]): string | undefined {
  return keys.map((key) => labels.get(key)).find((value) => value !== undefined);
}
