/**
 * Waypoints: gateways that stand before services or workloads, and who stands behind which.
 *
 * istiod gives a waypoint its address when the first of its pods is ready and never takes it away. A
 * file has no past, so here it has an address as soon as its service is there.
 *
 * @see istio pilot/pkg/serviceregistry/ambient/waypoints.go
 */
import type {
  ApplicationTunnel,
  GatewayAddress,
  WeightedWaypoint,
} from "../wire/proto/istio-workload.ts";
import { ApplicationTunnel_Protocol as TunnelProtocol } from "../wire/proto/istio-workload.ts";
import { parseAddress } from "./kubernetes-addresses.ts";
import type { Labels } from "./kubernetes-fields.ts";
import { type Gateway, type GatewayListener, WAYPOINT_CLASS } from "./kubernetes-gateways.ts";
import type { KubernetesMetadata } from "./kubernetes-metadata.ts";
import type { Namespaces } from "./kubernetes-places.ts";

const HBONE_PORT = 15008;
const PROXY_LISTENER = "istio.io/PROXY";
const GATEWAY_NAME_LABEL = "gateway.networking.k8s.io/gateway-name";
const MANAGED_LABEL = "gateway.istio.io/managed";
const WAYPOINT_FOR_LABEL = "istio.io/waypoint-for";
const USE_LABEL = "istio.io/use-waypoint";
const USE_NAMESPACE_LABEL = "istio.io/use-waypoint-namespace";
const CANARY_LABEL = "istio.io/use-waypoint-canary";
const CANARY_NAMESPACE_LABEL = "istio.io/use-waypoint-canary-namespace";
const CANARY_WEIGHT_ANNOTATION = "istio.io/use-waypoint-canary-weight";
const BINDING_ANNOTATION = "ambient.istio.io/waypoint-inbound-binding";
const NAME_ANNOTATION = "gateway.istio.io/name-override";
/** Services of gateways that istiod deploys: nothing stands before them. */
const UNCOVERED = ["istio.io-mesh-controller", "istio.io-eastwest-controller"];

export interface Waypoint {
  readonly gateway: Gateway;
  /** `namespace/name`. */
  readonly key: string;
  readonly address: GatewayAddress;
  /** How its own node reaches it, when not as any other workload. */
  readonly tunnel: ApplicationTunnel | undefined;
  /** Of its pods, sorted. */
  readonly serviceAccounts: readonly string[];
}

/** What waypoints are made from. */
export interface WaypointSources {
  readonly gateways: readonly Gateway[];
  readonly namespaces: Namespaces;
  readonly pods: readonly (KubernetesMetadata & { readonly serviceAccount: string })[];
  readonly services: readonly KubernetesMetadata[];
  readonly network: string;
  readonly clusterDomain: string;
}

/** The waypoints that have an address. */
export class Waypoints {
  readonly #byKey: ReadonlyMap<string, Waypoint>;
  readonly #namespaces: Namespaces;

  constructor(sources: WaypointSources) {
    this.#namespaces = sources.namespaces;
    const waypoints = sources.gateways.flatMap((gateway) => makeWaypoint(gateway, sources) ?? []);
    this.#byKey = new Map(waypoints.map((waypoint) => [waypoint.key, waypoint]));
  }

  all(): readonly Waypoint[] {
    return [...this.#byKey.values()];
  }

  /** The waypoint of which the workload itself is a part. */
  ofPart(namespace: string, labels: Labels): Waypoint | undefined {
    return this.#byKey.get(`${namespace}/${labels.get(GATEWAY_NAME_LABEL) ?? ""}`);
  }

  forWorkload(namespace: string, labels: Labels): Waypoint | undefined {
    return this.#find(namespace, labels, "workload");
  }

  forService({ namespace, labels }: KubernetesMetadata): Waypoint | undefined {
    if (UNCOVERED.includes(labels.get(MANAGED_LABEL) ?? "")) return undefined;
    return this.#find(namespace, labels, "service");
  }

  /**
   * A part of the connections goes to another waypoint.
   *
   * @returns nothing when there is no such part, or it is wrongly given.
   */
  weighted(service: KubernetesMetadata, primary: Waypoint): readonly WeightedWaypoint[] {
    const from = this.#canarySource(service);
    const name = from.labels.get(CANARY_LABEL) ?? "none";
    const text = from.annotations.get(CANARY_WEIGHT_ANNOTATION) ?? "0";
    const weight = /^\d{1,3}$/.test(text) ? Number(text) : Number.NaN;
    if (name === "" || name === "none") return [];
    const { namespace } = service;
    const key = `${from.labels.get(CANARY_NAMESPACE_LABEL) ?? namespace}/${name}`;
    const canary = this.#byKey.get(key);
    if (canary === undefined || key === primary.key || !(weight <= 100)) return [];
    if (!isFor(canary, "service") || !this.#admits(canary, namespace)) return [];
    return [
      { destination: primary.address, weight: 100 - weight },
      { destination: canary.address, weight },
    ];
  }

  /** The namespace says which canary only when it says which waypoint. */
  #canarySource(service: KubernetesMetadata): Pick<KubernetesMetadata, "labels" | "annotations"> {
    if (service.labels.has(USE_LABEL)) return service;
    const { labels, annotations } = this.#namespaces.find(service.namespace);
    return {
      labels: service.labels.has(CANARY_LABEL) ? service.labels : labels,
      annotations: service.annotations.has(CANARY_WEIGHT_ANNOTATION)
        ? service.annotations
        : annotations,
    };
  }

  /** An object's own label goes before its namespace's, also when its waypoint is not there. */
  #find(namespace: string, labels: Labels, traffic: "service" | "workload"): Waypoint | undefined {
    const from = labels.has(USE_LABEL) ? labels : this.#namespaces.find(namespace).labels;
    const name = from.get(USE_LABEL) ?? "none";
    if (name === "none") return undefined;
    const waypoint = this.#byKey.get(`${from.get(USE_NAMESPACE_LABEL) ?? namespace}/${name}`);
    if (waypoint === undefined || !isFor(waypoint, traffic)) return undefined;
    return this.#admits(waypoint, namespace) ? waypoint : undefined;
  }

  #admits({ gateway, tunnel }: Waypoint, namespace: string): boolean {
    const { listeners } = gateway;
    const listener =
      listeners.find((candidate) => isBound(candidate, tunnel)) ??
      listeners.find(({ port, protocol }) => protocol === "HBONE" && port === HBONE_PORT);
    switch (listener?.from) {
      case "All":
        return true;
      case "Selector":
        return listener.namespaceSelector(this.#namespaces.find(namespace).labels);
      case "None":
      case "Same":
      case undefined:
        return gateway.namespace === namespace;
    }
  }
}

function makeWaypoint(gateway: Gateway, sources: WaypointSources): Waypoint | undefined {
  const address = waypointAddress(gateway, sources);
  if (address === undefined) return undefined;
  const { namespace, name, annotations } = gateway;
  const serviceAccounts = sources.pods
    .filter((pod) => pod.namespace === namespace && pod.labels.get(GATEWAY_NAME_LABEL) === name)
    .map(({ serviceAccount }) => serviceAccount);
  return {
    gateway,
    key: `${namespace}/${name}`,
    address,
    tunnel: parseBinding(annotations.get(BINDING_ANNOTATION)),
    serviceAccounts: serviceAccounts.toSorted(),
  };
}

/** A hostname goes before an address: addresses are given to others when a service is made anew. */
function waypointAddress(gateway: Gateway, sources: WaypointSources): GatewayAddress | undefined {
  const { namespace } = gateway;
  const hostname =
    gateway.given.find(({ type }) => type === "Hostname")?.value ??
    (gateway.given.length === 0 ? serviceHostname(gateway, sources) : undefined);
  if (hostname !== undefined) {
    const destination = { $case: "hostname", value: { namespace, hostname } } as const;
    return { destination, hboneMtlsPort: HBONE_PORT };
  }
  for (const { type, value } of gateway.given) {
    const address = type === "IPAddress" ? parseAddress(value) : undefined;
    if (address === undefined) continue;
    const destination = { $case: "address", value: { network: sources.network, address } } as const;
    return { destination, hboneMtlsPort: HBONE_PORT };
  }
  return undefined;
}

function serviceHostname(gateway: Gateway, sources: WaypointSources): string | undefined {
  if (gateway.className !== WAYPOINT_CLASS) return undefined;
  const name = gateway.annotations.get(NAME_ANNOTATION) ?? gateway.name;
  const isThere = sources.services.some(
    (service) => service.namespace === gateway.namespace && service.name === name,
  );
  return isThere ? `${name}.${gateway.namespace}.svc.${sources.clusterDomain}` : undefined;
}

/** The listener at the far end of the waypoint's own tunnel. */
function isBound(listener: GatewayListener, tunnel: ApplicationTunnel | undefined): boolean {
  if (tunnel === undefined) return false;
  if (tunnel.port !== 0) return listener.port === tunnel.port;
  return tunnel.protocol === TunnelProtocol.PROXY && listener.protocol === PROXY_LISTENER;
}

function isFor({ gateway }: Waypoint, traffic: "service" | "workload"): boolean {
  const declared = gateway.labels.get(WAYPOINT_FOR_LABEL) ?? "service";
  return declared === "all" || declared === traffic;
}

/** `PROXY` or `PROXY/15088`; a binding that is not understood is none. */
function parseBinding(text = ""): ApplicationTunnel | undefined {
  const [protocol, port = "0"] = text.split("/");
  if ((protocol !== "NONE" && protocol !== "PROXY") || !/^\d{1,5}$/.test(port)) return undefined;
  return { protocol: TunnelProtocol[protocol], port: Number(port) };
}
