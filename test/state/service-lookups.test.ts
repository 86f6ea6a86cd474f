import assert from "node:assert/strict";
import { test } from "node:test";
import type { MeshState } from "../../src/state/mesh-state.ts";
import { asUpdate, ip, mesh, type ServiceBuilder } from "../support/mesh-fixture.ts";

function byVip(state: MeshState, address: string, namespace?: string, network = ""): string {
  return state.findServiceByVip(network, ip(address), namespace)?.service.hostname ?? "none";
}

function byHost(state: MeshState, hostname: string, namespace?: string): string {
  const service = state.findServiceByHostname(hostname, namespace)?.service;
  return service === undefined ? "none" : `${service.namespace}/${service.hostname}`;
}

const echo = mesh.service("echo").at("10.96.0.1").port(80, 8080);
const ECHO = "echo.default.svc.cluster.local";

test("a service is found by name, host name and address of its network", () => {
  const state = mesh.state(echo.at("net1/10.96.0.2"));
  assert.equal(state.findService("default", ECHO)?.service.name, "echo");
  assert.equal(state.findService("other", ECHO), undefined);
  assert.equal(byHost(state, ECHO), `default/${ECHO}`);
  assert.equal(byVip(state, "10.96.0.1"), ECHO);
  assert.equal(byVip(state, "10.96.0.2"), "none");
  assert.equal(byVip(state, "10.96.0.2", undefined, "net1"), ECHO);
});

test("a replaced service leaves the addresses that it no longer lists", () => {
  const state = mesh.state(echo);
  state.apply([asUpdate(echo.with({ vips: [] }).at("10.96.0.9"))]);
  assert.equal(byVip(state, "10.96.0.1"), "none");
  assert.equal(byVip(state, "10.96.0.9"), ECHO);
  assert.equal(state.counts().services, 1);
});

test("a removed service is found nowhere", () => {
  const state = mesh.state(echo.ranges("", "192.0.2.0/24"));
  state.apply([{ kind: "remove-address", name: `default/${ECHO}` }]);
  assert.equal(state.findService("default", ECHO), undefined);
  assert.equal(byHost(state, ECHO), "none");
  assert.equal(byVip(state, "10.96.0.1"), "none");
  assert.equal(byVip(state, "192.0.2.1"), "none");
  assert.equal(state.counts().services, 0);
});

test("names that nobody has are removed without harm", () => {
  const state = mesh.state(echo);
  for (const name of ["", "no-slash", "default/other", "cluster1//Pod/default/gone", `x/${ECHO}`]) {
    state.apply([{ kind: "remove-address", name }]);
  }
  assert.equal(state.counts().services, 1);
});

const shared = (namespace: string): ServiceBuilder =>
  mesh.service("shared").in(namespace).hostname("shared.example").at("10.96.0.1");

test("of services that share an address, the client's namespace wins", () => {
  const state = mesh.state(shared("a"), shared("b"), shared("c").canonical());
  const namespaceOf = (client?: string): string | undefined =>
    state.findServiceByVip("", ip("10.96.0.1"), client)?.service.namespace;
  assert.equal(namespaceOf("b"), "b");
  assert.equal(namespaceOf("elsewhere"), "c");
  assert.equal(namespaceOf(), "c");
  state.apply([{ kind: "remove-address", name: "c/shared.example" }]);
  assert.equal(namespaceOf(), "a");
  state.apply([{ kind: "remove-address", name: "a/shared.example" }]);
  assert.equal(namespaceOf("a"), "b");
});

test("of two canonical services the last one known wins", () => {
  const state = mesh.state(shared("a").canonical(), shared("b").canonical(), shared("c"));
  assert.equal(byHost(state, "shared.example", "elsewhere"), "b/shared.example");
});

test("two services of one namespace on one address keep the same winner in any order", () => {
  const one = mesh.service("one").at("10.96.0.1");
  const two = mesh.service("two").at("10.96.0.1");
  for (const services of [
    [one, two],
    [two, one],
    [one, two, one],
    [two, one, one],
  ]) {
    const state = mesh.state(...services);
    assert.equal(byVip(state, "10.96.0.1", "default"), one.value.hostname);
    assert.equal(byVip(state, "10.96.0.1", "elsewhere"), one.value.hostname);
    state.apply([asUpdate(mesh.workload("w").behind(two)), asUpdate(two)]);
    assert.equal(byVip(state, "10.96.0.1", "default"), one.value.hostname);
    state.apply([{ kind: "remove-address", name: `default/${one.value.hostname}` }]);
    assert.equal(byVip(state, "10.96.0.1", "default"), two.value.hostname);
  }
});

test("a canonical service wins over its namespace's other ones", () => {
  const state = mesh.state(
    mesh.service("one").at("10.96.0.1"),
    mesh.service("two").at("10.96.0.1").canonical(),
  );
  assert.equal(byVip(state, "10.96.0.1", "default"), "two.default.svc.cluster.local");
});

test("a service kept to its namespace is hidden from clients elsewhere", () => {
  const state = mesh.state(shared("a").hidden());
  assert.equal(byVip(state, "10.96.0.1", "a"), "shared.example");
  assert.equal(byVip(state, "10.96.0.1", "b"), "none");
  assert.equal(byVip(state, "10.96.0.1"), "shared.example");
  assert.equal(byHost(state, "shared.example", "a"), "a/shared.example");
  assert.equal(byHost(state, "shared.example", "b"), "none");
  assert.equal(byHost(state, "shared.example"), "a/shared.example");
});

test("a hidden service leaves the address to a visible one", () => {
  const state = mesh.state(shared("a").hidden().canonical(), shared("b"));
  assert.equal(byHost(state, "shared.example", "c"), "b/shared.example");
});

test("an exact address that is hidden falls through to a range", () => {
  const range = mesh.service("range").ranges("", "10.96.0.0/16");
  const state = mesh.state(shared("a").hidden(), range);
  assert.equal(byVip(state, "10.96.0.1", "b"), range.value.hostname);
  assert.equal(byVip(state, "10.96.0.1", "a"), "shared.example");
});

const wide = mesh.service("wide").hostname("wide").ranges("", "10.0.0.0/8", "fd00::/16");
const narrow = mesh.service("narrow").hostname("narrow").ranges("", "10.1.0.0/16", "fd00:1::/32");
const exact = mesh.service("exact").hostname("exact").at("10.1.0.1", "fd00:1::1");
const mixed = mesh.service("mixed").hostname("mixed").at("10.5.0.1").ranges("", "fd05::/16");
const everything = mesh.service("all").hostname("all").ranges("", "0.0.0.0/0");

const ranges: readonly [string, ServiceBuilder[], string, string | undefined, string][] = [
  ["an IPv4 range matches inside", [wide], "10.200.0.1", undefined, "wide"],
  ["an IPv4 range does not match outside", [wide], "11.0.0.1", undefined, "none"],
  ["an IPv6 range matches inside", [wide], "fd00:abcd::1", undefined, "wide"],
  ["an IPv6 range does not match outside", [wide], "fe80::1", undefined, "none"],
  ["the longest IPv4 prefix wins", [wide, narrow], "10.1.2.3", undefined, "narrow"],
  ["the longest IPv4 prefix wins in any order", [narrow, wide], "10.1.2.3", undefined, "narrow"],
  ["the longest IPv6 prefix wins", [wide, narrow], "fd00:1::9", undefined, "narrow"],
  ["an exact IPv4 address wins over ranges", [wide, narrow, exact], "10.1.0.1", undefined, "exact"],
  ["an exact IPv6 address wins over ranges", [wide, exact], "fd00:1::1", undefined, "exact"],
  ["an exact IPv4 address beside an IPv6 range", [mixed], "10.5.0.1", undefined, "mixed"],
  ["an IPv6 range beside an exact IPv4 address", [mixed], "fd05::9", undefined, "mixed"],
  ["an exact address is none of its neighbours'", [mixed], "10.5.0.2", undefined, "none"],
  ["families never match each other", [everything], "::1", undefined, "none"],
  [
    "the client's namespace wins over a longer prefix",
    [wide.in("a").hostname("wide"), narrow],
    "10.1.2.3",
    "a",
    "wide",
  ],
  ["a hidden range is skipped", [wide, narrow.hidden()], "10.1.2.3", "elsewhere", "wide"],
  [
    "canonical wins among equal prefixes",
    [wide, wide.in("b").hostname("b").canonical()],
    "10.1.2.3",
    undefined,
    "b",
  ],
  [
    "the first wins among equals",
    [wide, wide.in("b").hostname("b")],
    "10.1.2.3",
    undefined,
    "wide",
  ],
];
for (const [title, services, address, client, found] of ranges) {
  test(title, () => assert.equal(byVip(mesh.state(...services), address, client), found));
}

test("a range belongs to its network", () => {
  const state = mesh.state(mesh.service("far").ranges("net1", "10.0.0.0/8"));
  assert.equal(byVip(state, "10.0.0.1"), "none");
  assert.equal(byVip(state, "10.0.0.1", undefined, "net1"), "far.default.svc.cluster.local");
});

test("a range serves the endpoints of today, not those of the time when it came", () => {
  const service = mesh.service("range").ranges("", "192.0.2.0/24").port(80, 80);
  const state = mesh.state(service);
  state.apply([asUpdate(mesh.workload("a").behind(service))]);
  state.apply([asUpdate(mesh.workload("b").behind(service))]);
  assert.equal(state.findServiceByVip("", ip("192.0.2.1"), undefined)?.endpoints.size, 2);
  state.apply([{ kind: "remove-address", name: `default/${service.value.hostname}` }]);
  assert.equal(byVip(state, "192.0.2.1"), "none");
});

test("endpoints appear whichever of workload and service comes first", () => {
  const one = mesh.workload("one").behind(echo, { 80: 8080 });
  const two = mesh.workload("two").behind(echo, { 80: 9090 });
  const state = mesh.state(one, echo, two);
  const known = state.findService("default", ECHO);
  const names = [...(known?.endpoints.values() ?? [])].map(({ name }) => name);
  assert.deepEqual(names.sort(), ["one", "two"]);
  assert.deepEqual(known?.endpoints.get(two.value.uid), two.value);
  assert.equal(state.findServiceByVip("", ip("10.96.0.1"), undefined), known);
});

test("an endpoint goes when its workload leaves the service or the mesh", () => {
  const one = mesh.workload("one").behind(echo);
  const state = mesh.state(echo, one, mesh.workload("two").behind(echo));
  const count = (): number | undefined => state.findService("default", ECHO)?.endpoints.size;
  state.apply([asUpdate(mesh.workload("one"))]);
  assert.equal(count(), 1);
  state.apply([{ kind: "remove-address", name: mesh.workload("two").value.uid }]);
  assert.equal(count(), 0);
});

test("what a workload offered before its service came is forgotten with it", () => {
  const state = mesh.state(mesh.workload("one").behind(echo), mesh.workload("two").behind(echo));
  state.apply([asUpdate(mesh.workload("one"))]);
  state.apply([{ kind: "remove-address", name: mesh.workload("two").value.uid }]);
  state.apply([asUpdate(echo)]);
  assert.equal(state.findService("default", ECHO)?.endpoints.size, 0);
});

test("unhealthy endpoints are behind a service only if it accepts them", () => {
  const one = mesh.workload("one").behind(echo);
  const state = mesh.state(one, mesh.workload("two").behind(echo).unhealthy(), echo);
  const count = (): number | undefined => state.findService("default", ECHO)?.endpoints.size;
  assert.equal(count(), 1);
  state.apply([asUpdate(echo.acceptUnhealthy())]);
  assert.equal(count(), 2);
  state.apply([asUpdate(one.unhealthy())]);
  assert.equal(count(), 2);
  state.apply([asUpdate(echo)]);
  assert.equal(count(), 0);
  state.apply([asUpdate(one)]);
  assert.equal(count(), 1);
});

test("an endpoint that is sent again as unhealthy goes, one that recovers comes back", () => {
  const one = mesh.workload("one").behind(echo);
  const state = mesh.state(echo, one);
  const count = (): number | undefined => state.findService("default", ECHO)?.endpoints.size;
  state.apply([asUpdate(one.unhealthy())]);
  assert.equal(count(), 0);
  state.apply([asUpdate(one)]);
  assert.equal(count(), 1);
  state.apply([{ kind: "remove-address", name: one.value.uid }, asUpdate(one)]);
  assert.equal(count(), 1);
});

test("a service that readers hold keeps its version, its endpoints are those of today", () => {
  const state = mesh.state(echo, mesh.workload("one").behind(echo));
  const held = state.findService("default", ECHO);
  state.apply([asUpdate(mesh.workload("two").behind(echo)), asUpdate(echo.canonical())]);
  assert.equal(held?.endpoints.size, 2);
  assert.equal(held?.service.canonical, false);
});
