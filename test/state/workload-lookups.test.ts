import assert from "node:assert/strict";
import { test } from "node:test";
import { asUpdate, ip, liveMesh, mesh, type WorkloadBuilder } from "../support/mesh-fixture.ts";

const pod = mesh.workload("web").at("10.0.0.1", "fd00::1").hbone();

test("a workload is found by uid and by each address in its network", () => {
  const state = mesh.state(pod.network("net1"));
  assert.equal(state.findWorkload(pod.value.uid)?.name, "web");
  assert.equal(state.findWorkloadByAddress("net1", ip("10.0.0.1"))?.name, "web");
  assert.equal(state.findWorkloadByAddress("net1", ip("fd00::1"))?.name, "web");
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.1")), undefined);
  assert.equal(state.findWorkloadByAddress("net1", ip("10.0.0.2")), undefined);
});

test("a removed workload is found nowhere", () => {
  const state = mesh.state(pod.with({ hostname: "web.example" }));
  const change = state.apply([{ kind: "remove-address", name: pod.value.uid }]);
  assert.equal(change.workloadsChanged, true);
  assert.equal(state.findWorkload(pod.value.uid), undefined);
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.1")), undefined);
  assert.equal(state.findWorkloadByHostname("default", "web.example"), undefined);
  assert.equal(state.findLocalWorkload(pod.value), undefined);
  assert.equal(state.counts().workloads, 0);
});

test("a replaced workload leaves its old addresses", () => {
  const state = mesh.state(pod);
  state.apply([asUpdate(pod.at("10.0.0.9"))]);
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.1")), undefined);
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.9"))?.name, "web");
  assert.equal(state.counts().workloads, 1);
});

test("a host-network workload is not found by the node's address", () => {
  const state = mesh.state(pod.hostNetwork());
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.1")), undefined);
  assert.equal(state.findWorkload(pod.value.uid)?.name, "web");
});

test("a workload is found by host name only in its own namespace", () => {
  const state = mesh.state(mesh.workload("ext").in("egress").with({ hostname: "ext.example" }));
  assert.equal(state.findWorkloadByHostname("egress", "ext.example")?.name, "ext");
  assert.equal(state.findWorkloadByHostname("default", "ext.example"), undefined);
  assert.equal(state.findWorkloadByHostname("egress", ""), undefined);
});

const entry = (name: string): WorkloadBuilder =>
  mesh
    .workload(name)
    .with({ uid: `cluster1/networking.istio.io/WorkloadEntry/default/${name}` })
    .at("10.0.0.1");
const other = mesh.workload("web2").at("10.0.0.1");

const sharing: readonly [title: string, workloads: WorkloadBuilder[], winner: string][] = [
  ["a pod before an entry", [entry("vm"), other], "web2"],
  ["a pod before an entry, in either order", [other, entry("vm")], "web2"],
  ["a plain pod before an HBONE entry", [other, entry("vm").hbone()], "web2"],
  ["an HBONE pod before a plain one", [pod, other], "web"],
  ["an HBONE entry before a plain one", [entry("vm1").hbone(), entry("vm2")], "vm1"],
  ["the latest of equals", [other, mesh.workload("web3").at("10.0.0.1")], "web3"],
  ["the pod that was sent again", [other, entry("vm"), other], "web2"],
];
for (const [title, workloads, winner] of sharing) {
  test(`of workloads on one address, a lookup finds ${title}`, () => {
    const state = mesh.state(...workloads);
    assert.equal(state.findWorkloadByAddress("", ip("10.0.0.1"))?.name, winner);
  });
}

test("an address that was shared goes to the one that remains", () => {
  const state = mesh.state(pod, entry("vm"));
  state.apply([{ kind: "remove-address", name: pod.value.uid }]);
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.1"))?.name, "vm");
  state.apply([{ kind: "remove-address", name: entry("vm").value.uid }]);
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.1")), undefined);
});

test("an address listed twice is one address", () => {
  const state = mesh.state(pod.at("10.0.0.1", "10.0.0.1"));
  state.apply([{ kind: "remove-address", name: pod.value.uid }]);
  assert.equal(state.findWorkloadByAddress("", ip("10.0.0.1")), undefined);
});

test("a pod of this node is found by name, namespace and service account", () => {
  const state = liveMesh("node-1");
  const twin = mesh.workload("web-twin").with({ serviceAccount: "web" }).on("node-1");
  state.apply([
    asUpdate(pod.on("node-1")),
    asUpdate(twin),
    asUpdate(mesh.workload("far").on("node-2")),
  ]);
  const key = { name: "web", namespace: "default", serviceAccount: "web" };
  assert.equal(state.findLocalWorkload(key)?.uid, pod.value.uid);
  assert.equal(state.findLocalWorkload({ ...key, name: "web-twin" })?.uid, twin.value.uid);
  assert.equal(state.findLocalWorkload({ ...key, serviceAccount: "other" }), undefined);
  assert.equal(state.findLocalWorkload({ ...key, namespace: "other" }), undefined);
  const far = { name: "far", namespace: "default", serviceAccount: "far" };
  assert.equal(state.findLocalWorkload(far), undefined);
});

test("without a node name every workload counts as local", () => {
  const state = mesh.state(mesh.workload("far").on("node-2"));
  const key = { name: "far", namespace: "default", serviceAccount: "far" };
  assert.equal(state.findLocalWorkload(key)?.node, "node-2");
});
