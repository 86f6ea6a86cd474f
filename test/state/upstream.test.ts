import assert from "node:assert/strict";
import { test } from "node:test";
import type { IpFamilies } from "../../src/mesh/service.ts";
import { findUpstream, type UpstreamLookup } from "../../src/state/upstream.ts";
import { address, fixedRandom, gateway, ip, mesh } from "../support/mesh-fixture.ts";

const client = mesh.workload("client").at("10.0.0.1").hbone();
const echo = mesh.service("echo").at("10.96.0.1").port(80, 8080);
const server = mesh.workload("server").at("10.0.0.2").hbone().behind(echo);

function find(state: ReturnType<typeof mesh.state>, target: string, network = ""): UpstreamLookup {
  const query = {
    network,
    source: client.value,
    target: address(target),
    mode: "standard",
  } as const;
  return findUpstream(state, query, fixedRandom());
}

function found(lookup: UpstreamLookup): string {
  if (lookup.kind !== "found") return lookup.kind;
  const { workload, ip: chosen, port, service } = lookup.upstream;
  return `${workload.name} ${chosen}:${port}${service === undefined ? "" : ` of ${service.service.name}`}`;
}

test("a service address leads to an endpoint on its own port", () => {
  assert.equal(
    found(find(mesh.state(echo, server), "10.96.0.1:80")),
    "server 10.0.0.2:8080 of echo",
  );
});

test("a workload's address leads to it on the port that was dialled", () => {
  assert.equal(found(find(mesh.state(echo, server), "10.0.0.2:9999")), "server 10.0.0.2:9999");
});

test("a service wins over a workload with the same address", () => {
  const state = mesh.state(echo, server, mesh.workload("impostor").at("10.96.0.1"));
  assert.equal(found(find(state, "10.96.0.1:80")), "server 10.0.0.2:8080 of echo");
});

test("an unknown address, port or network leads nowhere", () => {
  const state = mesh.state(echo, server);
  assert.equal(found(find(state, "10.0.0.99:80")), "none");
  assert.equal(found(find(state, "10.96.0.1:81")), "none");
  assert.equal(found(find(state, "10.0.0.2:80", "net1")), "none");
});

test("a service without endpoints leads nowhere, even with a workload on its address", () => {
  assert.equal(found(find(mesh.state(echo), "10.96.0.1:80")), "none");
});

test("a passthrough service leads to the original destination", () => {
  const state = mesh.state(echo.balance("Passthrough"), server);
  assert.equal(found(find(state, "10.96.0.1:80")), "original-destination");
});

test("a service that the client may not see is not there", () => {
  const state = mesh.state(echo.in("shop").hidden());
  assert.equal(found(find(state, "10.96.0.1:80")), "none");
});

const V4 = "10.0.0.2";
const V6 = "fd00::2";
const families: readonly [IpFamilies, string[], string, string][] = [
  ["Automatic", [V4, V6], "10.96.0.1:80", V4],
  ["Automatic", [V4, V6], "[fd00::96]:80", V6],
  ["Automatic", [V4], "[fd00::96]:80", V4],
  ["Automatic", [V6, V4], "10.96.0.1:80", V4],
  ["Automatic", ["10.0.0.7", V4], "10.96.0.1:80", "10.0.0.7"],
  ["Dual", [V4, V6], "[fd00::96]:80", V6],
  ["IPv4", [V6, V4], "[fd00::96]:80", V4],
  ["IPv6", [V4, V6], "10.96.0.1:80", V6],
];
for (const [family, ips, target, expected] of families) {
  test(`a service of family ${family} takes ${expected} of ${ips.join(", ")} for ${target}`, () => {
    const service = echo.at("fd00::96").families(family);
    const state = mesh.state(service, server.at(...ips));
    const lookup = find(state, target);
    assert.ok(lookup.kind === "found");
    assert.equal(lookup.upstream.ip, expected);
  });
}

test("an endpoint whose addresses the service excludes can't be reached", () => {
  const state = mesh.state(echo.families("IPv6"), server);
  assert.equal(found(find(state, "10.96.0.1:80")), "unroutable");
});

test("a workload with several addresses is reached on the one that was dialled", () => {
  const state = mesh.state(mesh.workload("multi").at("10.0.0.8", "10.0.0.9"));
  assert.equal(found(find(state, "10.0.0.9:80")), "multi 10.0.0.9:80");
});

test("a host-network workload is reached as an endpoint but not by its address", () => {
  const state = mesh.state(echo, server.hostNetwork());
  assert.equal(found(find(state, "10.96.0.1:80")), "server 10.0.0.2:8080 of echo");
  assert.equal(found(find(state, "10.0.0.2:80")), "none");
});

test("an endpoint known only by host name is found without an address, for its family", () => {
  const both = echo.at("10.96.0.1", "fd00::96");
  const state = mesh.state(both, server.at().with({ hostname: "ext.example" }));
  for (const [target, family] of [
    ["10.96.0.1:80", 4],
    ["[fd00::96]:80", 6],
  ] as const) {
    const lookup = find(state, target);
    assert.ok(lookup.kind === "found");
    const { ip: chosen, family: preferred, port } = lookup.upstream;
    assert.deepEqual([chosen, preferred, port], [undefined, family, 8080]);
  }
});

test("an endpoint with neither address, host name nor gateway is none", () => {
  assert.equal(find(mesh.state(echo, server.at()), "10.96.0.1:80").kind, "none");
});

test("an endpoint of another network without an address is found for its gateway", () => {
  const remote = server
    .at()
    .network("net1")
    .with({ networkGateway: gateway("net1/10.9.9.9") });
  const lookup = find(mesh.state(echo, remote), "10.96.0.1:80");
  assert.ok(lookup.kind === "found");
  assert.equal(lookup.upstream.ip, undefined);
});

test("a peer may prove to be one of the service's names or the workload itself", () => {
  const named = echo.names(
    "spiffe://td/ns/shop/sa/extra",
    "not-a-spiffe-id",
    "spiffe://td/ns/a/sa/b",
  );
  const lookup = find(mesh.state(named, server), "10.96.0.1:80");
  assert.ok(lookup.kind === "found");
  assert.deepEqual(lookup.upstream.identities, [
    { trustDomain: "td", namespace: "shop", serviceAccount: "extra" },
    { trustDomain: "td", namespace: "a", serviceAccount: "b" },
    { trustDomain: "cluster.local", namespace: "default", serviceAccount: "server" },
  ]);
  const direct = find(mesh.state(named, server), "10.0.0.2:80");
  assert.ok(direct.kind === "found");
  assert.equal(direct.upstream.identities.length, 1);
});

test("the target itself is taken verbatim when a service shares a workload's address", () => {
  const state = mesh.state(echo, server.at("10.0.0.3", "10.96.0.1"));
  const lookup = find(state, "10.96.0.1:80");
  assert.ok(lookup.kind === "found");
  assert.equal(lookup.upstream.ip, ip("10.96.0.1"));
});
