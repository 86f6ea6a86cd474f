/** Pods as workloads. */
import {
  type Locality,
  NetworkMode,
  type Workload as WorkloadMessage,
  WorkloadStatus,
} from "../wire/proto/istio-workload.ts";
import { parseAddress } from "./kubernetes-addresses.ts";
import { type EndpointSlice, serviceOf } from "./kubernetes-endpoint-slices.ts";
import type { KubernetesFields } from "./kubernetes-fields.ts";
import type { KubernetesMetadata } from "./kubernetes-metadata.ts";
import type { KnownPort, KnownService } from "./kubernetes-services.ts";
import {
  makeWorkload,
  selectingServices,
  type WorkloadSurroundings,
} from "./kubernetes-workload.ts";

const WORKLOAD_NAME_LABEL = "service.istio.io/workload-name";
/** A cron job names its jobs by the minute. */
const CRON_JOB = /^(.+)-\d{8,10}$/;

export interface Pod extends KubernetesMetadata {
  /** Empty when it is not known: then no endpoint can mean this pod. */
  readonly uid: string;
  readonly workloadName: string;
  readonly serviceAccount: string;
  readonly node: string;
  readonly isOnHostNetwork: boolean;
  readonly isReady: boolean;
  readonly hasEnded: boolean;
  readonly addresses: readonly Uint8Array[];
  /** Name → number, of TCP. */
  readonly ports: ReadonlyMap<string, number>;
}

export function readPod(metadata: KubernetesMetadata, fields: KubernetesFields): Pod {
  const meta = fields.fields("metadata");
  const spec = fields.fields("spec");
  const status = fields.fields("status");
  const ready = status.list("conditions").find((condition) => condition.text("type") === "Ready");
  return {
    ...metadata,
    uid: meta.text("uid"),
    workloadName: readWorkloadName(metadata, meta),
    // The apiserver's default.
    serviceAccount: spec.text("serviceAccountName") || "default",
    node: spec.text("nodeName"),
    isOnHostNetwork: spec.flag("hostNetwork"),
    isReady: ready?.text("status") === "True" && !meta.has("deletionTimestamp"),
    hasEnded: ["Succeeded", "Failed"].includes(status.text("phase")),
    addresses: readAddresses(status),
    ports: readPorts(spec),
  };
}

function readAddresses(status: KubernetesFields): readonly Uint8Array[] {
  const several = status.list("podIPs").map((item) => item.text("ip"));
  const texts = several.length > 0 ? several : [status.text("podIP")];
  return texts.flatMap((text) => {
    const address = parseAddress(text);
    if (address === undefined && text !== "") {
      status.mistake("podIP", `must be an IP address, not ${text}`);
    }
    return address ?? [];
  });
}

/** Of containers and of those that are started before them and stay. */
function readPorts(spec: KubernetesFields): ReadonlyMap<string, number> {
  const sidecars = spec
    .list("initContainers")
    .filter((container) => container.text("restartPolicy") === "Always");
  const ports = [...spec.list("containers"), ...sidecars]
    .flatMap((container) => container.list("ports"))
    .filter((port) => ["", "TCP"].includes(port.text("protocol")))
    .map((port) => [port.text("name"), port.port("containerPort")] as const);
  // Of two of one name the first counts.
  return new Map(ports.toReversed());
}

/** What runs the pod, as far as names tell: the Deployment of a ReplicaSet, the CronJob of a Job. */
function readWorkloadName({ name, labels }: KubernetesMetadata, meta: KubernetesFields): string {
  const label = labels.get(WORKLOAD_NAME_LABEL);
  if (label !== undefined) return label;
  const owner = meta.list("ownerReferences").find((reference) => reference.flag("controller"));
  if (owner === undefined || meta.text("generateName") === "") return name;
  const ownerName = owner.text("name");
  switch (owner.text("kind")) {
    case "ReplicaSet": {
      const hashes = [labels.get("pod-template-hash"), labels.get("rollouts-pod-template-hash")];
      const suffix = hashes.map((hash) => `-${hash}`).find((end) => ownerName.endsWith(end));
      return suffix === undefined ? ownerName : ownerName.slice(0, -suffix.length);
    }
    case "ReplicationController":
      return labels.get("deploymentconfig") || ownerName;
    case "Job":
      return CRON_JOB.exec(ownerName)?.[1] ?? ownerName;
    default:
      return ownerName;
  }
}

/** @returns `undefined` for a pod that has no address yet or has ended. */
export function podWorkload(
  pod: Pod,
  localities: ReadonlyMap<string, Locality | undefined>,
  slices: readonly EndpointSlice[],
  surroundings: WorkloadSurroundings,
): WorkloadMessage | undefined {
  if (pod.hasEnded || pod.addresses.length === 0) return undefined;
  const workload = makeWorkload(
    {
      uid: `${surroundings.clusterId}//Pod/${pod.namespace}/${pod.name}`,
      metadata: pod,
      addresses: pod.addresses,
      hostname: "",
      network: surroundings.network,
      serviceAccount: pod.serviceAccount,
      workloadName: pod.workloadName,
      waypointLabels: pod.labels,
      services: servicesOf(pod, slices, surroundings),
      targetPort: (port, service) => targetPort(pod, port, service),
      locality: localities.get(pod.node),
      weight: 0,
    },
    surroundings,
  );
  return {
    ...workload,
    node: pod.node,
    status: pod.isReady ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
    networkMode: pod.isOnHostNetwork ? NetworkMode.HOST_NETWORK : NetworkMode.STANDARD,
  };
}

/** Those that select it, and those without a selector whose endpoints name it. */
function servicesOf(
  pod: Pod,
  slices: readonly EndpointSlice[],
  { services }: WorkloadSurroundings,
): readonly KnownService[] {
  const selecting = selectingServices(pod, services);
  const others = slices
    .filter(({ targets }) => targets.some((target) => isTarget(target, pod)))
    .flatMap((slice) => serviceOf(slice, services) ?? []);
  return [...new Set([...selecting, ...others])];
}

/** An endpoint means the very pod that was there, not the next of its name. */
function isTarget({ namespace, name, uid }: EndpointSlice["targets"][number], pod: Pod): boolean {
  return uid !== "" && uid === pod.uid && name === pod.name && namespace === pod.namespace;
}

/** A Service names a port of the pod; a port of a ServiceEntry is the pod's of the same name. */
function targetPort(pod: Pod, port: KnownPort, service: KnownService): number | undefined {
  if (port.targetName !== "") return pod.ports.get(port.targetName);
  const sameName = service.kind === "ServiceEntry" ? pod.ports.get(port.name) : undefined;
  return sameName ?? port.targetPort;
}
