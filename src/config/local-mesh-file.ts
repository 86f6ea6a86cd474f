/**
 * The mesh from a YAML file instead of a control plane.
 *
 * The format is the original's, down to string matches as YAML tags (`!Exact x`). Defaults that a
 * control plane's client would fill in are not applied: what is left out stays empty.
 *
 * @see spec control-plane 6.7.
 */
import { readFileSync } from "node:fs";
import type { GatewayAddress } from "../mesh/gateway-address.ts";
import { LOAD_BALANCING_SCOPES } from "../mesh/load-balancing-scope.ts";
import type { MeshUpdate } from "../mesh/mesh-update.ts";
import {
  type LoadBalancer,
  type Service,
  serviceKey,
  type WeightedWaypoint,
} from "../mesh/service.ts";
import type {
  ApplicationTunnel,
  HealthStatus,
  Locality,
  PortMap,
  Workload,
} from "../mesh/workload.ts";
import { systemProblem } from "../runtime/system-problem.ts";
import { readPolicy } from "./local-mesh-policy.ts";
import {
  optionalText,
  PORT_MAX,
  parseNetworkAddress,
  readIp,
  readNetworkAddress,
  readNetworkCidr,
  readPorts,
  readTexts,
  requiredText,
} from "./local-mesh-values.ts";
import { YamlFile, type YamlValue } from "./yaml-record.ts";

const UINT32_MAX = 2 ** 32 - 1;

/** The file can't be read, or says something that is not understood. */
export class LocalMeshError extends Error {
  override readonly name = "LocalMeshError";
  /** All of them, `file:line: what is wrong`. */
  readonly mistakes: readonly string[];

  constructor(mistakes: readonly string[], cause?: unknown) {
    super(mistakes.join("\n"), cause === undefined ? undefined : { cause });
    this.mistakes = mistakes;
  }
}

/**
 * Reads the file that LOCAL_XDS_PATH names.
 *
 * @throws LocalMeshError when it can't be read or has mistakes.
 */
export function readLocalMeshFile(path: string): readonly MeshUpdate[] {
  return parseLocalMesh(readLocalMeshText(path), path);
}

/**
 * The text of such a file.
 *
 * @throws LocalMeshError when it can't be read.
 */
export function readLocalMeshText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new LocalMeshError([`can't read ${path}: ${systemProblem(error)}`], error);
  }
}

/**
 * Reads the text of such a file: workloads, then policies, then services.
 *
 * @param origin what mistakes call the file, such as its path or `LOCAL_XDS`.
 * @throws LocalMeshError with every mistake.
 */
export function parseLocalMesh(text: string, origin: string): readonly MeshUpdate[] {
  const file = new YamlFile(text, origin);
  const root = file.root();
  const policies = root.optional("policies", (list) => list.list(readPolicy)) ?? [];
  const services = root.optional("services", (list) => list.list(readService)) ?? [];
  const workloads = root.optional("workloads", (list) => list.list(readWorkload)) ?? [];
  root.refuseUnknownKeys();
  const linked = linkEndpoints(workloads, services);
  const { mistakes } = file;
  if (mistakes.length > 0) throw new LocalMeshError(mistakes);
  return [
    ...linked.map((workload): MeshUpdate => ({ kind: "workload", workload })),
    ...policies.map((policy): MeshUpdate => ({ kind: "policy", policy })),
    ...services.map(({ service }): MeshUpdate => ({ kind: "service", service })),
  ];
}

/** A service may list endpoints itself, besides those that workloads claim. */
interface ListedService {
  readonly service: Service;
  readonly endpoints: readonly ListedEndpoint[];
}

interface ListedEndpoint {
  readonly workloadUid: string;
  readonly port: PortMap;
  readonly status: HealthStatus;
  readonly written: YamlValue;
}

/** Gives each workload the services that list it, as if the workload had claimed them. */
function linkEndpoints(
  workloads: readonly Workload[],
  services: readonly ListedService[],
): Workload[] {
  const byUid = new Map(workloads.map((workload) => [workload.uid, workload]));
  for (const { service, endpoints } of services) {
    for (const { workloadUid, port, status, written } of endpoints) {
      const workload = byUid.get(workloadUid);
      if (workload === undefined) {
        written.mistake(`no workload has the uid ${workloadUid}`);
      } else if (workload.status !== status) {
        written.mistake(`is ${status}, but its workload is ${workload.status}`);
      } else {
        const claimed = new Map(workload.services).set(serviceKey(service), port);
        byUid.set(workloadUid, { ...workload, services: claimed });
      }
    }
  }
  return workloads.map((workload) => byUid.get(workload.uid) ?? workload);
}

function readWorkload(value: YamlValue): Workload {
  return value.record((record) => ({
    uid: optionalText(record, "uid"),
    name: optionalText(record, "name"),
    namespace: requiredText(record, "namespace"),
    ips: record.required("workloadIps", (ips) => ips.list(readIp), []),
    hostname: optionalText(record, "hostname"),
    network: optionalText(record, "network"),
    protocol: record.optional("protocol", (text) => text.oneOf(["TCP", "HBONE"])) ?? "TCP",
    trustDomain: optionalText(record, "trustDomain"),
    serviceAccount: optionalText(record, "serviceAccount"),
    waypoint: record.optional("waypoint", readGateway),
    networkGateway: record.optional("networkGateway", readGateway),
    node: optionalText(record, "node"),
    canonicalName: optionalText(record, "canonicalName"),
    canonicalRevision: optionalText(record, "canonicalRevision"),
    workloadType: optionalText(record, "workloadType"),
    workloadName: optionalText(record, "workloadName"),
    nativeTunnel: record.optional("nativeTunnel", (flag) => flag.flag()) ?? false,
    authorizationPolicies: readTexts(record, "authorizationPolicies"),
    status: record.optional("status", readStatus) ?? "Healthy",
    clusterId: optionalText(record, "clusterId"),
    services: record.required(
      "services",
      (services) => services.map((key) => key.text(), readPorts),
      new Map(),
    ),
    applicationTunnel: record.optional("applicationTunnel", readApplicationTunnel),
    locality: record.optional("locality", readLocality) ?? { region: "", zone: "", subzone: "" },
    networkMode:
      record.optional("networkMode", (text) => text.oneOf(["Standard", "HostNetwork"])) ??
      "Standard",
    capacity: record.optional("capacity", (number) => number.integer(UINT32_MAX)) ?? 1,
  }));
}

function readService(value: YamlValue): ListedService {
  return value.record((record) => ({
    service: {
      name: requiredText(record, "name"),
      namespace: requiredText(record, "namespace"),
      hostname: requiredText(record, "hostname"),
      vips: record.required("vips", (vips) => vips.list(readNetworkAddress), []),
      cidrVips: record.optional("cidrVips", (ranges) => ranges.list(readNetworkCidr)) ?? [],
      ports: record.required("ports", readPorts, new Map()),
      subjectAltNames: readTexts(record, "subjectAltNames"),
      waypoint: record.optional("waypoint", readGateway),
      weightedWaypoints:
        record.optional("weightedWaypoints", (list) => list.list(readWeightedWaypoint)) ?? [],
      loadBalancer: record.optional("loadBalancer", readLoadBalancer),
      ipFamilies:
        record.optional("ipFamilies", (text) => text.oneOf(["Dual", "IPv4", "IPv6"])) ??
        "Automatic",
      canonical: record.optional("canonical", (flag) => flag.flag()) ?? false,
      visibility:
        record.optional("visibility", (text) => text.oneOf(["Public", "Namespace"])) ?? "Public",
      affinitySeconds: record.optional("affinitySeconds", (seconds) => seconds.integer(UINT32_MAX)),
    },
    endpoints: [
      ...(
        record.optional("endpoints", (endpoints) =>
          endpoints.map((key) => key.text(), readEndpoint),
        ) ?? new Map<string, ListedEndpoint>()
      ).values(),
    ],
  }));
}

function readEndpoint(value: YamlValue): ListedEndpoint {
  return value.record((record) => ({
    workloadUid: requiredText(record, "workloadUid"),
    port: record.required("port", readPorts, new Map()),
    status: record.required("status", readStatus, "Healthy"),
    written: value,
  }));
}

function readGateway(value: YamlValue): GatewayAddress {
  return value.record((record) => ({
    destination: record.required("destination", readDestination, NOWHERE),
    hboneMtlsPort: record.required("hboneMtlsPort", (port) => port.integer(PORT_MAX), 0),
  }));
}

/** `network/IP`, or else `namespace/hostname`. */
function readDestination(value: YamlValue): GatewayAddress["destination"] {
  const text = value.text();
  const address = parseNetworkAddress(text);
  if (address !== undefined) return { kind: "address", ...address };
  const [namespace, hostname, ...rest] = text.split("/");
  if (namespace === undefined || hostname === undefined || rest.length > 0) {
    value.mistake(`must be network/address or namespace/hostname, not ${text}`);
    return NOWHERE;
  }
  return { kind: "hostname", namespace, hostname };
}

const NOWHERE: GatewayAddress["destination"] = { kind: "hostname", namespace: "", hostname: "" };

function readWeightedWaypoint(value: YamlValue): WeightedWaypoint {
  return value.record((record) => ({
    destination: record.required("destination", readGateway, {
      destination: NOWHERE,
      hboneMtlsPort: 0,
    }),
    weight: record.required("weight", (weight) => weight.integer(UINT32_MAX), 0),
  }));
}

function readLoadBalancer(value: YamlValue): LoadBalancer {
  return value.record((record) => ({
    routingPreferences: record.required(
      "routingPreferences",
      (list) => list.list((scope) => scope.oneOf(LOAD_BALANCING_SCOPES)),
      [],
    ),
    mode: record.required(
      "mode",
      (text) => text.oneOf(["Standard", "Strict", "Failover", "Passthrough"]),
      "Standard",
    ),
    healthPolicy: record.required(
      "healthPolicy",
      (text) => text.oneOf(["OnlyHealthy", "AllowAll"]),
      "OnlyHealthy",
    ),
  }));
}

function readApplicationTunnel(value: YamlValue): ApplicationTunnel {
  return value.record((record) => ({
    protocol: record.required("protocol", (text) => text.oneOf(["NONE", "PROXY"]), "NONE"),
    // A port of 0 is none, as on the wire.
    port: record.optional("port", (port) => port.integer(PORT_MAX)) || undefined,
  }));
}

function readLocality(value: YamlValue): Locality {
  return value.record((record) => ({
    region: requiredText(record, "region"),
    zone: requiredText(record, "zone"),
    subzone: requiredText(record, "subzone"),
  }));
}

function readStatus(value: YamlValue): HealthStatus {
  return value.oneOf(["Healthy", "Unhealthy"]);
}
