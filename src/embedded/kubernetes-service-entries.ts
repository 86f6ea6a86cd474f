/**
 * Service entries: hosts that are no Service of the cluster, as services, and their endpoints, or the
 * hosts themselves, as workloads.
 *
 * @see istio pilot/pkg/serviceregistry/ambient/services.go, workloads.go
 */
import type { IpAddress } from "../mesh/ip-address.ts";
import { ipAddressFromBytes, ipAddressToBytes, parseIpAddress } from "../mesh/ip-address.ts";
import {
  LoadBalancing_HealthPolicy as HealthPolicy,
  IPFamilies,
  type LoadBalancing,
  LoadBalancing_Mode as Mode,
  type Service as ServiceMessage,
  Service_Visibility as Visibility,
  type Workload as WorkloadMessage,
} from "../wire/proto/istio-workload.ts";
import { type AllocatedAddresses, allocateAddresses } from "./kubernetes-address-allocation.ts";
import { type AddressRange, parseRange, toNetworkAddress } from "./kubernetes-addresses.ts";
import type { KubernetesFields, Labels } from "./kubernetes-fields.ts";
import type { KubernetesMetadata } from "./kubernetes-metadata.ts";
import { namedProtocol } from "./kubernetes-protocols.ts";
import {
  bindingOf,
  type KnownPort,
  type KnownService,
  type ServiceSurroundings,
  trafficDistribution,
} from "./kubernetes-services.ts";
import {
  addressOrHostname,
  makeWorkload,
  type WorkloadSurroundings,
} from "./kubernetes-workload.ts";
import {
  entryTargetPort,
  readWorkloadEntry,
  type WorkloadEntry,
} from "./kubernetes-workload-entries.ts";

const ALLOCATE_LABEL = "networking.istio.io/enable-autoallocate-ip";
const RESOLUTIONS = ["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] as const;

/** Who sees the services of a namespace's service entries. */
export type ServiceEntryVisibility = "Public" | "Namespace" | "None";

export interface ServiceEntry extends KubernetesMetadata {
  readonly hosts: readonly string[];
  readonly addresses: readonly AddressRange[];
  readonly ports: readonly (KnownPort & { readonly protocol: string })[];
  readonly resolution: (typeof RESOLUTIONS)[number];
  readonly endpoints: readonly WorkloadEntry[];
  /** `undefined` when there is none. */
  readonly workloadSelector: Labels | undefined;
  readonly subjectAltNames: readonly string[];
  /** Host → addresses that it was given. */
  readonly given: ReadonlyMap<string, readonly IpAddress[]>;
}

export function readServiceEntry(
  metadata: KubernetesMetadata,
  fields: KubernetesFields,
): ServiceEntry {
  const spec = fields.fields("spec");
  const selector = spec.fields("workloadSelector").labels("labels");
  return {
    ...metadata,
    hosts: spec.texts("hosts"),
    addresses: spec.texts("addresses").flatMap((text) => {
      const range = parseRange(text);
      if (range === undefined)
        spec.mistake("addresses", `must be IP addresses or ranges, not ${text}`);
      return range ?? [];
    }),
    ports: spec.list("ports").map(readPort),
    resolution: spec.choice("resolution", RESOLUTIONS, "NONE"),
    endpoints: spec.list("endpoints").map(readWorkloadEntry),
    workloadSelector: spec.has("workloadSelector") ? selector : undefined,
    subjectAltNames: spec.texts("subjectAltNames"),
    given: readGiven(fields.fields("status")),
  };
}

function readPort(fields: KubernetesFields): ServiceEntry["ports"][number] {
  const servicePort = fields.port("number");
  return {
    servicePort,
    targetPort: fields.port("targetPort") || servicePort,
    name: fields.text("name"),
    targetName: "",
    protocol: fields.text("protocol"),
  };
}

function readGiven(status: KubernetesFields): ReadonlyMap<string, readonly IpAddress[]> {
  const given = status.list("addresses").flatMap((item) => {
    const ip = parseIpAddress(item.text("value"));
    return ip === undefined ? [] : [{ host: item.text("host"), ip }];
  });
  const byHost = Map.groupBy(given, ({ host }) => host);
  return new Map([...byHost].map(([host, items]) => [host, items.map(({ ip }) => ip)]));
}

/**
 * Addresses for the hosts of entries that name none.
 *
 * @param before what was given until now; what a status says goes before it.
 */
export function allocateHosts(
  entries: readonly ServiceEntry[],
  before: AllocatedAddresses,
): AllocatedAddresses {
  const wanted = entries.flatMap((entry) =>
    hostsToAllocate(entry).map((host) => ({
      key: allocationKey(entry, host),
      given: entry.given.get(host),
    })),
  );
  const given = wanted.flatMap(({ key, given: ips }) =>
    ips === undefined ? [] : [[key, ips] as const],
  );
  const written = entries.flatMap(({ addresses }) => addresses);
  return allocateAddresses(
    wanted.map(({ key }) => key),
    new Map([...before, ...given]),
    new Set(written.flatMap(({ bytes }) => ipAddressFromBytes(bytes) ?? [])),
  );
}

function hostsToAllocate(entry: ServiceEntry): readonly string[] {
  const isOff = entry.labels.get(ALLOCATE_LABEL)?.toLowerCase() === "false";
  if (entry.resolution === "NONE" || entry.addresses.length > 0 || isOff) return [];
  return entry.hosts.filter((host) => !host.startsWith("*") || entry.resolution === "DYNAMIC_DNS");
}

/** One host of one entry. */
function allocationKey({ namespace, name }: KubernetesMetadata, host: string): string {
  return `${namespace}/${name}/${host}`;
}

/** What the services of service entries take from around them besides. */
export interface ServiceEntrySurroundings extends ServiceSurroundings {
  /** By namespace; others are public. */
  readonly serviceEntryVisibility: ReadonlyMap<string, ServiceEntryVisibility>;
  /** Of {@link allocateHosts}. */
  readonly allocated: AllocatedAddresses;
}

/** One service for each host. */
export function entryServices(
  entry: ServiceEntry,
  surroundings: ServiceEntrySurroundings,
): readonly KnownService[] {
  const { namespace } = entry;
  const visibility = surroundings.serviceEntryVisibility.get(namespace) ?? "Public";
  if (visibility === "None") return [];
  const found = surroundings.waypoints.forService(entry);
  // A waypoint of another namespace would show the service there.
  const isHidden = visibility === "Namespace" && found?.gateway.namespace !== namespace;
  const waypoint = isHidden ? undefined : found;
  const shared: Omit<ServiceMessage, "hostname" | "addresses"> = {
    ...bindingOf(entry, waypoint, surroundings),
    name: entry.name,
    namespace,
    ports: entry.ports.map(({ servicePort, targetPort, protocol }) => ({
      servicePort,
      targetPort,
      appProtocol: namedProtocol(protocol),
    })),
    subjectAltNames: [...entry.subjectAltNames],
    loadBalancing: loadBalancing(entry, surroundings),
    ipFamilies: IPFamilies.AUTOMATIC,
    extensions: [],
    canonical: false,
    visibility: visibility === "Namespace" ? Visibility.NAMESPACE : Visibility.PUBLIC,
  };
  return entry.hosts.map((hostname) => ({
    message: { ...shared, hostname, addresses: addressesOf(entry, hostname, surroundings) },
    kind: "ServiceEntry",
    source: entry,
    selector: entry.workloadSelector ?? new Map(),
    ports: entry.ports,
    waypoint,
  }));
}

function addressesOf(
  entry: ServiceEntry,
  host: string,
  { network, allocated }: ServiceEntrySurroundings,
): ServiceMessage["addresses"] {
  const own = entry.addresses.map((range) => toNetworkAddress(network, range));
  if (own.length > 0) return own;
  const given = allocated.get(allocationKey(entry, host)) ?? [];
  return given.map((ip) => ({ network, address: ipAddressToBytes(ip) }));
}

function loadBalancing(
  entry: ServiceEntry,
  { namespaces }: ServiceSurroundings,
): LoadBalancing | undefined {
  if (entry.resolution !== "NONE") return trafficDistribution(entry, "", namespaces);
  // Connections go where they were meant to go.
  return { routingPreference: [], mode: Mode.PASSTHROUGH, healthPolicy: HealthPolicy.ALLOW_ALL };
}

/**
 * One workload for each endpoint; without endpoints, one for each host that DNS resolves.
 *
 * @param services those that count, of all entries.
 */
export function entryWorkloads(
  entry: ServiceEntry,
  surroundings: WorkloadSurroundings,
): readonly WorkloadMessage[] {
  const own = surroundings.services.filter(({ source }) => source === entry);
  if (own.length === 0) return [];
  if (entry.endpoints.length > 0) {
    return entry.endpoints.map((endpoint) =>
      endpointWorkload(entry, endpoint, endpoint.labels, own, surroundings),
    );
  }
  const isResolved = entry.resolution.includes("DNS") && entry.workloadSelector === undefined;
  if (!isResolved) return [];
  return own.map((service) => {
    const endpoint = { ...NO_ENDPOINT, address: service.message.hostname };
    return endpointWorkload(entry, endpoint, undefined, [service], surroundings);
  });
}

function endpointWorkload(
  entry: ServiceEntry,
  endpoint: WorkloadEntry,
  waypointLabels: Labels | undefined,
  services: readonly KnownService[],
  surroundings: WorkloadSurroundings,
): WorkloadMessage {
  const { name, namespace } = entry;
  const uid = `${surroundings.clusterId}/networking.istio.io/ServiceEntry/${namespace}/${name}`;
  return makeWorkload(
    {
      uid: `${uid}/${endpoint.address}`,
      metadata: entry,
      ...addressOrHostname(endpoint.address),
      network: endpoint.network || surroundings.network,
      serviceAccount: endpoint.serviceAccount,
      workloadName: name,
      waypointLabels,
      services,
      targetPort: (port, service) => entryTargetPort(endpoint, port, service),
      locality: endpoint.locality,
      weight: endpoint.weight,
    },
    surroundings,
  );
}

const NO_ENDPOINT: Readonly<WorkloadEntry> = {
  address: "",
  ports: new Map(),
  labels: new Map(),
  network: "",
  locality: undefined,
  weight: 0,
  serviceAccount: "",
};
