/**
 * Endpoint slices, as far as pods do not say the same and more: addresses that somebody wrote by hand
 * behind a service.
 */
import {
  NetworkMode,
  type Port,
  type Workload as WorkloadMessage,
  WorkloadStatus,
} from "../wire/proto/istio-workload.ts";
import { parseAddress } from "./kubernetes-addresses.ts";
import type { KubernetesFields } from "./kubernetes-fields.ts";
import type { KubernetesMetadata } from "./kubernetes-metadata.ts";
import type { KnownService } from "./kubernetes-services.ts";
import { plainWorkload, serviceKey, type WorkloadSurroundings } from "./kubernetes-workload.ts";

const SERVICE_LABEL = "kubernetes.io/service-name";

export interface EndpointSlice {
  readonly name: string;
  readonly namespace: string;
  readonly serviceName: string;
  /** Of TCP. */
  readonly ports: readonly { readonly name: string; readonly port: number }[];
  readonly endpoints: readonly Endpoint[];
  /** Endpoints that are pods. */
  readonly targets: readonly {
    readonly namespace: string;
    readonly name: string;
    readonly uid: string;
  }[];
}

interface Endpoint {
  /** The first as text is part of the workload's uid. */
  readonly key: string;
  readonly addresses: readonly Uint8Array[];
  readonly isReady: boolean;
}

/** @returns `undefined` for a slice that is no service's, or has hostnames. */
export function readEndpointSlice(
  { name, namespace, labels }: KubernetesMetadata,
  fields: KubernetesFields,
): EndpointSlice | undefined {
  const serviceName = labels.get(SERVICE_LABEL);
  if (serviceName === undefined || fields.text("addressType") === "FQDN") return undefined;
  const all = fields.list("endpoints");
  const isPod = (endpoint: KubernetesFields) => endpoint.fields("targetRef").text("kind") === "Pod";
  return {
    name,
    namespace,
    serviceName,
    ports: fields
      .list("ports")
      .filter((port) => port.has("port") && ["", "TCP"].includes(port.text("protocol")))
      .map((port) => ({ name: port.text("name"), port: port.port("port") })),
    endpoints: all.filter((endpoint) => !isPod(endpoint)).flatMap((one) => readEndpoint(one)),
    targets: all.filter(isPod).map((endpoint) => {
      const target = endpoint.fields("targetRef");
      return {
        namespace: target.text("namespace"),
        name: target.text("name"),
        uid: target.text("uid"),
      };
    }),
  };
}

function readEndpoint(fields: KubernetesFields): readonly Endpoint[] {
  const texts = fields.texts("addresses");
  const addresses = texts.map(parseAddress).filter((address) => address !== undefined);
  const [key] = texts;
  if (key === undefined || addresses.length < texts.length) {
    fields.mistake("addresses", `must be IP addresses, not ${texts.join(", ") || "none"}`);
    return [];
  }
  const conditions = fields.fields("conditions");
  return [{ key, addresses, isReady: !conditions.has("ready") || conditions.flag("ready") }];
}

/** One workload for each endpoint that is no pod. */
export function sliceWorkloads(
  slice: EndpointSlice,
  surroundings: WorkloadSurroundings,
): readonly WorkloadMessage[] {
  const { name, namespace } = slice;
  const service = serviceOf(slice, surroundings.services);
  if (service === undefined) return [];
  const services = new Map([[serviceKey(service), { ports: portsOf(slice, service) }]]);
  return slice.endpoints.map(({ key, addresses, isReady }) => ({
    ...plainWorkload(surroundings),
    uid: `${surroundings.clusterId}/discovery.k8s.io/EndpointSlice/${namespace}/${name}/${key}`,
    name,
    namespace,
    addresses: [...addresses],
    network: surroundings.network,
    clusterId: surroundings.clusterId,
    services,
    status: isReady ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
    // Nobody knows whose address it is: as one that several may share.
    networkMode: NetworkMode.HOST_NETWORK,
  }));
}

/** The Service that the slice is for. */
export function serviceOf(
  { namespace, serviceName }: EndpointSlice,
  services: readonly KnownService[],
): KnownService | undefined {
  return services.find(
    ({ kind, source }) =>
      kind === "Service" && source.namespace === namespace && source.name === serviceName,
  );
}

function portsOf({ ports }: EndpointSlice, service: KnownService): Port[] {
  return ports.flatMap(({ name, port }) => {
    const known = service.ports.find((candidate) => candidate.name === name);
    if (known === undefined) return [];
    return { servicePort: known.servicePort, targetPort: port, appProtocol: 0 };
  });
}
