/**
 * The mesh that istiod would make of Kubernetes objects: everything a ztunnel is sent, in the bytes
 * in which it is sent.
 *
 * Pure: the same documents and options give the same mesh. It was held against a real istiod, object
 * by object (test/embedded/kubernetes-mesh.test.ts).
 *
 * @see spec control-plane 2.1, 2.2, 3.5, 4.4
 */
import { type IpAddress, ipAddressFromBytes } from "../mesh/ip-address.ts";
import { encodeMessage } from "../wire/message-codec.ts";
import { Authorization } from "../wire/proto/istio-security.ts";
import { Address, type Workload as WorkloadMessage } from "../wire/proto/istio-workload.ts";
import { type AllocatedAddresses, allocateAddresses } from "./kubernetes-address-allocation.ts";
import { readAuthorizationPolicy } from "./kubernetes-authorization-policies.ts";
import type { KubernetesDocument } from "./kubernetes-document.ts";
import { readEndpointSlice, sliceWorkloads } from "./kubernetes-endpoint-slices.ts";
import { readGateway } from "./kubernetes-gateways.ts";
import { type NetworkGateway, networkGatewaysOf } from "./kubernetes-network-gateways.ts";
import { KubernetesObjects } from "./kubernetes-objects.ts";
import { PeerAuthentications, readPeerAuthentication } from "./kubernetes-peer-authentications.ts";
import { Namespaces, nodeLocality } from "./kubernetes-places.ts";
import { podWorkload, readPod } from "./kubernetes-pods.ts";
import { policyKey, WorkloadPolicies } from "./kubernetes-policies.ts";
import {
  allocationKey,
  entryServices,
  entryWorkloads,
  hostsToAllocate,
  readServiceEntry,
  type ServiceEntry,
  type ServiceEntryVisibility,
} from "./kubernetes-service-entries.ts";
import {
  type KnownService,
  knownService,
  readService,
  selectServices,
} from "./kubernetes-services.ts";
import { Waypoints } from "./kubernetes-waypoints.ts";
import { addressOrHostname, plainWorkload, serviceKey } from "./kubernetes-workload.ts";
import { entryWorkload, readWorkloadEntry } from "./kubernetes-workload-entries.ts";

export interface KubernetesOptions {
  /** Begins every uid. */
  readonly clusterId: string;
  readonly trustDomain: string;
  /** Its policies are for the whole mesh, its label names the network. */
  readonly rootNamespace: string;
  /** Ends the hostnames of Services. */
  readonly clusterDomain: string;
  /** Pass on policies that only report (AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY). */
  readonly dryRunPolicies: boolean;
  /** Let waypoints reach what they stand before (PILOT_AUTO_ALLOW_WAYPOINT_POLICY). */
  readonly autoAllowWaypoints: boolean;
  /** Leave out the workloads of other networks (AMBIENT_ENABLE_MULTI_NETWORK). */
  readonly multiNetwork: boolean;
  /** By namespace; others are public (serviceEntryVisibility of the mesh config). */
  readonly serviceEntryVisibility: ReadonlyMap<string, ServiceEntryVisibility>;
  /** Of the translation before this one, so that hosts keep their addresses. */
  readonly allocated: AllocatedAddresses;
}

/** istiod's own. */
export const KUBERNETES_DEFAULTS: KubernetesOptions = {
  clusterId: "Kubernetes",
  trustDomain: "cluster.local",
  rootNamespace: "istio-system",
  clusterDomain: "cluster.local",
  dryRunPolicies: false,
  autoAllowWaypoints: false,
  multiNetwork: false,
  serviceEntryVisibility: new Map(),
  allocated: new Map(),
};

export interface KubernetesMesh {
  /** Name → bytes of an `istio.workload.Address`. */
  readonly addresses: ReadonlyMap<string, Uint8Array>;
  /** Name → bytes of an `istio.security.Authorization`. */
  readonly authorizations: ReadonlyMap<string, Uint8Array>;
  /** Given to hosts without addresses; for the options of the next translation. */
  readonly allocated: AllocatedAddresses;
  /**
   * `document 3, line 41: Pod shop/db-0: spec.nodeName: must be text, not 1`. The document is left
   * out, except that a policy keeps denying.
   */
  readonly mistakes: readonly string[];
  /** What was passed over because a mesh has no use for it. */
  readonly notes: readonly string[];
}

/**
 * @param documents one of the same kind and name takes the place of one before it. The older of two
 *   objects is the one with the earlier `creationTimestamp`, else the one that stands first.
 */
export function translateKubernetes(
  documents: readonly KubernetesDocument[],
  options: KubernetesOptions,
): KubernetesMesh {
  const objects = new KubernetesObjects(documents);
  const { rootNamespace } = options;
  const namespaces = new Namespaces(objects.read("Namespace", (metadata) => metadata));
  const nodes = objects.read(
    "Node",
    ({ name, ...rest }) => [name, nodeLocality({ name, ...rest })] as const,
  );
  const gateways = objects.read("Gateway", readGateway);
  const pods = objects.read("Pod", readPod);
  const plainServices = objects.read("Service", readService);
  const serviceEntries = objects.read("ServiceEntry", readServiceEntry);
  const workloadEntries = objects.read("WorkloadEntry", (metadata, fields) => ({
    metadata,
    entry: readWorkloadEntry(fields.fields("spec")),
  }));
  const slices = objects.read("EndpointSlice", readEndpointSlice);
  const peerAuthentications = objects.read("PeerAuthentication", readPeerAuthentication);
  const authorizations = objects.readPolicies((metadata, fields, mistakeCount) =>
    readAuthorizationPolicy(metadata, fields, options, mistakeCount),
  );

  const network = namespaces.network(rootNamespace);
  const sources = { gateways, namespaces, pods, services: plainServices, network };
  const waypoints = new Waypoints({ ...sources, clusterDomain: options.clusterDomain });
  const allocated = allocate(serviceEntries, options.allocated);
  const around = { ...options, namespaces, waypoints, network, allocated };
  const services = selectServices([
    ...plainServices.map((service) => knownService(service, around)),
    ...serviceEntries.flatMap((entry) => entryServices(entry, around)),
  ]);
  const policies = new WorkloadPolicies({
    ...options,
    authorizations,
    peerAuthentications: new PeerAuthentications(peerAuthentications, rootNamespace),
    waypoints: waypoints.all(),
  });
  const networkGateways = gateways.flatMap(networkGatewaysOf);
  const surroundings = { ...around, networkGateways, policies, services };
  const localities = new Map(nodes);
  const workloads = [
    ...pods.flatMap((pod) => podWorkload(pod, localities, slices, surroundings) ?? []),
    ...workloadEntries.map(({ metadata, entry }) => entryWorkload(metadata, entry, surroundings)),
    ...serviceEntries.flatMap((entry) => entryWorkloads(entry, surroundings)),
    ...slices.flatMap((slice) => sliceWorkloads(slice, surroundings)),
  ].filter((workload) => !options.multiNetwork || workload.network === network);
  const gatewayWorkloads = networkGateways.map((gateway) => gatewayWorkload(gateway, options));
  return {
    addresses: new Map([
      ...services.map((service) => encodeService(service)),
      ...[...workloads, ...gatewayWorkloads].map(encodeWorkload),
    ]),
    authorizations: new Map(
      policies.all().map((policy) => [policyKey(policy), encodeMessage(Authorization, policy)]),
    ),
    allocated,
    mistakes: objects.mistakes,
    notes: objects.notes,
  };
}

function allocate(
  entries: readonly ServiceEntry[],
  before: AllocatedAddresses,
): AllocatedAddresses {
  const keys = entries.flatMap((entry) =>
    hostsToAllocate(entry).map((host) => ({ key: allocationKey(entry, host), entry, host })),
  );
  const given = keys.flatMap(({ key, entry, host }): [string, readonly IpAddress[]][] => {
    const ips = entry.given.get(host);
    return ips === undefined ? [] : [[key, ips]];
  });
  const taken = entries.flatMap(({ addresses }) =>
    addresses.flatMap(({ bytes }) => ipAddressFromBytes(bytes) ?? []),
  );
  return allocateAddresses(
    keys.map(({ key }) => key),
    new Map([...before, ...given]),
    new Set(taken),
  );
}

/** So that a gateway's own identity can be looked up by its address. */
function gatewayWorkload(gateway: NetworkGateway, options: KubernetesOptions): WorkloadMessage {
  const { network, namespace, serviceAccount, address, port } = gateway;
  const uid = `NetworkGateway/${network}/${address}/${port}`;
  const { addresses, hostname } = addressOrHostname(address);
  return {
    ...plainWorkload(options),
    uid,
    name: uid,
    namespace,
    network,
    serviceAccount,
    addresses: [...addresses],
    hostname,
  };
}

function encodeService(service: KnownService): [string, Uint8Array] {
  const type = { $case: "service", value: service.message } as const;
  return [serviceKey(service), encodeMessage(Address, { type })];
}

function encodeWorkload(workload: WorkloadMessage): [string, Uint8Array] {
  const type = { $case: "workload", value: workload } as const;
  return [workload.uid, encodeMessage(Address, { type })];
}
