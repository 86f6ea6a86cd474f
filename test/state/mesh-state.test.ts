import assert from "node:assert/strict";
import { test } from "node:test";
import type { MeshUpdate } from "../../src/mesh/mesh-update.ts";
import { MeshMemory } from "../../src/state/mesh-memory.ts";
import { MeshState } from "../../src/state/mesh-state.ts";
import { type MeshChange, MeshWriter } from "../../src/state/mesh-writer.ts";
import { encodeAddress } from "../../src/wire/address-resource.ts";
import { encodeAuthorization } from "../../src/wire/authorization-resource.ts";
import {
  asUpdate,
  liveMesh,
  mesh,
  type ServiceBuilder,
  type WorkloadBuilder,
} from "../support/mesh-fixture.ts";

const echo = mesh.service("echo").at("10.96.0.1").port(80, 8080);
const ECHO = echo.value.hostname;

test("a batch puts each endpoint behind its service, wherever the service stands in it", () => {
  const workloads = Array.from({ length: 50 }, (_, i) =>
    asUpdate(mesh.workload(`w${i}`).at(`10.0.0.${i}`).behind(echo, { 80: 8080 })),
  );
  for (const at of [0, 25, 50]) {
    const state = liveMesh(undefined);
    state.apply(workloads.toSpliced(at, 0, asUpdate(echo)));
    assert.equal(state.findService("default", ECHO)?.endpoints.size, 50);
  }
});

test("a batch leaves out unhealthy endpoints", () => {
  const state = mesh.state(
    mesh.workload("up").behind(echo),
    echo,
    mesh.workload("down").behind(echo).unhealthy(),
  );
  const endpoints = state.findService("default", ECHO)?.endpoints;
  assert.deepEqual(
    Array.from(endpoints?.values() ?? [], ({ name }) => name),
    ["up"],
  );
});

test("the last word on a workload in a batch counts", () => {
  const state = liveMesh("node-1");
  state.apply([asUpdate(echo)]);
  const pod = mesh.workload("w").on("node-1").behind(echo);
  const endpoints = (): number | undefined => state.findService("default", ECHO)?.endpoints.size;
  const added = asUpdate(pod);
  const removed: MeshUpdate = { kind: "remove-address", name: pod.value.uid };
  for (const [updates, count] of [
    [[added, removed], 0],
    [[added], 1],
    [[removed, added], 1],
    [[removed], 0],
  ] as const) {
    const { workloadsChanged, localWorkloads } = state.apply(updates);
    assert.equal(endpoints(), count);
    assert.equal(workloadsChanged, true);
    assert.deepEqual(localWorkloads, count === 1 ? [pod.value] : []);
  }
});

test("a commit names this node's workloads, and tells of a change only once", () => {
  const state = liveMesh("node-1");
  const here = mesh.workload("here").on("node-1");
  const commit = state.apply([asUpdate(here), asUpdate(mesh.workload("there").on("node-2"))]);
  assert.deepEqual(commit.localWorkloads, [here.value]);
  assert.deepEqual(state.apply([]), {
    policiesChanged: false,
    workloadsChanged: false,
    localWorkloads: [],
  });
  // One that moves away is nobody's of ours.
  assert.deepEqual(state.apply([asUpdate(here.on("node-2"))]).localWorkloads, []);
  assert.deepEqual(liveMesh(undefined).apply([asUpdate(here)]).localWorkloads, []);
});

test("listeners learn what changed after it changed, until they leave", () => {
  const state = mesh.state();
  const heard: [MeshChange, number][] = [];
  const leave = state.onChange((change) => heard.push([change, state.counts().policies]));
  const applied = state.apply([asUpdate(mesh.deny("p"))]);
  assert.deepEqual(heard, [[applied, 1]]);
  assert.equal(applied.policiesChanged, true);
  assert.equal(state.apply([asUpdate(mesh.workload("w"))]).policiesChanged, false);
  leave();
  state.apply([]);
  assert.equal(heard.length, 2);
});

test("services of a workload are those it lists and the mesh knows", () => {
  const other = mesh.service("other");
  const workload = mesh.workload("w").behind(other).behind(mesh.service("gone")).behind(echo);
  const state = mesh.state(echo, other, workload);
  assert.deepEqual(
    state.servicesOf(workload.value).map(({ service }) => service.name),
    ["other", "echo"],
  );
});

test("a reader that comes late knows all that was written before", () => {
  const memory = new MeshMemory();
  const pod = mesh.workload("one").at("10.0.0.1").behind(echo);
  new MeshWriter(memory, { localNode: undefined }).apply([
    asUpdate(pod),
    asUpdate(echo),
    asUpdate(mesh.deny("p")),
  ]);
  const late = new MeshState(new MeshMemory(memory.buffer));
  assert.deepEqual(late.findWorkload(pod.value.uid), pod.value);
  assert.deepEqual(late.findService("default", ECHO)?.service, echo.value);
  assert.deepEqual(late.counts(), { workloads: 1, services: 1, policies: 1 });
});

test("what a file leaves empty stays empty, what a control plane leaves out has its default", () => {
  const bare = mesh.workload("w").with({ trustDomain: "", serviceAccount: "", clusterId: "" });
  const state = mesh.state(bare);
  assert.deepEqual(state.findWorkload(bare.value.uid), bare.value);
  state.writer.putAddress(encodeAddress({ kind: "workload", workload: bare.value }), "1");
  const { trustDomain, serviceAccount, clusterId } = state.findWorkload(bare.value.uid) ?? {};
  assert.deepEqual(
    [trustDomain, serviceAccount, clusterId],
    ["cluster.local", "default", "Kubernetes"],
  );
});

test("versions are those of the last resources of their names", () => {
  const { writer } = mesh.state();
  const put = (part: WorkloadBuilder | ServiceBuilder, version: string): void => {
    const update = asUpdate(part);
    assert(update.kind === "workload" || update.kind === "service");
    writer.putAddress(encodeAddress(update), version);
  };
  const [one, two] = [mesh.workload("one"), mesh.workload("two")];
  put(one, "a1");
  put(two, "a2");
  put(one.hbone(), "a3");
  put(echo, "");
  writer.putPolicy(encodeAuthorization(mesh.deny("p").value), "p1");
  writer.removeAddress(two.value.uid);
  assert.deepEqual(
    new Map(writer.versions("address")),
    new Map([
      [one.value.uid, "a3"],
      [`default/${ECHO}`, ""],
    ]),
  );
  assert.deepEqual([...writer.versions("policy")], [["default/p", "p1"]]);
  assert.equal(writer.versionOf("address", one.value.uid), "a3");
  assert.equal(writer.versionOf("address", two.value.uid), undefined);
  assert.equal(writer.versionOf("policy", one.value.uid), undefined);
});
