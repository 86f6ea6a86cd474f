/** Namespaces and nodes: what pods and services take from where they are. */
import type { Locality } from "../wire/proto/istio-workload.ts";
import type { Labels } from "./kubernetes-fields.ts";
import type { KubernetesMetadata } from "./kubernetes-metadata.ts";

const REGION_LABEL = "topology.kubernetes.io/region";
const ZONE_LABEL = "topology.kubernetes.io/zone";
const SUBZONE_LABEL = "topology.istio.io/subzone";
const NETWORK_LABEL = "topology.istio.io/network";
/** The apiserver writes it on every namespace. */
const NAME_LABEL = "kubernetes.io/metadata.name";

export interface Namespace {
  readonly labels: Labels;
  readonly annotations: Labels;
}

/** Namespaces by name; one that no document describes has no labels of its own. */
export class Namespaces {
  readonly #known: ReadonlyMap<string, Namespace>;

  constructor(namespaces: readonly KubernetesMetadata[]) {
    this.#known = new Map(
      namespaces.map(({ name, labels, annotations }) => [
        name,
        { labels: new Map([...labels, [NAME_LABEL, name]]), annotations },
      ]),
    );
  }

  find(name: string): Namespace {
    const unknown = { labels: new Map([[NAME_LABEL, name]]), annotations: new Map() };
    return this.#known.get(name) ?? unknown;
  }

  /** Of the whole cluster, from a label of the root namespace; empty is the default network. */
  network(rootNamespace: string): string {
    return this.find(rootNamespace).labels.get(NETWORK_LABEL) ?? "";
  }
}

/** The network that an object says it belongs to; empty when it does not say. */
export function networkLabel(labels: Labels): string {
  return labels.get(NETWORK_LABEL) ?? "";
}

/** @returns `undefined` when the node does not say. */
export function nodeLocality({ labels }: KubernetesMetadata): Locality | undefined {
  const region = labels.get(REGION_LABEL) ?? "";
  const zone = labels.get(ZONE_LABEL) ?? "";
  const subzone = labels.get(SUBZONE_LABEL) ?? "";
  return region + zone + subzone === "" ? undefined : { region, zone, subzone };
}
