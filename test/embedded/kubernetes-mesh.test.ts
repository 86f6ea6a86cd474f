/**
 * The objects of the recording, changed as they were then, make the mesh that a real istiod made of
 * them: every resource of it, after every change, field by field.
 *
 * What differs is made equal before, each for a reason:
 * - `default/kubernetes` and its address are the apiserver's own; the test writes it down.
 * - Addresses given to hosts go on from one translation to the next, as istiod keeps them.
 * - 29 and 29b were recorded later than their numbers say, on another state of `shop/deny-plain`.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  KUBERNETES_DEFAULTS,
  type KubernetesMesh,
  type KubernetesOptions,
  translateKubernetes,
} from "../../src/embedded/kubernetes-mesh.ts";
import { ADDRESS_TYPE } from "../../src/wire/delta-discovery.ts";
import { Authorization } from "../../src/wire/proto/istio-security.ts";
import { Address } from "../../src/wire/proto/istio-workload.ts";
import {
  type RecordedMessage,
  recordedOriginal,
  recordedScenarios,
  recordedText,
} from "../support/istiod-recording.ts";
import { KubernetesCluster, recordedObjects } from "./kubernetes-cluster.ts";

const OF_THE_APISERVER = `
apiVersion: v1
kind: Service
metadata: {name: kubernetes, namespace: default}
spec:
  ports: [{name: https, port: 443, targetPort: 16443, protocol: TCP}]
  clusterIP: 10.96.0.1
`;
const BEFORE = [
  "00-base.yaml",
  "01-pods.yaml",
  "02-services.yaml",
  "03-endpointslices.yaml",
  "04-serviceentries.yaml",
  "05-workloadentries.yaml",
  "06-authorization.yaml",
  "04b-serviceentry-same-host.yaml",
];

/** What the recording says in words. */
const IN_WORDS: Readonly<Record<string, (cluster: KubernetesCluster) => void>> = {
  "delete Service shop/samenode": (cluster) => cluster.remove("Service shop/samenode"),
  "apply Service shop/samenode": (cluster) =>
    cluster.apply(objectOf("02-services.yaml", "name: samenode")),
  "delete ServiceEntry egress/dns-implicit": (cluster) =>
    cluster.remove("ServiceEntry egress/dns-implicit"),
  "apply ServiceEntry egress/dns-implicit": (cluster) =>
    cluster.apply(objectOf("04-serviceentries.yaml", "name: dns-implicit")),
  "delete WorkloadEntry shop/vm3": (cluster) => cluster.remove("WorkloadEntry shop/vm3"),
  "delete Gateway shop/waypoint": (cluster) => cluster.remove("Gateway shop/waypoint"),
  "AuthorizationPolicy shop/deny-plain: selector app=db added": (cluster) =>
    cluster.patch("AuthorizationPolicy shop/deny-plain", {
      spec: { selector: { matchLabels: { app: "db" } } },
    }),
  "AuthorizationPolicy shop/deny-plain: action AUDIT": (cluster) =>
    cluster.patch("AuthorizationPolicy shop/deny-plain", { spec: { action: "AUDIT" } }),
  "Service catalog: use-waypoint none": (cluster) =>
    cluster.patch("Service shop/catalog", {
      metadata: { labels: { "istio.io/use-waypoint": "none" } },
    }),
  "delete 20-pod-add.yaml (grace 30 s)": (cluster) =>
    cluster.patch("Pod shop/frontend-6f7d8c9b5d-eeeee", {
      metadata: { deletionTimestamp: "2026-01-01T00:00:30Z" },
    }),
  "pod db-1 becomes Ready": (cluster) =>
    cluster.patch("Pod shop/db-1", { status: { conditions: [{ type: "Ready", status: "True" }] } }),
  "label change of plain/legacy-0": (cluster) =>
    cluster.patch("Pod plain/legacy-0", { metadata: { labels: { version: "v7" } } }),
  "new pod db-2": (cluster) =>
    cluster.apply(objectOf("01-pods.yaml", "name: db-1").replaceAll("db-1", "db-2")),
  "delete pod db-2": (cluster) => cluster.remove("Pod shop/db-2"),
  "new pod frontend-6f7d8c9b5d-zzzzz on node1": (cluster) =>
    cluster.apply(
      objectOf("20-pod-add.yaml", "kind: Pod")
        .replace("-eeeee", "-zzzzz")
        .replace("node2", "node1")
        .replaceAll("10.244.2.10", "10.244.1.99"),
    ),
  "delete pod frontend-6f7d8c9b5d-zzzzz": (cluster) =>
    cluster.remove("Pod shop/frontend-6f7d8c9b5d-zzzzz"),
};
/** Of policies that make nothing; changed back before the next. */
const WITHOUT_TRACE = /^AuthorizationPolicy \S+: rules changed$/;
/** Recorded on streams that see only what they ask for. */
const ON_DEMAND = /^(7|8|9[012])/;
const RECORDED_LATER = /^(27|28|29)/;
/** Recorded with an istiod of other settings, on the cluster as it was in the end. */
const WITH_OPTIONS: Readonly<Record<string, Partial<KubernetesOptions>>> = {
  "93": { dryRunPolicies: true, autoAllowWaypoints: true },
  "94": { trustDomain: "mesh.example" },
  "95": { multiNetwork: true },
  "96": {},
  "97": { serviceEntryVisibility: new Map([["egress", "Namespace"]]) },
};

type Resources = Map<string, Address | Authorization>;

test("the recorded objects and changes make the recorded mesh", async (context) => {
  const cluster = new KubernetesCluster();
  let { allocated } = KUBERNETES_DEFAULTS;
  const translate = (options: Partial<KubernetesOptions> = {}): Resources => {
    const all = { ...KUBERNETES_DEFAULTS, allocated, ...options };
    const mesh = translateKubernetes(cluster.documents, all);
    assert.deepEqual(mesh.mistakes, []);
    allocated = mesh.allocated;
    return decode(mesh);
  };
  cluster.apply(OF_THE_APISERVER);
  cluster.apply(recordedObjects("00-base.yaml"));
  cluster.apply(recordedObjects("00b-ztunnel-pods.yaml"));
  const scenarios = recordedScenarios();
  const inOrder = [
    ...scenarios.filter(({ name }) => !RECORDED_LATER.test(name) && !isWithOptions(name)),
    ...scenarios.filter(({ name }) => RECORDED_LATER.test(name)),
  ];
  const known: Resources = new Map();
  for (const scenario of inOrder) {
    await context.test(scenario.name, () => {
      const { name } = scenario;
      if (name.startsWith("01-")) for (const file of BEFORE) cluster.apply(recordedObjects(file));
      else for (const action of actionsOf(name)) act(cluster, action);
      const made = translate();
      if (ON_DEMAND.test(name) || RECORDED_LATER.test(name)) {
        assertContains(made, firstResponses(scenario.messages));
        if (name.startsWith("29")) cluster.apply(objectOf("06-authorization.yaml", "deny-plain"));
        return;
      }
      if (isWhole(name)) known.clear();
      for (const response of responsesOf(scenario.messages)) takeIn(known, response);
      assertEqual(made, known);
    });
  }
  for (const [number, options] of Object.entries(WITH_OPTIONS)) {
    const scenario = scenarios.find(({ name }) => name.startsWith(number));
    assert.ok(scenario);
    await context.test(scenario.name, () => {
      if (number === "95") cluster.apply(recordedObjects("40-network.yaml"));
      if (number === "97") {
        cluster.apply(recordedObjects("40c-network-off.yaml"));
        cluster.remove("Gateway istio-system/remote-gw");
        cluster.remove("WorkloadEntry shop/remote-vm");
      }
      const recorded: Resources = new Map();
      for (const response of responsesOf(scenario.messages)) takeIn(recorded, response);
      assertEqual(translate(options), recorded);
    });
  }
});

const STRICT = ["10-peerauth-strict.yaml", "11-peerauth-ports.yaml"];
const WAYPOINTS = [
  "30-waypoint.yaml",
  "32-use-waypoint-service.yaml",
  "33-use-waypoint-pod.yaml",
  "34-canary-waypoint.yaml",
  "35-use-waypoint-namespace.yaml",
  "36-sandwich-waypoint.yaml",
];
const OTHERS = ["25-policy-root-selector.yaml", "40-network.yaml"];
for (const [which, files] of [
  ["base", []],
  ["full", [...STRICT, ...WAYPOINTS, ...OTHERS]],
] as const) {
  test(`the objects before the original (${which}) make what it was sent`, () => {
    const cluster = new KubernetesCluster();
    cluster.apply(OF_THE_APISERVER);
    for (const file of [...BEFORE, ...files]) cluster.apply(recordedObjects(file));
    const recorded: Resources = new Map();
    for (const response of responsesOf(recordedOriginal(which))) takeIn(recorded, response);
    assertEqual(decode(translateKubernetes(cluster.documents, KUBERNETES_DEFAULTS)), recorded);
  });
}

function act(cluster: KubernetesCluster, action: string): void {
  const inWords = IN_WORDS[action];
  const [, verb, words = ""] = /^(apply|delete|merge-patch) (.*)$/.exec(action) ?? [];
  if (WITHOUT_TRACE.test(action)) return;
  if (inWords !== undefined) inWords(cluster);
  else if (verb === "apply") cluster.apply(recordedObjects(words));
  else if (verb === "delete" && !words.includes(" ")) cluster.delete(recordedObjects(words));
  else if (verb === "merge-patch") {
    const [, path = "", patch = ""] = /^(\S+) (.*)$/.exec(words) ?? [];
    cluster.patch(PATHS[path] ?? path, JSON.parse(patch) as Record<string, unknown>);
  } else assert.fail(`cannot do: ${action}`);
}

const PATHS: Readonly<Record<string, string>> = {
  "/api/v1/namespaces/shop/pods/report-28600000-ddddd/status": "Pod shop/report-28600000-ddddd",
  "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/noselector-manual":
    "EndpointSlice shop/noselector-manual",
  "/api/v1/nodes/node2": "Node node2",
};

function actionsOf(scenario: string): readonly string[] {
  const text = recordedText(`xds/${scenario}/scenario.json`);
  return (JSON.parse(text) as { readonly kubernetes: readonly string[] | null }).kubernetes ?? [];
}

/** The one document of a recorded file in which the words stand. */
function objectOf(file: string, words: string): string {
  const found = recordedObjects(file)
    .split(/^---$/m)
    .filter((text) => text.includes(words));
  assert.equal(found.length, 1, `${words} in ${file}`);
  return found[0] ?? "";
}

/** The stream of this scenario was told everything. */
function isWhole(name: string): boolean {
  return /^(00|01|62)-/.test(name);
}

function isWithOptions(name: string): boolean {
  return Object.hasOwn(WITH_OPTIONS, name.slice(0, 2));
}

interface Response {
  readonly put: Resources;
  readonly removed: readonly string[];
}

function responsesOf(messages: readonly RecordedMessage[]): readonly Response[] {
  return messages.flatMap((message): Response[] => {
    if (message.from === "client") return [];
    const { typeUrl, resources, removedResources } = message.response;
    const codec = typeUrl === ADDRESS_TYPE ? Address : Authorization;
    const put: Resources = new Map(
      resources.map(({ name, resource }) => {
        assert.ok(resource);
        // A copy, for a Buffer is never equal to other bytes.
        return [name, codec.decode(Uint8Array.from(resource.value))];
      }),
    );
    return [{ put, removed: removedResources }];
  });
}

/** Of each type one: what came after it was the way back. */
function firstResponses(messages: readonly RecordedMessage[]): Resources {
  const [first, second] = responsesOf(messages);
  return new Map([...(first?.put ?? []), ...(second?.put ?? [])]);
}

function takeIn(known: Resources, { put, removed }: Response): void {
  for (const [name, resource] of put) known.set(name, resource);
  for (const name of removed) known.delete(name);
}

function decode({ addresses, authorizations }: KubernetesMesh): Resources {
  return new Map<string, Address | Authorization>([
    ...Array.from(addresses, ([name, bytes]) => [name, Address.decode(bytes)] as const),
    ...Array.from(authorizations, ([name, bytes]) => [name, Authorization.decode(bytes)] as const),
  ]);
}

function assertEqual(made: Resources, recorded: Resources): void {
  assert.deepEqual([...made.keys()].toSorted(), [...recorded.keys()].toSorted());
  assertContains(made, recorded);
}

function assertContains(made: Resources, recorded: Resources): void {
  for (const [name, resource] of recorded) assert.deepEqual(made.get(name), resource, name);
}
