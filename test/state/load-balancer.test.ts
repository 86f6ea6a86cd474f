import assert from "node:assert/strict";
import { test } from "node:test";
import type { LoadBalancingScope } from "../../src/mesh/load-balancing-scope.ts";
import type { LoadBalancingMode } from "../../src/mesh/service.ts";
import { chooseEndpoint, chooseWeighted } from "../../src/state/load-balancer.ts";
import {
  fixedRandom,
  gateway,
  mesh,
  type ServiceBuilder,
  seededRandom,
  type WorkloadBuilder,
} from "../support/mesh-fixture.ts";

const svc = mesh.service("svc").port(80, 8080);

/** Names of the workloads that are ever chosen, with the port. */
function choices(
  service: ServiceBuilder,
  source: WorkloadBuilder,
  workloads: readonly WorkloadBuilder[],
  query: { port?: number; mode?: "standard" | "waypoint"; tried?: ReadonlySet<string> } = {},
): string[] {
  const state = mesh.state(service, ...workloads);
  const known = state.findService(service.value.namespace, service.value.hostname);
  assert.ok(known);
  const chosen = new Set<string>();
  for (let i = 0; i < 64; i++) {
    const endpoint = chooseEndpoint(
      known,
      { source: source.value, port: 80, mode: "standard", ...query, bias: { tried: query.tried } },
      fixedRandom(i / 64),
    );
    chosen.add(endpoint === undefined ? "none" : `${endpoint.workload.name}:${endpoint.port}`);
  }
  return [...chosen].sort();
}

const client = mesh.workload("client").at("10.0.0.1");
const a = mesh.workload("a").at("10.0.0.2").behind(svc);
const b = mesh.workload("b").at("10.0.0.3").behind(svc);

const ports: readonly [string, ServiceBuilder, WorkloadBuilder, object, string][] = [
  ["the service's target port", svc, a, {}, "a:8080"],
  [
    "the endpoint's own port before the service's",
    svc,
    mesh.workload("a").at("10.0.0.2").behind(svc, { 80: 9090 }),
    {},
    "a:9090",
  ],
  [
    "nothing for a port that the service does not list",
    svc,
    mesh.workload("a").at("10.0.0.2").behind(svc, { 81: 9090 }),
    { port: 81 },
    "none",
  ],
  [
    "nothing for a named port that the endpoint does not map",
    mesh.service("svc").port(80, 0),
    a,
    {},
    "none",
  ],
  [
    "the endpoint's own port for a named port",
    mesh.service("svc").port(80, 0),
    mesh.workload("a").at("10.0.0.2").behind(svc, { 80: 9090 }),
    {},
    "a:9090",
  ],
  ["a waypoint's listed port", svc, a, { mode: "waypoint" }, "a:8080"],
  [
    "no unlisted port of a waypoint without a tunnel",
    svc,
    a,
    { mode: "waypoint", port: 15008 },
    "none",
  ],
  [
    "an unlisted port of a tunnelling waypoint",
    svc,
    a.tunnel("PROXY", 15088),
    { mode: "waypoint", port: 15008 },
    "a:15008",
  ],
  [
    "no unlisted port of a tunnel without a port of its own",
    svc,
    a.tunnel("NONE"),
    { mode: "waypoint", port: 15008 },
    "none",
  ],
];
for (const [title, service, workload, query, expected] of ports) {
  test(`the balancer chooses ${title}`, () => {
    assert.deepEqual(choices(service, client, [workload], query), [expected]);
  });
}

test("every endpoint is chosen when there is no preference", () => {
  assert.deepEqual(choices(svc, client, [a, b]), ["a:8080", "b:8080"]);
});

test("an endpoint without an address is chosen only on another network with a gateway", () => {
  const bare = mesh.workload("bare").behind(svc);
  const behindGateway = bare.network("net1").with({ networkGateway: gateway("net1/10.9.9.9") });
  assert.deepEqual(choices(svc, client, [bare]), ["none"]);
  assert.deepEqual(choices(svc, client, [bare.network("net1")]), ["none"]);
  assert.deepEqual(choices(svc, client, [behindGateway]), ["bare:8080"]);
  assert.deepEqual(choices(svc, client.network("net1"), [behindGateway]), ["none"]);
  assert.deepEqual(choices(svc, client, [bare.with({ hostname: "ext.example" })]), ["bare:8080"]);
});

test("endpoints are chosen in proportion to their capacity", () => {
  const state = mesh.state(
    svc,
    a.with({ capacity: 3 }),
    b,
    mesh.workload("c").behind(svc).with({ capacity: 0 }).at("10.0.0.4"),
  );
  const known = state.findService("default", svc.value.hostname);
  assert.ok(known);
  const random = seededRandom(7);
  const counts = new Map<string, number>();
  for (let i = 0; i < 4000; i++) {
    const query = { source: client.value, port: 80, mode: "standard" } as const;
    const chosen = chooseEndpoint(known, query, random);
    const name = chosen?.workload.name ?? "none";
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  assert.deepEqual([...counts.keys()].sort(), ["a", "b"]);
  assert.ok(Math.abs((counts.get("a") ?? 0) - 3000) < 150, `a was chosen ${counts.get("a")} times`);
});

test("among endpoints of one capacity each usable one is as likely, however few they are", () => {
  const unusable = Array.from({ length: 28 }, (_, i) => mesh.workload(`bare-${i}`).behind(svc));
  const state = mesh.state(svc, ...unusable, a, b);
  const known = state.findService("default", svc.value.hostname);
  assert.ok(known);
  assert.equal(known.endpoints.size, 30);
  const random = seededRandom(8);
  let chosenA = 0;
  for (let i = 0; i < 4000; i++) {
    const query = { source: client.value, port: 80, mode: "standard" } as const;
    const chosen = chooseEndpoint(known, query, random);
    assert.ok(chosen);
    if (chosen.workload.name === "a") chosenA++;
  }
  assert.ok(Math.abs(chosenA - 2000) < 150, `a was chosen ${chosenA} times`);
});

test("the nearest endpoints decide, also when they have no capacity", () => {
  const service = svc.balance("Failover", ["Node"]);
  const source = client.on("node-1");
  const full = a.on("node-1").with({ capacity: 0 });
  assert.deepEqual(choices(service, source, [full, b.on("node-2")]), ["none"]);
  // One that nobody can reach is not near.
  const bare = mesh.workload("bare").behind(svc).on("node-1");
  assert.deepEqual(choices(service, source, [bare, b.on("node-2")]), ["b:8080"]);
});

test("endpoints without any capacity are never chosen", () => {
  const idle = a.with({ capacity: 0 });
  assert.deepEqual(choices(svc, client, [idle]), ["none"]);
});

const near = client.network("net1").locality("eu", "eu-1", "rack-1").on("node-1");
const place = (
  name: string,
  network: string,
  region: string,
  zone: string,
  subzone = "",
  node = "",
): WorkloadBuilder =>
  mesh
    .workload(name)
    .at(`10.0.1.${name.length}`)
    .behind(svc)
    .network(network)
    .locality(region, zone, subzone)
    .on(node);

const everyRank = [
  place("all", "net1", "eu", "eu-1"),
  place("region", "net1", "eu", "eu-2"),
  place("network", "net1", "us", "us-1"),
  place("far-zone", "net2", "eu", "eu-1"),
  place("far-region", "net2", "eu", "eu-3"),
  place("nowhere", "net2", "us", "us-1"),
];
const FAILOVER: LoadBalancingScope[] = ["Network", "Region", "Zone"];

test("failover takes the nearest that is left, any of our network before another", () => {
  const order = everyRank.map(({ value }) => `${value.name}:8080`);
  for (let left = 0; left < everyRank.length; left++) {
    const service = svc.balance("Failover", FAILOVER);
    assert.deepEqual(choices(service, near, everyRank.slice(left)), [order[left]]);
  }
});

const preferences: readonly [
  string,
  LoadBalancingMode,
  LoadBalancingScope[],
  WorkloadBuilder[],
  string[],
][] = [
  [
    "strict drops what does not match every scope",
    "Strict",
    ["Region", "Zone"],
    everyRank,
    ["all:8080", "far-zone:8080"],
  ],
  ["strict without a match chooses nothing", "Strict", ["Node"], everyRank, ["none"]],
  [
    "strict with the network first still asks for all scopes",
    "Strict",
    FAILOVER,
    everyRank.slice(1),
    ["none"],
  ],
  [
    "strict keeps to the node",
    "Strict",
    ["Node"],
    [place("here", "net1", "", "", "", "node-1"), ...everyRank],
    ["here:8080"],
  ],
  [
    "a mismatch ends the walk",
    "Failover",
    ["Region", "Zone", "Network"],
    [place("x", "net1", "us", "eu-1"), place("yy", "net2", "us", "us-1")],
    ["x:8080", "yy:8080"],
  ],
  [
    "subzones rank below zones",
    "Failover",
    ["Zone", "Subzone"],
    [place("x", "net1", "eu", "eu-1", "rack-1"), place("yy", "net1", "eu", "eu-1")],
    ["x:8080"],
  ],
  [
    "clusters are compared",
    "Failover",
    ["Cluster"],
    [a, b.with({ clusterId: "other" })],
    ["a:8080"],
  ],
  [
    "standard does not rank",
    "Standard",
    FAILOVER,
    everyRank.slice(0, 2),
    ["all:8080", "region:8080"],
  ],
];
for (const [title, mode, scopes, workloads, expected] of preferences) {
  test(title, () => {
    assert.deepEqual(choices(svc.balance(mode, scopes), near, workloads), expected);
  });
}

test("an endpoint that can't be used does not shadow farther ones", () => {
  const bare = mesh.workload("bare").behind(svc).network("net1").locality("eu", "eu-1");
  const service = svc.balance("Failover", FAILOVER);
  assert.deepEqual(choices(service, near, [bare, ...everyRank.slice(2)]), ["network:8080"]);
});

test("endpoints that were tried in vain are passed over for farther ones, with or without preferences", () => {
  const tried = new Set([a.value.uid]);
  assert.deepEqual(choices(svc, client, [a, b], { tried }), ["b:8080"]);
  assert.deepEqual(choices(svc, client, [a], { tried }), ["none"]);
  const [nearest, next] = everyRank;
  assert(nearest !== undefined && next !== undefined);
  const service = svc.balance("Failover", FAILOVER);
  assert.deepEqual(
    choices(service, near, [nearest, next], { tried: new Set([nearest.value.uid]) }),
    choices(service, near, [next]),
  );
});

const weights: readonly [number[], number, number | undefined][] = [
  [[], 0, undefined],
  [[0, 0], 0.5, undefined],
  [[1, 0], 0.999, 0],
  [[0, 1], 0, 1],
  [[3, 1], 0.74, 0],
  [[3, 1], 0.75, 1],
];
for (const [items, unit, index] of weights) {
  test(`of weights ${items.join(", ") || "none"} the draw ${unit} takes ${index ?? "nothing"}`, () => {
    const numbered = items.map((weight, i) => ({ weight, i }));
    assert.equal(chooseWeighted(numbered, ({ weight }) => weight, fixedRandom(unit))?.i, index);
  });
}
