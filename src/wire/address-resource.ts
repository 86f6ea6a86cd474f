/**
 * Workloads and services as xDS resources: bytes of an `istio.workload.Address` ⇄ the mesh's nouns.
 *
 * What a control plane leaves out gets the defaults that the original compiles in (trust domain,
 * service account, cluster id, capacity). The texts of errors become the reasons of a NACK.
 *
 * @see spec control-plane 1.9 and 2.1.
 */
import { type Cidr, makeCidr } from "../mesh/cidr.ts";
import type { GatewayAddress } from "../mesh/gateway-address.ts";
import { type IpAddress, ipAddressFromBytes, ipAddressToBytes } from "../mesh/ip-address.ts";
import { LOAD_BALANCING_SCOPES, type LoadBalancingScope } from "../mesh/load-balancing-scope.ts";
import type {
  HealthPolicy,
  IpFamilies,
  LoadBalancer,
  LoadBalancingMode,
  NetworkCidr,
  Service,
  Visibility,
} from "../mesh/service.ts";
import type {
  ApplicationTunnel,
  HealthStatus,
  NetworkMode,
  PortMap,
  Workload,
  WorkloadProtocol,
} from "../mesh/workload.ts";
import { type EnumNames, enumName, enumNumber } from "./enum-names.ts";
import { decodeMessage, encodeMessage } from "./message-codec.ts";
import * as proto from "./proto/istio-workload.ts";
import { decodeServiceExtensions, encodeServiceExtensions } from "./service-extension.ts";
import { WireError } from "./wire-error.ts";

/** One resource of the type `istio.workload.Address`. */
export type AddressResource =
  | { readonly kind: "workload"; readonly workload: Workload }
  | { readonly kind: "service"; readonly service: Service };

/** Whether an empty field means the original's default, as from a control plane, or just itself. */
export type AddressDialect = "control-plane" | "verbatim";

/** What an empty field means. */
const DEFAULTS = {
  "control-plane": {
    trustDomain: "cluster.local",
    serviceAccount: "default",
    cluster: "Kubernetes",
  },
  verbatim: { trustDomain: "", serviceAccount: "", cluster: "" },
};
const DEFAULT_CAPACITY = 1;

const PROTOCOLS: EnumNames<WorkloadProtocol> = ["TCP", "HBONE"];
const NETWORK_MODES: EnumNames<NetworkMode> = ["Standard", "HostNetwork"];
const STATUSES: EnumNames<HealthStatus> = ["Healthy", "Unhealthy"];
const WORKLOAD_TYPES = ["deployment", "cronjob", "pod", "job"];
const TUNNELS: EnumNames<ApplicationTunnel["protocol"]> = ["NONE", "PROXY"];
/** Number 0 says nothing about where to look. */
const SCOPES: EnumNames<LoadBalancingScope> = [undefined, ...LOAD_BALANCING_SCOPES];
const MODES: EnumNames<LoadBalancingMode> = ["Standard", "Strict", "Failover", "Passthrough"];
const HEALTH_POLICIES: EnumNames<HealthPolicy> = ["OnlyHealthy", "AllowAll"];
const IP_FAMILIES: EnumNames<IpFamilies> = ["Automatic", "IPv4", "IPv6", "Dual"];
const VISIBILITIES: EnumNames<Visibility> = ["Public", "Namespace"];

/** @throws WireError with the reason that a control plane is told. */
export function decodeAddress(
  bytes: Uint8Array,
  dialect: AddressDialect = "control-plane",
): AddressResource {
  const { type } = decodeMessage("Address", proto.Address, bytes);
  switch (type?.$case) {
    case "workload":
      return { kind: "workload", workload: toWorkload(type.value, dialect) };
    case "service":
      return { kind: "service", service: toService(type.value) };
    case undefined:
      throw new WireError("incomplete", "unknown address type");
  }
}

/** Decodes to an equal value, except that an empty field comes back as its default. */
export function encodeAddress(
  resource: AddressResource,
  dialect: AddressDialect = "control-plane",
): Uint8Array {
  return encodeMessage(proto.Address, {
    type:
      resource.kind === "workload"
        ? { $case: "workload", value: fromWorkload(resource.workload, dialect) }
        : { $case: "service", value: fromService(resource.service) },
  });
}

function toWorkload(message: proto.Workload, dialect: AddressDialect): Workload {
  if (message.tunnelProtocol === proto.TunnelProtocol.LEGACY_ISTIO_MTLS) {
    const reason = "unknown enum: unsupported tunnel protocol: legacy istio mtls";
    throw new WireError("unknown", reason);
  }
  const { applicationTunnel, locality } = message;
  const defaults = DEFAULTS[dialect];
  return {
    uid: message.uid,
    name: message.name,
    namespace: message.namespace,
    ips: message.addresses.map(toIp),
    hostname: message.hostname,
    network: message.network,
    protocol: enumName("tunnel protocol", PROTOCOLS, message.tunnelProtocol),
    trustDomain: message.trustDomain || defaults.trustDomain,
    serviceAccount: message.serviceAccount || defaults.serviceAccount,
    waypoint: optional(message.waypoint, toGateway),
    networkGateway: optional(message.networkGateway, toGateway),
    node: message.node,
    canonicalName: message.canonicalName,
    canonicalRevision: message.canonicalRevision,
    // A kind of the future changes labels only.
    workloadType: WORKLOAD_TYPES[message.workloadType] ?? "deployment",
    workloadName: message.workloadName,
    nativeTunnel: message.nativeTunnel,
    authorizationPolicies: message.authorizationPolicies,
    status: enumName("workload status", STATUSES, message.status),
    clusterId: message.clusterId || defaults.cluster,
    services: toServices(message.services),
    applicationTunnel: optional(applicationTunnel, ({ protocol, port }) => ({
      protocol: enumName("application tunnel", TUNNELS, protocol),
      port: port === 0 ? undefined : toPort(port),
    })),
    locality: {
      region: locality?.region ?? "",
      zone: locality?.zone ?? "",
      subzone: locality?.subzone ?? "",
    },
    networkMode: enumName("network mode", NETWORK_MODES, message.networkMode),
    capacity: message.capacity ?? DEFAULT_CAPACITY,
  };
}

function fromWorkload(workload: Workload, dialect: AddressDialect): proto.Workload {
  const { applicationTunnel, locality } = workload;
  const hasLocality = locality.region !== "" || locality.zone !== "" || locality.subzone !== "";
  return {
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    addresses: workload.ips.map(ipAddressToBytes),
    hostname: workload.hostname,
    network: workload.network,
    tunnelProtocol: enumNumber(PROTOCOLS, workload.protocol),
    trustDomain: withoutDefault(workload.trustDomain, DEFAULTS[dialect].trustDomain),
    serviceAccount: workload.serviceAccount,
    waypoint: optional(workload.waypoint, fromGateway),
    networkGateway: optional(workload.networkGateway, fromGateway),
    node: workload.node,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    workloadType: Math.max(0, WORKLOAD_TYPES.indexOf(workload.workloadType)) as proto.WorkloadType,
    workloadName: workload.workloadName,
    nativeTunnel: workload.nativeTunnel,
    authorizationPolicies: [...workload.authorizationPolicies],
    status: enumNumber(STATUSES, workload.status),
    clusterId: workload.clusterId,
    services: new Map(
      [...workload.services].map(([key, ports]) => [key, { ports: fromPorts(ports) }]),
    ),
    applicationTunnel: optional(applicationTunnel, ({ protocol, port }) => ({
      protocol: enumNumber(TUNNELS, protocol),
      port: port ?? 0,
    })),
    locality: hasLocality ? { ...locality } : undefined,
    networkMode: enumNumber(NETWORK_MODES, workload.networkMode),
    extensions: [],
    capacity: workload.capacity === DEFAULT_CAPACITY ? undefined : workload.capacity,
  };
}

function toService(message: proto.Service): Service {
  const whole = message.addresses.filter((address) => !isRange(address));
  const ranges = message.addresses.filter(isRange);
  return {
    name: message.name,
    namespace: message.namespace,
    hostname: message.hostname,
    vips: whole.map(({ network, address }) => ({ network, ip: toIp(address) })),
    cidrVips: ranges.map(toRange),
    ports: toPorts(message.ports),
    subjectAltNames: message.subjectAltNames,
    waypoint: optional(message.waypoint, toGateway),
    weightedWaypoints: message.weightedWaypoints.map(({ destination, weight }) => ({
      destination: toGateway(destination),
      weight,
    })),
    loadBalancer: optional(message.loadBalancing, toLoadBalancer),
    ipFamilies: enumName("ip families", IP_FAMILIES, message.ipFamilies),
    canonical: message.canonical,
    // Who can see more than meant may still be denied by policy; nobody may see less.
    visibility: VISIBILITIES[message.visibility] ?? "Public",
    affinitySeconds: decodeServiceExtensions(message.extensions),
  };
}

function fromService(service: Service): proto.Service {
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    addresses: [
      ...service.vips.map(({ network, ip }) => ({ network, address: ipAddressToBytes(ip) })),
      ...service.cidrVips.map(({ network, cidr }) => ({
        network,
        address: ipAddressToBytes(cidr.ip),
        length: cidr.prefixLength,
      })),
    ],
    ports: fromPorts(service.ports),
    subjectAltNames: [...service.subjectAltNames],
    waypoint: optional(service.waypoint, fromGateway),
    weightedWaypoints: service.weightedWaypoints.map(({ destination, weight }) => ({
      destination: fromGateway(destination),
      weight,
    })),
    loadBalancing: optional(service.loadBalancer, fromLoadBalancer),
    ipFamilies: enumNumber(IP_FAMILIES, service.ipFamilies),
    extensions: encodeServiceExtensions(service.affinitySeconds),
    canonical: service.canonical,
    ingressUseWaypoint: false,
    visibility: enumNumber(VISIBILITIES, service.visibility),
  };
}

function toLoadBalancer(message: proto.LoadBalancing): LoadBalancer {
  return {
    routingPreferences: message.routingPreference.map((scope) => {
      if (scope === 0) throw new WireError("unknown", "unknown enum: invalid target");
      return enumName("load balancing scope", SCOPES, scope);
    }),
    mode: enumName("load balancing mode", MODES, message.mode),
    healthPolicy: enumName("health policy", HEALTH_POLICIES, message.healthPolicy),
  };
}

function fromLoadBalancer(loadBalancer: LoadBalancer): proto.LoadBalancing {
  return {
    routingPreference: loadBalancer.routingPreferences.map((scope) => enumNumber(SCOPES, scope)),
    mode: enumNumber(MODES, loadBalancer.mode),
    healthPolicy: enumNumber(HEALTH_POLICIES, loadBalancer.healthPolicy),
  };
}

function toGateway(message: proto.GatewayAddress | undefined): GatewayAddress {
  const destination = message?.destination;
  if (message === undefined || destination === undefined) {
    throw new WireError("incomplete", "nonempty gateway address is missing address");
  }
  const hboneMtlsPort = toPort(message.hboneMtlsPort);
  if (destination.$case === "hostname") {
    return { destination: { kind: "hostname", ...destination.value }, hboneMtlsPort };
  }
  const { network, address } = destination.value;
  return { destination: { kind: "address", network, ip: toIp(address) }, hboneMtlsPort };
}

function fromGateway({ destination, hboneMtlsPort }: GatewayAddress): proto.GatewayAddress {
  if (destination.kind === "hostname") {
    const { namespace, hostname } = destination;
    return { destination: { $case: "hostname", value: { namespace, hostname } }, hboneMtlsPort };
  }
  const value = { network: destination.network, address: ipAddressToBytes(destination.ip) };
  return { destination: { $case: "address", value }, hboneMtlsPort };
}

function toServices(message: ReadonlyMap<string, proto.PortList>): Workload["services"] {
  const services = new Map<string, PortMap>();
  for (const [key, { ports }] of message) {
    if (!key.includes("/")) {
      throw new WireError("malformed", `failed to parse namespaced hostname: ${key}`);
    }
    services.set(key, toPorts(ports));
  }
  return services;
}

function toPorts(ports: readonly proto.Port[]): PortMap {
  return new Map(
    ports.map(({ servicePort, targetPort }) => [toPort(servicePort), toPort(targetPort)]),
  );
}

function fromPorts(ports: PortMap): proto.Port[] {
  return Array.from(ports, ([servicePort, targetPort]) => ({
    servicePort,
    targetPort,
    appProtocol: proto.AppProtocol.UNKNOWN,
  }));
}

/** The wire has 32 bits for a port; the original cuts off what does not fit. */
function toPort(value: number): number {
  return value & 0xffff;
}

function isRange({ address, length }: proto.NetworkAddress): boolean {
  return length !== undefined && length !== address.length * 8;
}

function toRange({ network, address, length }: proto.NetworkAddress): NetworkCidr {
  const ip = toIp(address);
  const cidr: Cidr | undefined = makeCidr(ip, length ?? 0);
  if (cidr === undefined) throw new WireError("malformed", `invalid cidr: ${ip}/${length}`);
  return { network, cidr };
}

function toIp(bytes: Uint8Array): IpAddress {
  const ip = ipAddressFromBytes(bytes);
  if (ip !== undefined) return ip;
  throw new WireError("malformed", `failed to parse address, had ${bytes.length} bytes`);
}

function withoutDefault(value: string, standard: string): string {
  return value === standard ? "" : value;
}

function optional<Value, Result>(
  value: Value | undefined,
  convert: (value: Value) => Result,
): Result | undefined {
  return value === undefined ? undefined : convert(value);
}
