/**
 * The mesh that istiod would make of Kubernetes objects: everything a ztunnel is sent, in the bytes
 * in which it is sent.
 *
 * Pure: the same documents and options give the same mesh. It was held against a real istiod, object
 * by object (test/embedded/kubernetes-mesh.test.ts).
 *
 * @see spec control-plane 2.1, 2.2, 3.5, 4.4
 */
import { encodeMessage } from "../wire/message-codec.ts";
import { Authorization } from "../wire/proto/istio-security.ts";
import {
  Address,
  type Locality,
  type Workload as WorkloadMessage,
} from "../wire/proto/istio-workload.ts";
import type { AllocatedAddresses } from "./kubernetes-address-allocation.ts";
import {
  readAuthorizationPolicy,
  type SelectingPolicy,
} from "./kubernetes-authorization-policies.ts";
import type { KubernetesDocument } from "./kubernetes-document.ts";
import {
  type EndpointSlice,
  readEndpointSlice,
  sliceWorkloads,
} from "./kubernetes-endpoint-slices.ts";
import { type Gateway, readGateway } from "./kubernetes-gateways.ts";
import type { KubernetesMetadata } from "./kubernetes-metadata.ts";
import { type NetworkGateway, networkGatewaysOf } from "./kubernetes-network-gateways.ts";
import { KubernetesObjects } from "./kubernetes-objects.ts";
import {
  type PeerAuthentication,
  PeerAuthentications,
  readPeerAuthentication,
} from "./kubernetes-peer-authentications.ts";
import { Namespaces, nodeLocality } from "./kubernetes-places.ts";
import { type Pod, podWorkload, readPod } from "./kubernetes-pods.ts";
import { policyKey, WorkloadPolicies } from "./kubernetes-policies.ts";
import {
  allocateHosts,
  entryServices,
  entryWorkloads,
  readServiceEntry,
  type ServiceEntry,
  type ServiceEntryVisibility,
} from "./kubernetes-service-entries.ts";
import {
  type KnownService,
  type KubernetesService,
  knownService,
  readService,
  selectServices,
} from "./kubernetes-services.ts";
import { uncapturedPodNotes } from "./kubernetes-uncaptured-pods.ts";
import { Waypoints } from "./kubernetes-waypoints.ts";
import {
  addressOrHostname,
  plainWorkload,
  serviceKey,
  type WorkloadSurroundings,
} from "./kubernetes-workload.ts";
import {
  entryWorkload,
  readWorkloadEntry,
  type WorkloadEntry,
} from "./kubernetes-workload-entries.ts";

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
   * out, so a mesh with mistakes may allow more than was meant: it is not to be served.
   */
  readonly mistakes: readonly string[];
  /** What was passed over because a mesh has no use for it, and what is hardly meant so. */
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
  const read = readObjects(objects, options);
  const { rootNamespace, clusterDomain } = options;
  const network = read.namespaces.network(rootNamespace);
  const waypoints = new Waypoints({ ...read, network, clusterDomain });
  const allocated = allocateHosts(read.serviceEntries, options.allocated);
  const around = { ...options, namespaces: read.namespaces, waypoints, network, allocated };
  const services = selectServices([
    ...read.services.map((service) => knownService(service, around)),
    ...read.serviceEntries.flatMap((entry) => entryServices(entry, around)),
  ]);
  const policies = new WorkloadPolicies({
    ...options,
    authorizations: read.authorizationPolicies,
    peerAuthentications: new PeerAuthentications(read.peerAuthentications, rootNamespace),
    waypoints: waypoints.all(),
  });
  const networkGateways = read.gateways.flatMap(networkGatewaysOf);
  const workloads = makeWorkloads(read, { ...around, networkGateways, policies, services });
  const others = networkGateways.map((gateway) => gatewayWorkload(gateway, options));
  return {
    addresses: new Map([
      ...services.map((service) => encodeService(service)),
      ...workloads
        .filter((workload) => !options.multiNetwork || workload.network === network)
        .map(encodeWorkload),
      ...others.map(encodeWorkload),
    ]),
    authorizations: new Map(
      policies.all().map((policy) => [policyKey(policy), encodeMessage(Authorization, policy)]),
    ),
    allocated,
    mistakes: objects.mistakes,
    notes: [...objects.notes, ...uncapturedPodNotes(read.pods, read.namespaces)],
  };
}

/** All that a mesh is made of, each kind oldest first. */
interface ReadObjects {
  readonly namespaces: Namespaces;
  /** Node → where it is. */
  readonly localities: ReadonlyMap<string, Locality | undefined>;
  readonly gateways: readonly Gateway[];
  readonly pods: readonly Pod[];
  readonly services: readonly KubernetesService[];
  readonly slices: readonly EndpointSlice[];
  readonly serviceEntries: readonly ServiceEntry[];
  readonly workloadEntries: readonly (readonly [KubernetesMetadata, WorkloadEntry])[];
  readonly authorizationPolicies: readonly SelectingPolicy[];
  readonly peerAuthentications: readonly PeerAuthentication[];
}

function readObjects(objects: KubernetesObjects, options: KubernetesOptions): ReadObjects {
  return {
    namespaces: new Namespaces(objects.read("Namespace", (metadata) => metadata)),
    localities: new Map(
      objects.read("Node", (metadata) => [metadata.name, nodeLocality(metadata)] as const),
    ),
    gateways: objects.read("Gateway", readGateway),
    pods: objects.read("Pod", readPod),
    services: objects.read("Service", readService),
    slices: objects.read("EndpointSlice", readEndpointSlice),
    serviceEntries: objects.read("ServiceEntry", readServiceEntry),
    workloadEntries: objects.read("WorkloadEntry", (metadata, fields) => {
      return [metadata, readWorkloadEntry(fields.fields("spec"))] as const;
    }),
    authorizationPolicies: objects.read("AuthorizationPolicy", (metadata, fields) =>
      readAuthorizationPolicy(metadata, fields, options),
    ),
    peerAuthentications: objects.read("PeerAuthentication", readPeerAuthentication),
  };
}

function makeWorkloads(
  { pods, localities, slices, workloadEntries, serviceEntries }: ReadObjects,
  surroundings: WorkloadSurroundings,
): readonly WorkloadMessage[] {
  return [
    ...pods.flatMap((pod) => podWorkload(pod, localities, slices, surroundings) ?? []),
    ...workloadEntries.map(([metadata, entry]) => entryWorkload(metadata, entry, surroundings)),
    ...serviceEntries.flatMap((entry) => entryWorkloads(entry, surroundings)),
    ...slices.flatMap((slice) => sliceWorkloads(slice, surroundings)),
  ];
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
