/**
 * The mesh in the shapes of `/config_dump`. What has its default value is left out where the
 * original leaves it out.
 *
 * @see spec control-plane 7.2
 */
import type { AuthorizationPolicy, PolicyMatch, StringMatch } from "../mesh/authorization.ts";
import type { Cidr } from "../mesh/cidr.ts";
import { formatNetworkAddress, type GatewayAddress } from "../mesh/gateway-address.ts";
import type { Service } from "../mesh/service.ts";
import type { HealthStatus, Locality, PortMap, Workload } from "../mesh/workload.ts";

/** A member of a dump; made for `formatJson`. */
export type Dumped = Readonly<Record<string, unknown>>;

/** What a workload has to offer behind a service. */
export interface DumpedEndpoint {
  readonly workloadUid: string;
  readonly ports: PortMap;
  readonly status: HealthStatus;
}

export function dumpWorkload(workload: Workload): Dumped {
  return {
    applicationTunnel: workload.applicationTunnel && {
      protocol: workload.applicationTunnel.protocol,
      port: workload.applicationTunnel.port ?? null,
    },
    authorizationPolicies: unlessEmpty(workload.authorizationPolicies),
    canonicalName: workload.canonicalName || undefined,
    canonicalRevision: workload.canonicalRevision || undefined,
    capacity: workload.capacity,
    clusterId: workload.clusterId,
    hostname: workload.hostname || undefined,
    locality: isKnown(workload.locality) ? workload.locality : undefined,
    name: workload.name,
    namespace: workload.namespace,
    nativeTunnel: workload.nativeTunnel || undefined,
    network: workload.network || undefined,
    networkGateway: dumpGateway(workload.networkGateway),
    networkMode: workload.networkMode,
    node: workload.node || undefined,
    protocol: workload.protocol,
    serviceAccount: workload.serviceAccount || undefined,
    services: unlessEmpty([...workload.services.keys()]),
    status: workload.status,
    trustDomain: workload.trustDomain || undefined,
    uid: workload.uid || undefined,
    waypoint: dumpGateway(workload.waypoint),
    workloadIps: workload.ips,
    workloadName: workload.workloadName || undefined,
    workloadType: workload.workloadType || undefined,
  };
}

export function dumpService(service: Service, endpoints: Iterable<DumpedEndpoint>): Dumped {
  const { cidrVips, weightedWaypoints } = service;
  return {
    affinitySeconds: service.affinitySeconds,
    canonical: service.canonical,
    cidrVips: unlessEmpty(
      cidrVips.map(({ network, cidr }) => ({ network, cidr: formatCidr(cidr) })),
    ),
    endpoints: dumpEndpoints(endpoints),
    hostname: service.hostname,
    ipFamilies: service.ipFamilies === "Automatic" ? undefined : service.ipFamilies,
    loadBalancer: service.loadBalancer,
    name: service.name,
    namespace: service.namespace,
    ports: dumpPorts(service.ports),
    subjectAltNames: service.subjectAltNames,
    vips: service.vips.map(({ network, ip }) => formatNetworkAddress(network, ip)),
    visibility: service.visibility,
    waypoint: dumpGateway(service.waypoint),
    weightedWaypoints: unlessEmpty(
      weightedWaypoints.map(({ destination, weight }) => ({
        destination: dumpGateway(destination),
        weight,
      })),
    ),
  };
}

/** By workload uid. */
export function dumpEndpoints(endpoints: Iterable<DumpedEndpoint>): ReadonlyMap<string, Dumped> {
  const byUid = new Map<string, Dumped>();
  for (const { workloadUid, ports, status } of endpoints) {
    byUid.set(workloadUid, { workloadUid, port: dumpPorts(ports), status });
  }
  return byUid;
}

export function dumpPolicy(policy: AuthorizationPolicy): Dumped {
  return {
    action: policy.action,
    dryRun: policy.dryRun,
    name: policy.name,
    namespace: policy.namespace,
    rules: policy.rules.map((rule) => rule.map((clause) => clause.map(dumpMatch))),
    scope: policy.scope,
  };
}

function dumpMatch(match: PolicyMatch): Dumped {
  const { serviceAccounts, notServiceAccounts, destinationPorts, notDestinationPorts } = match;
  return {
    destinationIps: unlessEmpty(match.destinationIps.map(formatCidr)),
    destinationPorts: unlessEmpty(destinationPorts),
    namespaces: unlessEmpty(match.namespaces.map(dumpStringMatch)),
    notDestinationIps: unlessEmpty(match.notDestinationIps.map(formatCidr)),
    notDestinationPorts: unlessEmpty(notDestinationPorts),
    notNamespaces: unlessEmpty(match.notNamespaces.map(dumpStringMatch)),
    notPrincipals: unlessEmpty(match.notPrincipals.map(dumpStringMatch)),
    notServiceAccounts: unlessEmpty(notServiceAccounts),
    notSourceIps: unlessEmpty(match.notSourceIps.map(formatCidr)),
    principals: unlessEmpty(match.principals.map(dumpStringMatch)),
    serviceAccounts: unlessEmpty(serviceAccounts),
    sourceIps: unlessEmpty(match.sourceIps.map(formatCidr)),
  };
}

function dumpStringMatch(match: StringMatch): Dumped {
  switch (match.kind) {
    case "exact":
      return { Exact: match.value };
    case "prefix":
      return { Prefix: match.value };
    case "suffix":
      return { Suffix: match.value };
    case "presence":
      return { Presence: [] };
  }
}

function dumpGateway(gateway: GatewayAddress | undefined): Dumped | undefined {
  if (gateway === undefined) return undefined;
  const { destination, hboneMtlsPort } = gateway;
  return {
    destination:
      destination.kind === "hostname"
        ? `${destination.namespace}/${destination.hostname}`
        : formatNetworkAddress(destination.network, destination.ip),
    hboneMtlsPort,
  };
}

function dumpPorts(ports: PortMap): ReadonlyMap<string, number> {
  return new Map([...ports].map(([port, target]) => [String(port), target]));
}

function formatCidr({ ip, prefixLength }: Cidr): string {
  return `${ip}/${prefixLength}`;
}

function isKnown({ region, zone, subzone }: Locality): boolean {
  return region !== "" || zone !== "" || subzone !== "";
}

function unlessEmpty<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length === 0 ? undefined : list;
}
