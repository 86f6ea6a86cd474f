import assert from "node:assert/strict";
import { test } from "node:test";
import type { MeshState } from "../../src/state/mesh-state.ts";
import {
  chooseServiceWaypoint,
  findGatewayDestination,
  findNetworkGateway,
  findWaypoint,
  isOwnWaypoint,
} from "../../src/state/waypoint.ts";
import { address, fixedRandom, gateway, ip, mesh, seededRandom } from "../support/mesh-fixture.ts";

const client = mesh.workload("client").at("10.0.0.1").hbone();
const wpService = mesh.service("wp").at("10.96.0.9").port(15008, 15008);
const wp = mesh.workload("wp").at("10.0.0.9").hbone().behind(wpService);
const BY_NAME = "default/wp.default.svc.cluster.local";

function find(state: MeshState, to: string, target = "10.0.0.2:80"): string {
  const query = { gateway: gateway(to), source: client.value, target: address(target) };
  const lookup = findWaypoint(state, query, fixedRandom());
  if (lookup.kind === "missing") return `missing ${lookup.name}`;
  if (lookup.kind === "unroutable") return "unroutable";
  return `${lookup.upstream.workload.name} ${lookup.upstream.ip}:${lookup.upstream.port}`;
}

test("a waypoint is found by the name of its service", () => {
  assert.equal(find(mesh.state(wpService, wp), BY_NAME), "wp 10.0.0.9:15008");
});

test("a waypoint is found by the address of its service", () => {
  assert.equal(find(mesh.state(wpService, wp), "/10.96.0.9"), "wp 10.0.0.9:15008");
});

test("a waypoint is found by the address of its workload", () => {
  assert.equal(find(mesh.state(wp), "/10.0.0.9"), "wp 10.0.0.9:15008");
});

test("a waypoint is found by the host name of its workload in its namespace", () => {
  const named = mesh.workload("wp").at("10.0.0.9").with({ hostname: "wp.example" });
  assert.equal(find(mesh.state(named), "default/wp.example"), "wp 10.0.0.9:15008");
  assert.equal(find(mesh.state(named), "other/wp.example"), "missing wp.example");
});

test("a network gateway is found like a waypoint, but only on ports that its service lists", () => {
  const gateways = mesh.service("wp").port(15_009, 15_008);
  const found = (state: MeshState, port: number): string => {
    const query = {
      gateway: gateway(BY_NAME, port),
      source: client.value,
      target: address("10.0.0.2:80"),
    };
    const lookup = findNetworkGateway(state, query, fixedRandom());
    return lookup.kind === "found" ? `${lookup.upstream.ip}:${lookup.upstream.port}` : lookup.kind;
  };
  const state = mesh.state(gateways, wp.behind(gateways));
  assert.equal(found(state, 15_009), "10.0.0.9:15008");
  assert.equal(found(state, 15_008), "missing");
  const tunnelling = mesh.state(gateways, wp.behind(gateways).tunnel("PROXY", 15_088));
  assert.equal(found(tunnelling, 15_008), "missing");
});

test("a tunnelling waypoint may listen on a port that its service does not list", () => {
  const plain = mesh.service("wp").at("10.96.0.9").port(80, 80);
  assert.equal(find(mesh.state(plain, wp.tunnel("PROXY", 15088)), BY_NAME), "wp 10.0.0.9:15008");
  assert.equal(find(mesh.state(plain, wp), BY_NAME), "missing wp.default.svc.cluster.local");
});

test("a waypoint by name is reached in the family of the original target", () => {
  const state = mesh.state(wpService, wp.at("10.0.0.9", "fd00::9"));
  assert.equal(find(state, BY_NAME, "[fd00::2]:80"), "wp fd00::9:15008");
  assert.equal(find(state, "/10.96.0.9", "[fd00::2]:80"), "wp 10.0.0.9:15008");
});

test("what is missing is called as it was referred to", () => {
  const state = mesh.state(wpService);
  assert.equal(find(state, BY_NAME), "missing wp.default.svc.cluster.local");
  assert.equal(find(state, "default/nowhere.example"), "missing nowhere.example");
  assert.equal(find(state, "/10.1.1.1"), "missing /10.1.1.1:15008");
  assert.equal(find(state, "net1/fd00::1"), "missing net1/[fd00::1]:15008");
});

test("a passthrough service by address is no waypoint", () => {
  const state = mesh.state(wpService.balance("Passthrough"), wp);
  assert.equal(find(state, "/10.96.0.9"), "missing /10.96.0.9:15008");
});

test("weighted waypoints are chosen in proportion, and the single one without weights", () => {
  const single = gateway("default/single");
  const weighted = (...weights: number[]): Parameters<typeof chooseServiceWaypoint>[0] =>
    wpService.with({
      waypoint: single,
      weightedWaypoints: weights.map((weight, i) => ({
        destination: gateway(`default/w${i}`),
        weight,
      })),
    }).value;
  assert.deepEqual(chooseServiceWaypoint(weighted(), fixedRandom()), single);
  assert.deepEqual(chooseServiceWaypoint(weighted(0, 0), fixedRandom()), single);
  assert.equal(chooseServiceWaypoint(wpService.value, fixedRandom()), undefined);

  const share = (...weights: number[]): number => {
    const random = seededRandom(11);
    let first = 0;
    for (let i = 0; i < 4000; i++) {
      const chosen = chooseServiceWaypoint(weighted(...weights), random)?.destination;
      if (chosen?.kind === "hostname" && chosen.hostname === "w0") first++;
    }
    return first / 4000;
  };
  assert.equal(share(100, 0), 1);
  assert.equal(share(0, 100), 0);
  assert.ok(Math.abs(share(75, 25) - 0.75) < 0.05);
});

test("a gateway address names a service before a workload by name, the reverse by address", () => {
  const named = mesh.workload("twin").with({ hostname: "wp.default.svc.cluster.local" });
  const state = mesh.state(wpService, wp.at("10.96.0.9"), named);
  assert.equal(findGatewayDestination(state, gateway(BY_NAME))?.kind, "service");
  assert.equal(findGatewayDestination(state, gateway("/10.96.0.9"))?.kind, "workload");
  assert.equal(findGatewayDestination(state, gateway("/10.1.1.1")), undefined);
});

const server = mesh.workload("server").at("10.0.0.2");
const own: readonly [
  string,
  Parameters<typeof mesh.state>,
  string | undefined,
  string,
  string,
  boolean,
][] = [
  [
    "its waypoint's service, seen from the waypoint",
    [wpService, wp],
    BY_NAME,
    "wp",
    "10.0.0.9",
    true,
  ],
  ["its waypoint's address, seen from the waypoint", [wp], "/10.0.0.9", "wp", "10.0.0.9", true],
  ["its waypoint, seen from another address", [wpService, wp], BY_NAME, "wp", "10.0.0.8", false],
  [
    "its waypoint, seen from another identity",
    [wpService, wp],
    BY_NAME,
    "client",
    "10.0.0.9",
    false,
  ],
  ["a waypoint that nobody knows", [], BY_NAME, "wp", "10.0.0.9", false],
  ["no waypoint", [wpService, wp], undefined, "wp", "10.0.0.9", false],
];
for (const [title, parts, waypoint, source, downstream, expected] of own) {
  test(`a workload with ${title} is ${expected ? "" : "not "}called by its own waypoint`, () => {
    const state = mesh.state(...parts);
    const workload = waypoint === undefined ? server : server.waypoint(waypoint);
    const caller = mesh.workload(source).value;
    assert.equal(isOwnWaypoint(state, workload.value, caller, ip(downstream)), expected);
  });
}
