/**
 * Services of Kubernetes as services of the mesh, and which of several with one hostname counts.
 *
 * @see istio pilot/pkg/serviceregistry/ambient/services.go
 */
import {
  LoadBalancing_HealthPolicy as HealthPolicy,
  IPFamilies,
  type LoadBalancing,
  LoadBalancing_Mode as Mode,
  LoadBalancing_Scope as Scope,
  type Service as ServiceMessage,
  Service_Visibility as Visibility,
} from "../wire/proto/istio-workload.ts";
import { encodeServiceExtensions } from "../wire/service-extension.ts";
import { parseAddress } from "./kubernetes-addresses.ts";
import type { KubernetesFields, Labels } from "./kubernetes-fields.ts";
import { isYes, type KubernetesMetadata } from "./kubernetes-metadata.ts";
import type { Namespaces } from "./kubernetes-places.ts";
import { servicePortProtocol } from "./kubernetes-protocols.ts";
import type { Waypoint, Waypoints } from "./kubernetes-waypoints.ts";

const DISTRIBUTION_ANNOTATION = "networking.istio.io/traffic-distribution";
const INGRESS_LABEL = "istio.io/ingress-use-waypoint";
const HEADLESS = "None";
/** The apiserver's default, and what it allows. */
const AFFINITY_SECONDS = 10_800;
const AFFINITY_SECONDS_MAX = 86_400;

/** A service of the mesh with what workloads need to find their place behind it. */
export interface KnownService {
  readonly message: ServiceMessage;
  /** The object that it comes from. */
  readonly kind: "Service" | "ServiceEntry";
  readonly source: KubernetesMetadata;
  /** Of its workloads; an empty one selects none. */
  readonly selector: Labels;
  readonly ports: readonly KnownPort[];
  readonly waypoint: Waypoint | undefined;
}

export interface KnownPort {
  readonly servicePort: number;
  /** 0 where the target is a name. */
  readonly targetPort: number;
  readonly name: string;
  /** Of a port of the workload; empty where the target is a number. */
  readonly targetName: string;
}

/** What services take from around them. */
export interface ServiceSurroundings {
  readonly namespaces: Namespaces;
  readonly waypoints: Waypoints;
  readonly network: string;
  readonly clusterDomain: string;
}

/** A Service as it is written. */
export interface KubernetesService extends KubernetesMetadata {
  readonly selector: Labels;
  readonly ports: readonly KubernetesPort[];
  /** Bytes of each address in the cluster. */
  readonly addresses: readonly Uint8Array[];
  readonly ipFamilies: IPFamilies;
  readonly isLocalOnly: boolean;
  readonly distribution: string;
  readonly publishesUnready: boolean;
  /** `undefined`: a client's connections may go to any of its workloads. */
  readonly affinitySeconds: number | undefined;
}

interface KubernetesPort extends KnownPort {
  readonly appProtocol: string;
  readonly transport: string;
}

/** @returns `undefined` for a Service that is only another name for a host. */
export function readService(
  metadata: KubernetesMetadata,
  fields: KubernetesFields,
): KubernetesService | undefined {
  const spec = fields.fields("spec");
  if (spec.text("type") === "ExternalName") return undefined;
  const addresses = readClusterIps(spec);
  return {
    ...metadata,
    selector: spec.labels("selector"),
    ports: spec.list("ports").map(readPort),
    addresses,
    ipFamilies: readIpFamilies(spec, addresses),
    isLocalOnly: spec.text("internalTrafficPolicy") === "Local",
    distribution: spec.text("trafficDistribution"),
    publishesUnready: spec.flag("publishNotReadyAddresses"),
    affinitySeconds: readAffinity(spec),
  };
}

function readAffinity(spec: KubernetesFields): number | undefined {
  if (spec.choice("sessionAffinity", ["None", "ClientIP"], "None") === "None") return undefined;
  const config = spec.fields("sessionAffinityConfig").fields("clientIP");
  if (!config.has("timeoutSeconds")) return AFFINITY_SECONDS;
  const seconds = config.integer("timeoutSeconds", AFFINITY_SECONDS_MAX);
  if (seconds === 0) config.mistake("timeoutSeconds", "must be more than 0");
  return seconds;
}

function readPort(fields: KubernetesFields): KubernetesPort {
  const servicePort = fields.port("port");
  // The apiserver's default.
  const target = fields.portOrName("targetPort") ?? servicePort;
  return {
    servicePort,
    targetPort: typeof target === "number" ? target : 0,
    targetName: typeof target === "string" ? target : "",
    name: fields.text("name"),
    appProtocol: fields.text("appProtocol"),
    transport: fields.text("protocol"),
  };
}

/** Where the apiserver would give an address, nobody does: it has to be written. */
function readClusterIps(spec: KubernetesFields): readonly Uint8Array[] {
  const several = spec.texts("clusterIPs");
  const texts = several.length > 0 ? several : [spec.text("clusterIP")];
  return texts.flatMap((text) => {
    if (text === HEADLESS) return [];
    const address = parseAddress(text);
    if (address !== undefined) return [address];
    spec.mistake("clusterIP", text === "" ? "must be given" : `must be an IP address, not ${text}`);
    return [];
  });
}

/** Not written, the apiserver says which families the addresses have; a headless one has IPv4. */
function readIpFamilies(
  spec: KubernetesFields,
  addresses: readonly Uint8Array[],
): KubernetesService["ipFamilies"] {
  const written = spec.texts("ipFamilies");
  const families =
    written.length > 0
      ? written
      : addresses.map((address) => (address.length === 4 ? "IPv4" : "IPv6"));
  if (families.length > 1) return IPFamilies.DUAL;
  return families[0] === "IPv6" ? IPFamilies.IPV6_ONLY : IPFamilies.IPV4_ONLY;
}

export function knownService(
  service: KubernetesService,
  surroundings: ServiceSurroundings,
): KnownService {
  const { network, clusterDomain } = surroundings;
  const waypoint = surroundings.waypoints.forService(service);
  const message: ServiceMessage = {
    ...bindingOf(service, waypoint, surroundings),
    name: service.name,
    namespace: service.namespace,
    hostname: `${service.name}.${service.namespace}.svc.${clusterDomain}`,
    addresses: service.addresses.map((address) => ({ network, address })),
    ports: service.ports.map((port) => ({
      servicePort: port.servicePort,
      targetPort: port.targetPort,
      appProtocol: servicePortProtocol({ ...port, port: port.servicePort }),
    })),
    subjectAltNames: [],
    loadBalancing: loadBalancing(service, surroundings.namespaces),
    ipFamilies: service.ipFamilies,
    extensions: encodeServiceExtensions(service.affinitySeconds),
    canonical: true,
    visibility: Visibility.PUBLIC,
  };
  const { selector, ports } = service;
  return { message, kind: "Service", source: service, selector, ports, waypoint };
}

/** How a service stands to its waypoint. */
export function bindingOf(
  service: KubernetesMetadata,
  waypoint: Waypoint | undefined,
  { waypoints, namespaces }: ServiceSurroundings,
): Pick<ServiceMessage, "waypoint" | "weightedWaypoints" | "ingressUseWaypoint"> {
  if (waypoint === undefined) {
    return { waypoint: undefined, weightedWaypoints: [], ingressUseWaypoint: false };
  }
  const from = service.labels.has(INGRESS_LABEL)
    ? service.labels
    : namespaces.find(service.namespace).labels;
  return {
    waypoint: waypoint.address,
    weightedWaypoints: [...waypoints.weighted(service, waypoint)],
    ingressUseWaypoint: isYes(from, INGRESS_LABEL),
  };
}

function loadBalancing(
  service: KubernetesService,
  namespaces: Namespaces,
): LoadBalancing | undefined {
  const healthPolicy = service.publishesUnready
    ? HealthPolicy.ALLOW_ALL
    : HealthPolicy.ONLY_HEALTHY;
  const preference: LoadBalancing | undefined = service.isLocalOnly
    ? { routingPreference: [Scope.NODE], mode: Mode.STRICT, healthPolicy }
    : trafficDistribution(service, service.distribution, namespaces);
  if (preference !== undefined) return { ...preference, healthPolicy };
  if (!service.publishesUnready) return undefined;
  return { routingPreference: [], mode: Mode.UNSPECIFIED_MODE, healthPolicy };
}

/**
 * Which workloads are preferred: the field of a Service goes before its annotation, and that before
 * the annotation of its namespace. A word that is not known ends the search, except in the field.
 *
 * @returns `undefined` for none before others.
 */
export function trafficDistribution(
  service: KubernetesMetadata,
  field: string,
  namespaces: Namespaces,
): LoadBalancing | undefined {
  const words = [
    service.annotations.get(DISTRIBUTION_ANNOTATION) ?? "",
    namespaces.find(service.namespace).annotations.get(DISTRIBUTION_ANNOTATION) ?? "",
  ];
  const word = words.find((candidate) => candidate !== "") ?? "";
  return DISTRIBUTIONS.get(field.toLowerCase()) ?? DISTRIBUTIONS.get(word.toLowerCase());
}

const SAME_ZONE: LoadBalancing = {
  routingPreference: [Scope.NETWORK, Scope.REGION, Scope.ZONE],
  mode: Mode.FAILOVER,
  healthPolicy: HealthPolicy.ONLY_HEALTHY,
};
const SAME_NODE: LoadBalancing = {
  ...SAME_ZONE,
  routingPreference: [...SAME_ZONE.routingPreference, Scope.SUBZONE, Scope.NODE],
};
const DISTRIBUTIONS: ReadonlyMap<string, LoadBalancing> = new Map([
  ["preferclose", SAME_ZONE],
  ["prefersamezone", SAME_ZONE],
  ["prefersamenode", SAME_NODE],
]);

/**
 * The services that count: of one hostname one in each namespace, a Service before a ServiceEntry,
 * the older before the younger; one of them is canonical.
 *
 * @param services oldest first.
 */
export function selectServices(services: readonly KnownService[]): readonly KnownService[] {
  const byHostname = Map.groupBy(services, ({ message }) => message.hostname);
  return [...byHostname.values()].flatMap((rivals) => {
    const byNamespace = Map.groupBy(rivals, ({ source }) => source.namespace);
    const best = [...byNamespace.values()].flatMap((several) => preferred(several) ?? []);
    const isPublic = ({ message }: KnownService) => message.visibility === Visibility.PUBLIC;
    const canonical = preferred(best.filter(isPublic));
    return best.map((service) => ({
      ...service,
      message: { ...service.message, canonical: service === canonical },
    }));
  });
}

function preferred(services: readonly KnownService[]): KnownService | undefined {
  return services.find(({ kind }) => kind === "Service") ?? services[0];
}
