import assert from "node:assert/strict";
import { test } from "node:test";
import { WorkloadStatus } from "../../src/wire/proto/istio-workload.ts";
import { meshOf, podYaml, serviceYaml } from "./translated-mesh.ts";

const OWNED = "generateName: x-, ownerReferences";
const NAMES: readonly (readonly [metadata: string, name: string])[] = [
  ["", "p"],
  [`${OWNED}: [{kind: StatefulSet, name: db, controller: true}]`, "db"],
  [`${OWNED}: [{kind: StatefulSet, name: db}]`, "p"],
  ["ownerReferences: [{kind: StatefulSet, name: db, controller: true}]", "p"],
  [
    `labels: {pod-template-hash: abc}, ${OWNED}: [{kind: ReplicaSet, name: web-abc, controller: true}]`,
    "web",
  ],
  [
    `labels: {pod-template-hash: abc}, ${OWNED}: [{kind: ReplicaSet, name: web-def, controller: true}]`,
    "web-def",
  ],
  [
    `labels: {rollouts-pod-template-hash: abc}, ${OWNED}: [{kind: ReplicaSet, name: web-abc, controller: true}]`,
    "web",
  ],
  [
    `labels: {deploymentconfig: dc}, ${OWNED}: [{kind: ReplicationController, name: dc-1, controller: true}]`,
    "dc",
  ],
  [`${OWNED}: [{kind: Job, name: report-28600000, controller: true}]`, "report"],
  [`${OWNED}: [{kind: Job, name: report-1234567, controller: true}]`, "report-1234567"],
  [
    `labels: {service.istio.io/workload-name: said}, ${OWNED}: [{kind: Job, name: j, controller: true}]`,
    "said",
  ],
];

for (const [metadata, name] of NAMES) {
  test(`a pod with ${metadata || "nothing"} belongs to ${name}`, () => {
    const pods = [...meshOf(podYaml("p", metadata)).workloads.values()];
    assert.deepEqual(
      pods.map((pod) => [pod.workloadName, pod.canonicalName]),
      [[name, name]],
    );
  });
}

test("a pod is unhealthy until it says that it is ready, and from when it is to go", () => {
  const status = (text: string) =>
    [...meshOf(text).workloads.values()].map((workload) => workload.status);
  assert.deepEqual(status(podYaml("p")), [WorkloadStatus.HEALTHY]);
  assert.deepEqual(status(podYaml("p").replace('"True"', '"False"')), [WorkloadStatus.UNHEALTHY]);
  assert.deepEqual(status(podYaml("p").replace("Ready", "Other")), [WorkloadStatus.UNHEALTHY]);
  const going = podYaml("p", 'deletionTimestamp: "2026-01-01T00:00:00Z"');
  assert.deepEqual(status(going), [WorkloadStatus.UNHEALTHY]);
});

test("a pod that has ended or has no address is none", () => {
  for (const phase of ["Succeeded", "Failed"]) {
    assert.equal(meshOf(podYaml("p").replace("Running", phase)).workloads.size, 0);
  }
  assert.equal(meshOf(podYaml("p").replace("podIP: 10.0.0.1, ", "")).workloads.size, 0);
  assert.equal(meshOf(podYaml("p").replace("Running", "Pending")).workloads.size, 1);
});

test("a named target is the port of a container or of a sidecar, by TCP", () => {
  const names = ["web", "side", "init", "udp"];
  const ports = names.map(
    (name, index) => `{name: ${name}, port: ${index + 1}, targetPort: ${name}}`,
  );
  const spec = `
    containers: [{ports: [{name: udp, containerPort: 1, protocol: UDP}, {name: web, containerPort: 8080}]}],
    initContainers: [
      {ports: [{name: init, containerPort: 2}]},
      {restartPolicy: Always, ports: [{name: side, containerPort: 15000}, {name: web, containerPort: 3}]}]`;
  const { workloads } = meshOf(
    serviceYaml("a", "", `selector: {app: a}, ports: [${ports.join(", ")}]`) +
      podYaml("p", "labels: {app: a}", "", spec),
  );
  const [pod] = workloads.values();
  assert.deepEqual(pod?.services.get("shop/a.shop.svc.cluster.local")?.ports, [
    { servicePort: 1, targetPort: 8080, appProtocol: 0 },
    { servicePort: 2, targetPort: 15000, appProtocol: 0 },
  ]);
});

test("endpoints that name the pod itself put it behind a service without a selector", () => {
  const slice = (uid: string) => `
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s, namespace: shop, labels: {kubernetes.io/service-name: a}}
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, namespace: shop, name: p, uid: ${uid}}}]
`;
  const behind = (text: string) => [...meshOf(text).workloads.values()].map((w) => w.services.size);
  const service = serviceYaml("a", "", "ports: [{port: 80}]");
  const named = service + podYaml("p", "uid: one");
  assert.deepEqual(behind(named + slice("one")), [1]);
  assert.deepEqual(behind(named + slice("two")), [0]);
  assert.deepEqual(behind(service + podYaml("p") + slice('""')), [0]);
});
