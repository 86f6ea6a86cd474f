/** What becomes of a few lines of Kubernetes YAML, decoded. */
import { readKubernetesDocuments } from "../../src/embedded/kubernetes-document.ts";
import {
  KUBERNETES_DEFAULTS,
  type KubernetesOptions,
  translateKubernetes,
} from "../../src/embedded/kubernetes-mesh.ts";
import { Authorization } from "../../src/wire/proto/istio-security.ts";
import { Address, type Service, type Workload } from "../../src/wire/proto/istio-workload.ts";

/** Each kind by its resource name. */
export interface TranslatedMesh {
  readonly workloads: ReadonlyMap<string, Workload>;
  readonly services: ReadonlyMap<string, Service>;
  readonly policies: ReadonlyMap<string, Authorization>;
  readonly mistakes: readonly string[];
  readonly notes: readonly string[];
}

export function meshOf(text: string, options: Partial<KubernetesOptions> = {}): TranslatedMesh {
  const { documents, mistakes } = readKubernetesDocuments(text);
  const mesh = translateKubernetes(documents, { ...KUBERNETES_DEFAULTS, ...options });
  const workloads = new Map<string, Workload>();
  const services = new Map<string, Service>();
  for (const [name, bytes] of mesh.addresses) {
    const { type } = Address.decode(bytes);
    if (type?.$case === "workload") workloads.set(name, type.value);
    if (type?.$case === "service") services.set(name, type.value);
  }
  const policies = new Map(
    Array.from(mesh.authorizations, ([name, bytes]) => [name, Authorization.decode(bytes)]),
  );
  return {
    workloads,
    services,
    policies,
    mistakes: [...mistakes, ...mesh.mistakes],
    notes: mesh.notes,
  };
}

/** A pod that is ready; `more` goes on at the top of the object. */
export function podYaml(name: string, metadata = "", more = "", spec = ""): string {
  return `
---
apiVersion: v1
kind: Pod
metadata: {name: ${name}, namespace: shop${metadata && `, ${metadata}`}}
spec: {nodeName: node1${spec && `, ${spec}`}}
status: {podIP: 10.0.0.1, phase: Running, conditions: [{type: Ready, status: "True"}]}
${more}`;
}

export function serviceYaml(name: string, metadata = "", spec = ""): string {
  return `
---
apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: shop${metadata && `, ${metadata}`}}
spec: {clusterIP: 10.96.0.1${spec && `, ${spec}`}}
`;
}
