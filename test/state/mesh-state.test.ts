import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { MeshUpdate } from "../../src/mesh/mesh-update.ts";
import type { Service } from "../../src/mesh/service.ts";
import type { Workload } from "../../src/mesh/workload.ts";
import { type MeshChange, MeshState } from "../../src/state/mesh-state.ts";
import { asUpdate, ip, mesh, type ServiceBuilder } from "../support/mesh-fixture.ts";

const echo = mesh.service("echo").at("10.96.0.1").port(80, 8080);
const ECHO = echo.value.hostname;

test("a batch puts each endpoint behind its service, wherever the service stands in it", () => {
  const workloads = Array.from({ length: 50 }, (_, i) =>
    asUpdate(mesh.workload(`w${i}`).at(`10.0.0.${i}`).behind(echo, { 80: 8080 })),
  );
  for (const at of [0, 25, 50]) {
    const state = new MeshState({ localNode: undefined });
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
  const { value } = mesh.workload("up");
  assert.deepEqual([...(state.findService("default", ECHO)?.endpoints.keys() ?? [])], [value.uid]);
});

test("the last word on a workload in a batch counts", () => {
  const state = mesh.state(echo);
  const uid = mesh.workload("w").value.uid;
  const endpoints = (): number | undefined => state.findService("default", ECHO)?.endpoints.size;
  const added = asUpdate(mesh.workload("w").behind(echo));
  const removed: MeshUpdate = { kind: "remove-address", name: uid };

  let change = state.apply([added, removed]);
  assert.equal(endpoints(), 0);
  assert.deepEqual(change.insertedWorkloads, []);
  assert.deepEqual(change.removedWorkloads, []);

  change = state.apply([added]);
  assert.equal(endpoints(), 1);
  assert.equal(change.insertedWorkloads.length, 1);

  change = state.apply([removed, added]);
  assert.equal(endpoints(), 1);
  assert.equal(change.insertedWorkloads.length, 1);
  assert.deepEqual(change.removedWorkloads, []);

  change = state.apply([removed]);
  assert.equal(endpoints(), 0);
  assert.equal(change.removedWorkloads.length, 1);
});

test("a workload that is replaced and removed in one batch is reported as removed", () => {
  const state = mesh.state(mesh.workload("w"));
  const change = state.apply([
    asUpdate(mesh.workload("w").hbone()),
    { kind: "remove-address", name: mesh.workload("w").value.uid },
  ]);
  assert.equal(change.removedWorkloads.length, 1);
  assert.deepEqual(change.insertedWorkloads, []);
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

test("a state filled from another's updates knows the same", () => {
  const state = mesh.state(
    mesh.workload("one").at("10.0.0.1").behind(echo),
    mesh.workload("two").at("10.0.0.2").behind(echo).unhealthy(),
    echo,
    mesh.deny("p"),
  );
  const copy = new MeshState({ localNode: undefined });
  copy.apply(structuredClone(state.updates()));
  assert.deepEqual(copy.updates(), state.updates());
  assert.deepEqual(copy.counts(), { workloads: 2, services: 1, policies: 1 });
  assert.deepEqual(copy.findService("default", ECHO), state.findService("default", ECHO));
});

test("a copy prefers the same one of two workloads on an address", () => {
  const [one, two] = [mesh.workload("one").at("10.0.0.1"), mesh.workload("two").at("10.0.0.1")];
  const state = mesh.state(one, two, one.on("node-2"));
  const copy = new MeshState({ localNode: undefined });
  copy.apply(state.updates());
  for (const each of [state, copy]) {
    assert.equal(each.findWorkloadByAddress("", ip("10.0.0.1"))?.name, "one");
  }
});

/** What a lookup must answer, found by looking at everything. */
class NaiveMesh {
  readonly workloads = new Map<string, Workload>();
  readonly services = new Map<string, Service>();

  apply(update: MeshUpdate): void {
    if (update.kind === "workload") {
      this.workloads.delete(update.workload.uid);
      this.workloads.set(update.workload.uid, update.workload);
    } else if (update.kind === "service") {
      this.services.set(`${update.service.namespace}/${update.service.hostname}`, update.service);
    } else if (update.kind === "remove-address" && !this.workloads.delete(update.name)) {
      this.services.delete(update.name);
    }
  }

  workloadAt(network: string, address: string): string | undefined {
    const rank = (w: Workload): number =>
      (w.uid.includes("//Pod/") ? 2 : 0) + (w.protocol === "HBONE" ? 1 : 0);
    const sharing = [...this.workloads.values()].filter(
      (w) =>
        w.network === network && w.networkMode === "Standard" && w.ips.some((i) => i === address),
    );
    const best = Math.max(...sharing.map(rank));
    return sharing.findLast((w) => rank(w) === best)?.uid;
  }

  /** The winner among services of different namespaces is left to the table tests. */
  servicesAt(network: string, address: string): Set<string> {
    const keys = [...this.services.entries()]
      .filter(([, s]) => s.vips.some((v) => v.network === network && v.ip === address))
      .map(([key]) => key);
    return new Set(keys);
  }

  endpoints(key: string): Set<string> {
    const acceptsAll = this.services.get(key)?.loadBalancer?.healthPolicy === "AllowAll";
    const behind = [...this.workloads.values()].filter(
      (w) => w.services.has(key) && (acceptsAll || w.status === "Healthy"),
    );
    return new Set(behind.map(({ uid }) => uid));
  }

  local(name: string): Set<string> {
    const same = [...this.workloads.values()].filter((w) => w.name === name && w.node === "node-1");
    return new Set(same.map(({ uid }) => uid));
  }
}

const ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"];
const NETWORKS = ["", "net1"];
const SERVICES: ServiceBuilder[] = ["a", "b", "c"].flatMap((name) => [
  mesh.service(name),
  mesh.service(name).in("shop"),
]);

const anyWorkload = fc
  .record({
    name: fc.constantFrom("w1", "w2", "w3", "w4"),
    entry: fc.boolean(),
    ips: fc.subarray(ADDRESSES),
    network: fc.constantFrom(...NETWORKS),
    node: fc.constantFrom("node-1", "node-2"),
    hbone: fc.boolean(),
    healthy: fc.boolean(),
    host: fc.boolean(),
    services: fc.subarray(SERVICES),
  })
  .map((w): MeshUpdate => {
    let builder = mesh
      .workload(w.name)
      .at(...w.ips)
      .network(w.network)
      .on(w.node);
    if (w.entry) builder = builder.with({ uid: `entry/${w.name}` });
    if (w.hbone) builder = builder.hbone();
    if (!w.healthy) builder = builder.unhealthy();
    if (w.host) builder = builder.hostNetwork();
    for (const service of w.services) builder = builder.behind(service);
    return asUpdate(builder);
  });

const anyService = fc
  .record({
    service: fc.constantFrom(...SERVICES),
    vips: fc.subarray(ADDRESSES),
    network: fc.constantFrom(...NETWORKS),
    acceptUnhealthy: fc.boolean(),
  })
  .map(({ service, vips, network, acceptUnhealthy }): MeshUpdate => {
    const placed = service.at(...vips.map((vip) => `${network}/${vip}`));
    return asUpdate(acceptUnhealthy ? placed.acceptUnhealthy() : placed);
  });

const NAMES = [
  ...["w1", "w2", "w3", "w4"].flatMap((n) => [`cluster1//Pod/default/${n}`, `entry/${n}`]),
  ...SERVICES.map(({ value }) => `${value.namespace}/${value.hostname}`),
];
const anyRemoval = fc
  .constantFrom(...NAMES)
  .map((name): MeshUpdate => ({ kind: "remove-address", name }));

test("lookups agree with a naive mesh under random updates in random batches", () => {
  const anyUpdate = fc.oneof(anyWorkload, anyWorkload, anyService, anyRemoval);
  fc.assert(
    fc.property(fc.array(fc.array(anyUpdate, { maxLength: 6 }), { maxLength: 12 }), (batches) => {
      const state = new MeshState({ localNode: "node-1" });
      const naive = new NaiveMesh();
      for (const batch of batches) {
        const known = new Set(naive.workloads.keys());
        const change = state.apply(batch);
        for (const update of batch) naive.apply(update);
        assertAlike(state, naive);
        const gone = [...known].filter((uid) => !naive.workloads.has(uid));
        assert.deepEqual(change.removedWorkloads.map(({ uid }) => uid).sort(), gone.sort());
      }
    }),
    { numRuns: 150 },
  );
});

function assertAlike(state: MeshState, naive: NaiveMesh): void {
  for (const network of NETWORKS) {
    for (const text of ADDRESSES) {
      const address = ip(text);
      const found = state.findWorkloadByAddress(network, address)?.uid;
      assert.equal(found, naive.workloadAt(network, text));
      const service = state.findServiceByVip(network, address, undefined)?.service;
      const keys = naive.servicesAt(network, text);
      if (service === undefined) assert.equal(keys.size, 0);
      else assert.ok(keys.has(`${service.namespace}/${service.hostname}`));
    }
  }
  for (const { value } of SERVICES) {
    const key = `${value.namespace}/${value.hostname}`;
    const known = state.findService(value.namespace, value.hostname);
    assert.equal(known?.service, naive.services.get(key));
    if (known === undefined) continue;
    assert.deepEqual(new Set(known.endpoints.keys()), naive.endpoints(key));
    const byHost = state.findServiceByHostname(value.hostname, value.namespace);
    assert.equal(byHost, known);
  }
  for (const name of ["w1", "w2", "w3", "w4"]) {
    const key = { name, namespace: "default", serviceAccount: name };
    const uid = state.findLocalWorkload(key)?.uid;
    const local = naive.local(name);
    assert.ok(uid === undefined ? local.size === 0 : local.has(uid));
  }
}
