import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  type KubernetesDocument,
  readKubernetesDocuments,
} from "../../src/embedded/kubernetes-document.ts";
import { KUBERNETES_DEFAULTS, translateKubernetes } from "../../src/embedded/kubernetes-mesh.ts";
import { recordedObjects } from "./kubernetes-cluster.ts";
import { meshOf, podYaml, serviceYaml } from "./translated-mesh.ts";

const CASES: readonly { readonly name: string; readonly text: string; readonly says: string }[] = [
  {
    name: "a field of another type",
    text: `${podYaml("a")}${podYaml("b").replace("nodeName: node1", "nodeName: 1")}`,
    says: "document 2, line 13: Pod shop/b: spec.nodeName: must be text, not 1",
  },
  {
    name: "a label that is no text",
    text: podYaml("a", "labels: {version: 1}"),
    says: "document 1, line 5: Pod shop/a: metadata.labels.version: must be text, not 1",
  },
  {
    name: "a port out of range in a list",
    text: serviceYaml("a", "", "ports: [{port: 80}, {port: 65536}]"),
    says: "document 1, line 6: Service shop/a: spec.ports[1].port: must be a number of 0 to 65535, not 65536",
  },
  {
    name: "a map where a list belongs",
    text: serviceYaml("a", "", "ports: {port: 80}"),
    says: "document 1, line 6: Service shop/a: spec.ports: must be a list",
  },
  {
    name: "an affinity that is none",
    text: serviceYaml("a", "", "sessionAffinity: Cookie"),
    says: "document 1, line 6: Service shop/a: spec.sessionAffinity: must be one of None, ClientIP, not Cookie",
  },
  {
    name: "an affinity without time",
    text: serviceYaml(
      "a",
      "",
      "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}",
    ),
    says: "document 1, line 6: Service shop/a: spec.sessionAffinityConfig.clientIP.timeoutSeconds: must be more than 0",
  },
  {
    name: "a service without an address, which nobody would give it",
    text: serviceYaml("a").replace("clusterIP: 10.96.0.1", "type: ClusterIP"),
    says: "document 1, line 6: Service shop/a: spec.clusterIP: must be given",
  },
  {
    name: "an address that is none",
    text: podYaml("a").replace("10.0.0.1", "10.0.0.256"),
    says: "document 1, line 7: Pod shop/a: status.podIP: must be an IP address, not 10.0.0.256",
  },
  {
    name: "an unknown word",
    text: `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec: {action: DENNY}
`,
    says: "document 1, line 5: AuthorizationPolicy default/p: spec.action: must be one of ALLOW, DENY, AUDIT, CUSTOM, not DENNY",
  },
  {
    name: "a range that is none, in a policy",
    text: `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec:
  rules:
  - from:
    - source: {ipBlocks: [10.0.0.0/33]}
`,
    says: "document 1, line 8: AuthorizationPolicy default/p: spec.rules[0].from[0].source.ipBlocks: must be an IP address or range, not 10.0.0.0/33",
  },
  {
    name: "a port by name where only numbers are known",
    text: `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p}
spec: {selector: {matchLabels: {app: a}}, portLevelMtls: {http: {mode: STRICT}}}
`,
    says: "document 1, line 5: PeerAuthentication default/p: spec.portLevelMtls.http: must be a port",
  },
  {
    name: "an item of a List",
    text: `
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: shop, labels: [a]}
`,
    says: "document 1, line 7: Namespace shop: metadata.labels: must be a map",
  },
  {
    name: "an object without a name",
    text: "apiVersion: v1\nkind: Pod\n",
    says: "document 1, line 1: must have apiVersion, kind and metadata.name",
  },
  { name: "a bare word", text: "pods\n", says: "document 1, line 1: must be a Kubernetes object" },
  {
    name: "no YAML",
    text: "apiVersion: v1\n---\na: [\n",
    says: "document 2, line 4: Flow sequence in block collection must be sufficiently indented and end with a ]",
  },
  {
    name: "a name for nothing",
    text: "a: *b\n",
    says: "document 1, line 1: Unresolved alias (the anchor must be set before the alias): b",
  },
];

for (const { name, text, says } of CASES) {
  test(`${name} is a mistake that tells where it stands`, () => {
    assert.ok(meshOf(text).mistakes.includes(says), meshOf(text).mistakes.join("\n"));
  });
}

test("an object with a mistake is left out and the others are there", () => {
  const broken = podYaml("broken").replace("nodeName: node1", "nodeName: []");
  const { workloads, mistakes } = meshOf(podYaml("first") + broken + podYaml("last"));
  assert.equal(mistakes.length, 1);
  assert.deepEqual(
    [...workloads.values()].map(({ name }) => name),
    ["first", "last"],
  );
});

test("an object of the same name takes the place of the one before it", () => {
  const { workloads } = meshOf(podYaml("a") + podYaml("a").replace("node1", "node2"));
  assert.deepEqual(
    [...workloads.values()].map(({ node }) => node),
    ["node2"],
  );
});

test("kinds of no use are counted in one note, also those of another group", () => {
  const text = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: b}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: c}
---
`;
  assert.deepEqual(meshOf(text).notes, [
    "passed over, of no use for a mesh: 2 Deployment, 1 Gateway",
  ]);
  assert.deepEqual(meshOf(podYaml("a")).notes, []);
});

test("pods that are ambient by their labels and have not been taken in are named", () => {
  const namespace = "{name: shop, labels: {istio.io/dataplane-mode: ambient}}";
  const pod = (name: string, metadata = "", spec = ""): string =>
    `---\napiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: shop${metadata}}\nspec: {${spec}}\n`;
  const text = [
    `apiVersion: v1\nkind: Namespace\nmetadata: ${namespace}\n`,
    ...["a", "b", "c", "d", "e", "f"].map((name) => pod(name)),
    pod("taken", ", annotations: {ambient.istio.io/redirection: enabled}"),
    pod("tunnelled", ", labels: {networking.istio.io/tunnel: http}"),
    pod("left-out", ", labels: {istio.io/dataplane-mode: none}"),
    pod("of-the-node", "", "hostNetwork: true"),
  ].join("");
  assert.deepEqual(meshOf(text).notes, [
    "reached by plain TCP, without the annotation ambient.istio.io/redirection: enabled that istio-cni gives: shop/a, shop/b, shop/c, shop/d, shop/e and 1 more",
  ]);
});

test("anchors and merged maps are followed", () => {
  const text = `
apiVersion: v1
kind: List
items:
- &pod
  apiVersion: v1
  kind: Pod
  metadata: {name: a, namespace: shop}
  status: {podIP: 10.0.0.1}
- <<: *pod
  metadata: {name: b, namespace: shop}
`;
  assert.deepEqual(
    [...meshOf(text).workloads.values()].map(({ name }) => name),
    ["a", "b"],
  );
});

test("no object of any shape makes the translation throw", () => {
  const files = ["00-base", "01-pods", "02-services", "03-endpointslices", "04-serviceentries"];
  const others = [
    "05-workloadentries",
    "06-authorization",
    "11-peerauth-ports",
    "36-sandwich-waypoint",
  ];
  const text = [...files, ...others, "40-network"].map((file) => recordedObjects(`${file}.yaml`));
  const { documents } = readKubernetesDocuments(text.join("\n---\n"));
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(), fc.array(fc.nat(), { maxLength: 8 }), fc.jsonValue()), {
        minLength: 1,
        maxLength: 10,
      }),
      (changes) => {
        const changed = [...documents];
        for (const [which, path, value] of changes) {
          const index = which % changed.length;
          const document = changed[index];
          if (document !== undefined) changed[index] = withValue(document, path, value);
        }
        const mesh = translateKubernetes(changed, KUBERNETES_DEFAULTS);
        assert.ok(mesh.mistakes.every((mistake) => mistake.startsWith("document ")));
      },
    ),
    { numRuns: 200 },
  );
});

/** The document with one of its values replaced: each number chooses a key on the way down. */
function withValue(
  document: KubernetesDocument,
  path: readonly number[],
  replacement: unknown,
): KubernetesDocument {
  const change = (value: unknown, [choice, ...below]: readonly number[]): unknown => {
    if (choice === undefined || typeof value !== "object" || value === null) return replacement;
    const keys = Object.keys(value);
    const key = keys[choice % Math.max(1, keys.length)];
    if (key === undefined) return replacement;
    const changed = change((value as Record<string, unknown>)[key], below);
    return Array.isArray(value) ? value.with(Number(key), changed) : { ...value, [key]: changed };
  };
  const [first = 0, ...rest] = path;
  const keys = Object.keys(document.value);
  const key = keys[first % keys.length] ?? "";
  const value = { ...document.value, [key]: change(document.value[key], rest) };
  return { ...document, value };
}
