import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseIpAddress } from "../../src/mesh/ip-address.ts";
import type { SessionAffinity } from "../../src/state/session-affinity.ts";
import { findUpstream, type Upstream } from "../../src/state/upstream.ts";
import { FakeClock } from "../support/fake-clock.ts";
import {
  address,
  ip,
  type LiveMesh,
  liveMesh,
  makeAffinity,
  mesh,
  seededRandom,
  type WorkloadBuilder,
} from "../support/mesh-fixture.ts";

const svc = mesh.service("svc").at("10.96.0.1").port(80, 8080).with({ affinitySeconds: 60 });
const CLIENTS = Array.from({ length: 300 }, (_, i) => `10.1.${i >> 8}.${i & 255}`);
const source = mesh.workload("client").at("10.0.0.1").on("near");

function endpoints(count: number): WorkloadBuilder[] {
  return Array.from({ length: count }, (_, i) =>
    mesh
      .workload(`w${i}`)
      .at(`10.0.1.${i + 1}`)
      .behind(svc),
  );
}

class Lab {
  readonly clock: FakeClock = new FakeClock();
  readonly affinity: SessionAffinity;
  readonly mesh: LiveMesh = liveMesh(undefined);
  readonly #random = seededRandom(5);

  constructor(workloads: readonly WorkloadBuilder[], service = svc, affinity?: SessionAffinity) {
    this.affinity = affinity ?? makeAffinity(this.clock);
    this.mesh.apply([{ kind: "service", service: service.value }]);
    for (const workload of workloads) this.set(workload);
  }

  set({ value }: WorkloadBuilder): void {
    this.mesh.apply([{ kind: "workload", workload: value }]);
  }

  remove(name: string): void {
    this.mesh.apply([{ kind: "remove-address", name: `cluster1//Pod/default/${name}` }]);
  }

  find(client: string, tried?: ReadonlySet<string>): Upstream | undefined {
    const lookup = findUpstream(
      this.mesh,
      {
        network: "",
        source: source.value,
        target: address("10.96.0.1:80"),
        mode: "standard",
        bias: { tried, affinity: { sessions: this.affinity, client: ip(client) } },
      },
      this.#random,
    );
    return lookup.kind === "found" ? lookup.upstream : undefined;
  }

  /** Makes a connection; the name of where it went. */
  connect(client: string): string {
    const upstream = this.find(client);
    if (upstream === undefined) return "none";
    const at = parseIpAddress(client);
    if (at !== undefined) this.affinity.keep(upstream, at);
    return upstream.workload.name;
  }

  /** Where each client goes, without a connection being made. */
  places(): Map<string, string> {
    return new Map(CLIENTS.map((client) => [client, this.find(client)?.workload.name ?? "none"]));
  }
}

test("a client goes to the same endpoint each time, clients spread over all by capacity", () => {
  const [first, ...rest] = endpoints(4);
  assert.ok(first);
  const lab = new Lab([first.with({ capacity: 3 }), ...rest]);
  const places = lab.places();
  for (let i = 0; i < 5; i++) assert.deepEqual(lab.places(), places);
  const counts = Map.groupBy(places.values(), (name) => name);
  assert.deepEqual([...counts.keys()].sort(), ["w0", "w1", "w2", "w3"]);
  for (const [name, at] of counts) {
    const share = at.length / CLIENTS.length;
    assert.ok(Math.abs(share - (name === "w0" ? 0.5 : 1 / 6)) < 0.1, `${name} has ${share}`);
  }
});

test("another thread, another node and another start know nothing and lead to the same place", () => {
  const workloads = endpoints(5);
  assert.deepEqual(new Lab(workloads).places(), new Lab(workloads.toReversed()).places());
});

test("an endpoint that goes moves its own clients only, one that comes takes from all alike", () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 12 }), fc.nat(), (count, which) => {
      const gone = `w${which % count}`;
      const lab = new Lab(endpoints(count));
      const before = lab.places();
      lab.remove(gone);
      const without = lab.places();
      for (const [client, place] of before) {
        if (place === gone) assert.notEqual(without.get(client), gone);
        else assert.equal(without.get(client), place);
      }
    }),
    { numRuns: 12 },
  );
});

test("a client that has been somewhere stays when endpoints come, others go where they lead", () => {
  const workloads = endpoints(6);
  const lab = new Lab(workloads.slice(0, 3));
  const known = CLIENTS.slice(0, 150);
  const before = new Map(known.map((client) => [client, lab.connect(client)]));
  for (const workload of workloads.slice(3)) lab.set(workload);
  for (const [client, place] of before) assert.equal(lab.connect(client), place);
  const fresh = CLIENTS.slice(150).map((client) => lab.connect(client));
  assert.ok(fresh.some((place) => place === "w5"));
});

test("the time begins anew with each connection, and is over so long after the last", async () => {
  const [first, second] = endpoints(2);
  assert.ok(first && second);
  const client = CLIENTS.find((one) => new Lab([first, second]).connect(one) === "w1");
  assert.ok(client);
  const lab = new Lab([first]);
  assert.equal(lab.connect(client), "w0");
  lab.set(second);
  for (let i = 0; i < 3; i++) {
    await lab.clock.advance(59_000);
    assert.equal(lab.connect(client), "w0");
  }
  await lab.clock.advance(60_000);
  assert.equal(lab.connect(client), "w1");
});

test("a client leaves an endpoint that is no longer healthy, and does not come back for it", () => {
  const [first, second] = endpoints(2);
  assert.ok(first && second);
  const lab = new Lab([first, second]);
  const client = CLIENTS.find((one) => lab.connect(one) === "w0");
  assert.ok(client);
  lab.set(first.unhealthy());
  assert.equal(lab.connect(client), "w1");
  lab.set(first);
  assert.equal(lab.connect(client), "w1");
});

test("what was tried in vain is followed by the next in the client's own order", () => {
  const lab = new Lab(endpoints(5));
  const order = (client: string): string[] => {
    const tried = new Set<string>();
    const names: string[] = [];
    for (;;) {
      const upstream = lab.find(client, tried);
      if (upstream === undefined) return names;
      names.push(upstream.workload.name);
      tried.add(upstream.workload.uid);
    }
  };
  const [client = "", other = ""] = CLIENTS;
  assert.deepEqual(order(client), order(client));
  assert.equal(new Set(order(client)).size, 5);
  assert.notDeepEqual(order(client), order(other));
  lab.connect(client);
  assert.deepEqual(order(client), order(client));
});

test("only the nearest endpoints are eligible where the service prefers them", () => {
  const near = svc.with({
    loadBalancer: {
      mode: "Failover",
      routingPreferences: ["Node"],
      healthPolicy: "OnlyHealthy",
    },
  });
  const workloads = endpoints(4).map((one, i) => (i < 2 ? one.on("near") : one));
  const lab = new Lab(workloads, near);
  assert.deepEqual([...new Set(lab.places().values())].sort(), ["w0", "w1"]);
  const before = lab.places();
  lab.remove("w0");
  lab.remove("w1");
  assert.deepEqual([...new Set(lab.places().values())].sort(), ["w2", "w3"]);
  for (const workload of workloads) lab.set(workload);
  assert.deepEqual(lab.places(), before);
});

test("an operator's service has affinity, and its time goes before the mesh's", () => {
  const plain = svc.with({ affinitySeconds: undefined });
  const service = `default/${svc.value.hostname}`;
  const lab = new Lab(endpoints(5), plain, makeAffinity(new FakeClock(), { [service]: 5 }));
  assert.deepEqual(lab.places(), lab.places());
  assert.equal(lab.affinity.seconds(plain.value), 5);
  assert.equal(lab.affinity.seconds(svc.value), 5);
  assert.equal(lab.affinity.seconds(mesh.service("other").value), undefined);
  const spread = new Lab(endpoints(5), plain);
  const [client = ""] = CLIENTS;
  assert.ok(new Set(Array.from({ length: 50 }, () => spread.connect(client))).size > 1);
});
