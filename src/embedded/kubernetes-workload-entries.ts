/** Workload entries: machines outside of Kubernetes, alone or as endpoints of a ServiceEntry. */
import type { Locality, Workload as WorkloadMessage } from "../wire/proto/istio-workload.ts";
import type { KubernetesFields, Labels } from "./kubernetes-fields.ts";
import type { KubernetesMetadata } from "./kubernetes-metadata.ts";
import type { KnownPort, KnownService } from "./kubernetes-services.ts";
import {
  addressOrHostname,
  makeWorkload,
  selectingServices,
  type WorkloadSurroundings,
} from "./kubernetes-workload.ts";

const GROUP_ANNOTATION = "istio.io/autoRegistrationGroup";
const WORKLOAD_NAME_LABEL = "service.istio.io/workload-name";
const UINT32_MAX = 2 ** 32 - 1;

/** What a WorkloadEntry says, also inside a ServiceEntry. */
export interface WorkloadEntry {
  /** IP address or hostname. */
  readonly address: string;
  /** Name → number. */
  readonly ports: ReadonlyMap<string, number>;
  readonly labels: Labels;
  /** Empty for the cluster's own. */
  readonly network: string;
  readonly locality: Locality | undefined;
  /** 0 is not written. */
  readonly weight: number;
  readonly serviceAccount: string;
}

export function readWorkloadEntry(spec: KubernetesFields): WorkloadEntry {
  const ports = spec.fields("ports");
  return {
    address: spec.text("address"),
    ports: new Map(ports.keys().map((name) => [name, ports.port(name)])),
    labels: spec.labels("labels"),
    network: spec.text("network"),
    locality: parseLocality(spec.text("locality")),
    weight: spec.integer("weight", UINT32_MAX),
    serviceAccount: spec.text("serviceAccount"),
  };
}

/** `region/zone/subzone`, each but the first may be left out. */
function parseLocality(text: string): Locality | undefined {
  const [region = "", zone = "", subzone = ""] = text.split("/");
  return region + zone + subzone === "" ? undefined : { region, zone, subzone };
}

export function entryWorkload(
  metadata: KubernetesMetadata,
  entry: WorkloadEntry,
  surroundings: WorkloadSurroundings,
): WorkloadMessage {
  const { name, namespace, annotations } = metadata;
  const labels = new Map([...entry.labels, ...metadata.labels]);
  const labelled = { ...metadata, labels };
  return makeWorkload(
    {
      uid: `${surroundings.clusterId}/networking.istio.io/WorkloadEntry/${namespace}/${name}`,
      metadata: labelled,
      ...addressOrHostname(entry.address),
      network: entry.network || surroundings.network,
      serviceAccount: entry.serviceAccount,
      workloadName: annotations.get(GROUP_ANNOTATION) ?? labels.get(WORKLOAD_NAME_LABEL) ?? name,
      waypointLabels: labels,
      services: selectingServices(labelled, surroundings.services),
      targetPort: (port, service) => entryTargetPort(entry, port, service),
      locality: entry.locality,
      weight: entry.weight,
    },
    surroundings,
  );
}

/** The entry's port of the target's name, or else of the service port's. */
export function entryTargetPort(
  { ports }: WorkloadEntry,
  port: KnownPort,
  service: KnownService,
): number | undefined {
  if (service.kind === "Service" && port.targetName !== "") return ports.get(port.targetName);
  return ports.get(port.name) ?? port.targetPort;
}
