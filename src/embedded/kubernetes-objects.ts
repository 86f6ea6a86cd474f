/** Documents by kind, and what is wrong with them. */
import { formatPath, type KubernetesDocument } from "./kubernetes-document.ts";
import { KubernetesFields } from "./kubernetes-fields.ts";
import type { KubernetesMetadata } from "./kubernetes-metadata.ts";

/** Kind → API group, and whether its objects stand in namespaces. */
const KINDS = {
  Namespace: { group: "", isNamespaced: false },
  Node: { group: "", isNamespaced: false },
  Pod: { group: "", isNamespaced: true },
  Service: { group: "", isNamespaced: true },
  EndpointSlice: { group: "discovery.k8s.io", isNamespaced: true },
  Gateway: { group: "gateway.networking.k8s.io", isNamespaced: true },
  ServiceEntry: { group: "networking.istio.io", isNamespaced: true },
  WorkloadEntry: { group: "networking.istio.io", isNamespaced: true },
  AuthorizationPolicy: { group: "security.istio.io", isNamespaced: true },
  PeerAuthentication: { group: "security.istio.io", isNamespaced: true },
} as const;

type Kind = keyof typeof KINDS;

export class KubernetesObjects {
  readonly #byKind: ReadonlyMap<Kind | undefined, readonly KubernetesDocument[]>;
  readonly #mistakes: string[] = [];

  /** @param documents one of the same kind and name takes the place of one before it. */
  constructor(documents: readonly KubernetesDocument[]) {
    const last = new Map(documents.map((document) => [keyOf(document), document]));
    this.#byKind = Map.groupBy([...last.values()].toSorted(byAge), kindOf);
  }

  get mistakes(): readonly string[] {
    return this.#mistakes;
  }

  /** What was passed over, in one sentence. */
  get notes(): readonly string[] {
    const others = this.#byKind.get(undefined) ?? [];
    if (others.length === 0) return [];
    const counts = [...Map.groupBy(others, ({ kind }) => kind)].map(
      ([kind, { length }]) => `${length} ${kind}`,
    );
    return [`passed over, of no use for a mesh: ${counts.join(", ")}`];
  }

  /**
   * Objects of a kind, oldest first; those with mistakes are left out, as the apiserver refuses them.
   *
   * @param readOne may answer `undefined` for one that is not to be looked at.
   */
  read<Value>(
    kind: Kind,
    readOne: (metadata: KubernetesMetadata, fields: KubernetesFields) => Value | undefined,
  ): readonly Value[] {
    return this.#documents(kind).flatMap((document) => {
      const before = this.#mistakes.length;
      const value = this.#readOne(document, readOne);
      return this.#mistakes.length > before || value === undefined ? [] : [value];
    });
  }

  #documents(kind: Kind): readonly KubernetesDocument[] {
    return this.#byKind.get(kind) ?? [];
  }

  #readOne<Value>(
    document: KubernetesDocument,
    readOne: (metadata: KubernetesMetadata, fields: KubernetesFields) => Value,
  ): Value {
    const { kind, name, value, placeOf } = document;
    const namespace = namespaceOf(document);
    const who = `${kind} ${namespace === "" ? "" : `${namespace}/`}${name}`;
    const fields = new KubernetesFields(value, [], (path, problem) => {
      this.#mistakes.push(`${placeOf(path)}: ${who}: ${formatPath(path)}: ${problem}`);
    });
    const metadata = fields.fields("metadata");
    const labels = metadata.labels("labels");
    const annotations = metadata.labels("annotations");
    return readOne({ name, namespace, labels, annotations }, fields);
  }
}

function kindOf({ kind, group }: KubernetesDocument): Kind | undefined {
  if (!Object.hasOwn(KINDS, kind)) return undefined;
  return KINDS[kind as Kind].group === group ? (kind as Kind) : undefined;
}

/** Nothing written means the namespace `default`, as for kubectl. */
function namespaceOf(document: KubernetesDocument): string {
  const kind = kindOf(document);
  if (kind !== undefined && !KINDS[kind].isNamespaced) return "";
  return document.namespace || "default";
}

function keyOf(document: KubernetesDocument): string {
  return `${document.group}/${document.kind}/${namespaceOf(document)}/${document.name}`;
}

/** Times are texts of one form; what has none would be made now, so it is the youngest. */
function byAge(a: KubernetesDocument, b: KubernetesDocument): number {
  if (a.createdAt === b.createdAt) return 0;
  return b.createdAt === "" || (a.createdAt !== "" && a.createdAt < b.createdAt) ? -1 : 1;
}
