import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parseLocalMesh } from "../../src/config/local-mesh-file.ts";
import { formatSpiffeId } from "../../src/mesh/identity.ts";
import { chooseOutboundRoute } from "../../src/proxy/outbound-route.ts";
import {
  address,
  fixedRandom,
  gateway,
  ip,
  liveMesh,
  mesh,
  type ServiceBuilder,
  type WorkloadBuilder,
} from "../support/mesh-fixture.ts";
import { describe, route } from "./routes.ts";

const client = mesh.workload("client").at("10.0.0.1").hbone();
const echo = mesh.service("echo").at("10.96.0.1").port(80, 8080);
const server = mesh.workload("server").at("10.0.0.2").hbone().behind(echo);
const wpService = mesh.service("wp").at("10.96.0.9").port(15008, 15008);
const wp = mesh.workload("wp").at("10.0.0.9").hbone().behind(wpService);
const WP = "default/wp.default.svc.cluster.local";
const eastWest = mesh.workload("gw").at("10.9.9.9").hbone().network("net1");

type Parts = (WorkloadBuilder | ServiceBuilder)[];
const cases: readonly [title: string, Parts, target: string, expected: string][] = [
  ["an unknown address", [client], "192.0.2.1:80", "tcp 192.0.2.1:80"],
  [
    "an HBONE pod",
    [client, server],
    "10.0.0.2:9000",
    "hbone 10.0.0.2:15008 for 10.0.0.2:9000 -> server",
  ],
  [
    "an HBONE pod of IPv6",
    [server.at("fd00::2")],
    "[fd00::2]:80",
    "hbone [fd00::2]:15008 for [fd00::2]:80 -> server",
  ],
  [
    "an HBONE pod of the same node",
    [client.on("n1"), server.on("n1")],
    "10.0.0.2:80",
    "hbone 10.0.0.2:15008 for 10.0.0.2:80 -> server",
  ],
  ["itself", [client], "10.0.0.1:80", "hbone 10.0.0.1:15008 for 10.0.0.1:80 -> client"],
  [
    "a plain pod",
    [mesh.workload("plain").at("10.0.0.3")],
    "10.0.0.3:80",
    "tcp 10.0.0.3:80 -> plain",
  ],
  [
    // The first lookup sees a workload, so that no service is called; the second finds the service.
    "an address that a workload shares with a service behind a waypoint",
    [echo.waypoint(WP), server, mesh.workload("shares").at("10.96.0.1").hbone(), wpService, wp],
    "10.96.0.1:80",
    "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  ],
  ["a host-network pod", [server.hostNetwork()], "10.0.0.2:80", "tcp 10.0.0.2:80"],
  [
    "a service",
    [echo, server],
    "10.96.0.1:80",
    "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  ],
  [
    "a service of plain pods",
    [echo, mesh.workload("plain").at("10.0.0.3").behind(echo)],
    "10.96.0.1:80",
    "tcp 10.0.0.3:8080 -> plain of echo",
  ],
  [
    "a service of host-network pods",
    [echo, server.hostNetwork()],
    "10.96.0.1:80",
    "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  ],
  [
    "its own service",
    [echo, client.behind(echo)],
    "10.96.0.1:80",
    "hbone 10.0.0.1:15008 for 10.0.0.1:8080 -> client of echo",
  ],
  ["a service without endpoints", [echo], "10.96.0.1:80", "no healthy upstream: 10.96.0.1:80"],
  [
    "a service on a port that it does not list",
    [echo, server],
    "10.96.0.1:81",
    "no healthy upstream: 10.96.0.1:81",
  ],
  [
    "a service whose endpoints are all unhealthy",
    [echo, server.unhealthy()],
    "10.96.0.1:80",
    "no healthy upstream: 10.96.0.1:80",
  ],
  [
    "a service whose unhealthy endpoints are welcome",
    [echo.acceptUnhealthy(), server.unhealthy()],
    "10.96.0.1:80",
    "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  ],
  [
    "a named port that only one endpoint maps",
    [
      mesh.service("echo").at("10.96.0.1").port(80, 0),
      server,
      mesh.workload("named").at("10.0.0.5").behind(echo, { 80: 9000 }),
    ],
    "10.96.0.1:80",
    "tcp 10.0.0.5:9000 -> named of echo",
  ],
  [
    "a passthrough service",
    [echo.balance("Passthrough"), server],
    "10.96.0.1:80",
    "tcp 10.96.0.1:80",
  ],
  [
    "a passthrough service with a waypoint",
    [echo.balance("Passthrough").waypoint(WP), wpService, wp],
    "10.96.0.1:80",
    "hbone 10.0.0.9:15008 for 10.96.0.1:80 -> wp of echo",
  ],
  [
    "a service with a waypoint",
    [echo.waypoint(WP), server, wpService, wp],
    "10.96.0.1:80",
    "hbone 10.0.0.9:15008 for 10.96.0.1:80 -> wp of echo",
  ],
  [
    "a service with a waypoint, on any port",
    [echo.waypoint(WP), wpService, wp],
    "10.96.0.1:81",
    "hbone 10.0.0.9:15008 for 10.96.0.1:81 -> wp of echo",
  ],
  [
    "a service with a waypoint by address",
    [echo.waypoint("/10.0.0.9"), wp],
    "10.96.0.1:80",
    "hbone 10.0.0.9:15008 for 10.96.0.1:80 -> wp of echo",
  ],
  [
    "a service with a weighted waypoint",
    [echo.with({ weightedWaypoints: [{ destination: gateway(WP), weight: 1 }] }), wpService, wp],
    "10.96.0.1:80",
    "hbone 10.0.0.9:15008 for 10.96.0.1:80 -> wp of echo",
  ],
  [
    "a service with a waypoint that nobody knows",
    [echo.waypoint("default/gone.example"), server],
    "10.96.0.1:80",
    "unknown waypoint: waypoint gone.example not found",
  ],
  [
    "a pod with a waypoint",
    [server.waypoint(WP), wpService, wp],
    "10.0.0.2:9000",
    "hbone 10.0.0.9:15008 for 10.0.0.2:9000 -> wp",
  ],
  [
    "a plain pod with a waypoint",
    [mesh.workload("plain").at("10.0.0.3").waypoint(WP), wpService, wp],
    "10.0.0.3:80",
    "hbone 10.0.0.9:15008 for 10.0.0.3:80 -> wp",
  ],
  [
    "a plain waypoint",
    [server.waypoint("/10.0.0.9"), mesh.workload("wp").at("10.0.0.9")],
    "10.0.0.2:80",
    "hbone 10.0.0.9:15008 for 10.0.0.2:80 -> wp",
  ],
  [
    "a pod with an IPv4 waypoint by IPv6",
    [server.at("fd00::2").waypoint(WP), wpService, wp],
    "[fd00::2]:80",
    "hbone 10.0.0.9:15008 for [fd00::2]:80 -> wp",
  ],
  [
    "a pod with a waypoint that nobody knows",
    [server.waypoint("/10.1.1.1")],
    "10.0.0.2:80",
    "unknown waypoint: waypoint /10.1.1.1:15008 not found",
  ],
  [
    "a service whose endpoint has a waypoint",
    [echo, server.waypoint(WP), wpService, wp],
    "10.96.0.1:80",
    "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  ],
  [
    "a waypoint's service",
    [wpService, wp],
    "10.96.0.9:15008",
    "hbone 10.0.0.9:15008 for 10.0.0.9:15008 -> wp of wp",
  ],
  ["a pod of another network", [server.network("net1")], "10.0.0.2:80", "tcp 10.0.0.2:80"],
  [
    "a service of another network",
    [echo, server.network("net1")],
    "10.96.0.1:80",
    "no valid routing destination for workload: cluster1//Pod/default/server",
  ],
  [
    "a service behind a network gateway",
    [
      echo,
      server
        .at()
        .network("net1")
        .with({ networkGateway: gateway("net1/10.9.9.9") }),
      eastWest,
    ],
    "10.96.0.1:80",
    `hbone 10.9.9.9:15008 for ${echo.value.hostname}:80 -> gw of echo, then server`,
  ],
  [
    "a service behind a network gateway that nobody knows",
    [
      echo,
      server
        .at()
        .network("net1")
        .with({ networkGateway: gateway("net1/10.9.9.9") }),
    ],
    "10.96.0.1:80",
    "unknown network gateway: network gateway net1/10.9.9.9:15008 not found",
  ],
  [
    "a service behind a network gateway that is known by a host name only",
    [
      echo,
      server.network("net1").with({ networkGateway: gateway("default/gw.example") }),
      eastWest.at().with({ hostname: "gw.example" }),
    ],
    "10.96.0.1:80",
    "IPv4 of gw.example, then hbone 192.0.2.7:15008 for echo.default.svc.cluster.local:80 -> gw of echo, then server",
  ],
  [
    "a pod with a waypoint of another network",
    [server.waypoint("net1/10.0.0.9"), wp.network("net1")],
    "10.0.0.2:80",
    "no service for target address: 10.0.0.2:80",
  ],
  [
    "a service with a waypoint of another network",
    [echo.waypoint(WP), wpService, wp.network("net1")],
    "10.96.0.1:80",
    "no valid routing destination for workload: cluster1//Pod/default/wp",
  ],
  [
    "a service of a host name",
    [echo, server.at().with({ hostname: "ext.example" })],
    "10.96.0.1:80",
    "IPv4 of ext.example, then hbone 192.0.2.7:15008 for 192.0.2.7:8080 -> server of echo",
  ],
  [
    "a service of a plain host name, by IPv6",
    [echo.at("fd00::96"), mesh.workload("plain").with({ hostname: "ext.example" }).behind(echo)],
    "[fd00::96]:80",
    "IPv6 of ext.example, then tcp 192.0.2.7:8080 -> plain of echo",
  ],
  [
    "a service of a host name of which one address is known",
    [echo, server.with({ hostname: "ext.example" })],
    "10.96.0.1:80",
    "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  ],
  [
    "a waypoint of a host name",
    [echo.waypoint(WP), wpService, wp.at().with({ hostname: "wp.example" })],
    "10.96.0.1:80",
    "IPv4 of wp.example, then hbone 192.0.2.7:15008 for 10.96.0.1:80 -> wp of echo",
  ],
  [
    "a service that is hidden from it",
    [echo.in("shop").hidden()],
    "10.96.0.1:80",
    "tcp 10.96.0.1:80",
  ],
  [
    "our outbound port on loopback",
    [client],
    "127.0.0.1:15001",
    "attempted recursive call to ourselves",
  ],
  [
    "our inbound port on IPv6 loopback",
    [client],
    "[::1]:15008",
    "attempted recursive call to ourselves",
  ],
  ["another port on loopback", [client], "127.0.0.1:15053", "tcp 127.0.0.1:15053"],
  [
    "our outbound port of another pod",
    [server],
    "10.0.0.2:15001",
    "hbone 10.0.0.2:15008 for 10.0.0.2:15001 -> server",
  ],
  [
    "a workload that shares a service's address without a service there for it",
    [echo, mesh.workload("twin").at("10.96.0.1")],
    "10.96.0.1:80",
    "tcp 10.96.0.1:80",
  ],
];
for (const [title, parts, target, expected] of cases) {
  test(`a connection to ${title}`, () => {
    assert.equal(describe(route(mesh.state(...parts), client.value, target)), expected);
  });
}

test("the source's own waypoint plays no role", () => {
  const source = client.waypoint(WP);
  const state = mesh.state(source, server, wpService, wp);
  assert.equal(
    describe(route(state, source.value, "10.0.0.2:80")),
    "hbone 10.0.0.2:15008 for 10.0.0.2:80 -> server",
  );
});

test("a waypoint reaches the pods behind it without meeting itself", () => {
  const state = mesh.state(server.waypoint(WP), wpService, wp);
  const own = describe(route(state, wp.value, "10.0.0.2:80"));
  assert.equal(own, "hbone 10.0.0.2:15008 for 10.0.0.2:80 -> server");
  const spoofed = route(state, wp.value, "10.0.0.2:80", 0, ip("10.0.0.77"));
  assert.equal(describe(spoofed), "hbone 10.0.0.9:15008 for 10.0.0.2:80 -> wp");
});

test("a waypoint that calls a service with a waypoint goes through it", () => {
  const state = mesh.state(echo.waypoint(WP), server, wpService, wp);
  assert.equal(
    describe(route(state, wp.value, "10.96.0.1:80")),
    "hbone 10.0.0.9:15008 for 10.96.0.1:80 -> wp of echo",
  );
});

test("without endpoints nearby a remote one is refused rather than guessed", () => {
  const remote = mesh.workload("remote").at("10.0.9.9").hbone().behind(echo).network("net1");
  const near = server.unhealthy();
  const state = mesh.state(echo.balance("Failover", ["Network"]), near, remote);
  assert.equal(
    describe(route(state, client.value, "10.96.0.1:80")),
    "no valid routing destination for workload: cluster1//Pod/default/remote",
  );
  const both = mesh.state(echo.balance("Failover", ["Network"]), server, remote);
  for (const unit of [0, 0.5, 0.99]) {
    const chosen = describe(route(both, client.value, "10.96.0.1:80", unit));
    assert.equal(chosen, "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo");
  }
});

test("an endpoint of another network behind a workload's address has no service to be reached by", () => {
  const state = mesh.state(echo, server.network("net1"), mesh.workload("twin").at("10.96.0.1"));
  assert.equal(
    describe(route(state, client.value, "10.96.0.1:80")),
    "no service for target address: 10.96.0.1:80",
  );
});

test("the peer may prove to be the service's names or the workload", () => {
  const state = mesh.state(echo.names("spiffe://td/ns/a/sa/b", "bad"), server);
  const chosen = route(state, client.value, "10.96.0.1:80");
  assert.ok(chosen.kind === "hbone");
  assert.deepEqual(chosen.expected.map(formatSpiffeId), [
    "spiffe://td/ns/a/sa/b",
    "spiffe://cluster.local/ns/default/sa/server",
  ]);
});

test("a waypoint may prove to be its own service's names, not the target's", () => {
  const state = mesh.state(
    echo.waypoint(WP).names("spiffe://td/ns/a/sa/target"),
    wpService.names("spiffe://td/ns/a/sa/waypoint"),
    wp,
  );
  const chosen = route(state, client.value, "10.96.0.1:80");
  assert.ok(chosen.kind === "hbone");
  assert.deepEqual(chosen.expected.map(formatSpiffeId), [
    "spiffe://td/ns/a/sa/waypoint",
    "spiffe://cluster.local/ns/default/sa/wp",
  ]);
});

test("beyond a network gateway only the service's own names count, at the gateway its own and its workload", () => {
  const gw = mesh.service("gw").port(15_009, 15_008).names("spiffe://td/ns/gw/sa/names");
  const state = mesh.state(
    echo.names("spiffe://td/ns/a/sa/b"),
    server
      .at()
      .network("net1")
      .with({ networkGateway: gateway(`default/${gw.value.hostname}`, 15_009) }),
    gw,
    eastWest.behind(gw),
  );
  const chosen = route(state, client.value, "10.96.0.1:80");
  assert.ok(chosen.kind === "hbone");
  assert.deepEqual(chosen.expected.map(formatSpiffeId), [
    "spiffe://td/ns/gw/sa/names",
    "spiffe://cluster.local/ns/default/sa/gw",
  ]);
  assert.deepEqual(chosen.beyond?.expected.map(formatSpiffeId), ["spiffe://td/ns/a/sa/b"]);
});

test("what was tried in vain is passed over, a pod has no substitute", () => {
  const other = mesh.workload("other").at("10.0.0.7").hbone().behind(echo);
  const state = mesh.state(echo, server, other);
  const query = {
    source: client.value,
    downstream: ip("10.0.0.1"),
    network: "",
    illegalPorts: new Set<number>(),
    bias: { tried: new Set([server.value.uid]) },
  };
  const choose = (target: string): string =>
    describe(chooseOutboundRoute(state, { ...query, target: address(target) }, fixedRandom()));
  assert.match(choose("10.96.0.1:80"), /-> other of echo$/);
  assert.match(choose("10.0.0.2:80"), /-> server$/);
  const standby = mesh.workload("wp2").at("10.0.0.8").hbone().behind(wpService);
  const behindTwo = mesh.state(echo.waypoint(WP), wpService, wp, standby);
  const second = {
    ...query,
    target: address("10.96.0.1:80"),
    bias: { tried: new Set([wp.value.uid]) },
  };
  assert.match(describe(chooseOutboundRoute(behindTwo, second, fixedRandom())), /-> wp2 of echo$/);
});

const FIXTURE = new URL("../fixtures/recorded-mesh.yaml", import.meta.url);
const recorded: readonly [situation: string, target: string, expected: string][] = [
  ["hbone", "10.77.0.21:8080", "hbone 10.77.0.21:15008 for 10.77.0.21:8080 -> server1"],
  ["hbone_vip", "10.78.0.1:80", "hbone 10.77.0.21:15008 for 10.77.0.21:8080 -> server1 of echo"],
  ["hbone_timeout", "10.98.0.9:8080", "hbone 10.98.0.9:15008 for 10.98.0.9:8080 -> lost"],
  ["plaintext_outbound", "10.77.0.33:8080", "tcp 10.77.0.33:8080 -> plain"],
  ["passthrough", "10.77.0.32:8080", "tcp 10.77.0.32:8080"],
  ["illegal_loopback_15001", "127.0.0.1:15001", "attempted recursive call to ourselves"],
  [
    "illegal_hbone_15006",
    "10.77.0.21:15006",
    "hbone 10.77.0.21:15008 for 10.77.0.21:15006 -> server1",
  ],
  ["service_empty", "10.78.0.3:80", "no healthy upstream: 10.78.0.3:80"],
  ["service_unknown_port", "10.78.0.1:81", "no healthy upstream: 10.78.0.1:81"],
  [
    "waypoint_missing",
    "10.77.0.24:8080",
    "unknown waypoint: waypoint nowhere.default.svc.cluster.local not found",
  ],
  [
    "waypoint_missing_service",
    "10.78.0.4:80",
    "unknown waypoint: waypoint nowhere.default.svc.cluster.local not found",
  ],
  ["waypoint_refused", "10.77.0.26:8080", "hbone 10.77.0.34:15008 for 10.77.0.26:8080 -> stale"],
];
const recordedState = liveMesh("node-a");
recordedState.apply(parseLocalMesh(readFileSync(FIXTURE, "utf8"), "recorded-mesh.yaml"));
for (const [situation, target, expected] of recorded) {
  test(`the recorded situation ${situation} takes the recorded way`, () => {
    const key = { name: "client1", namespace: "default", serviceAccount: "client1" };
    const source = recordedState.findLocalWorkload(key);
    assert.ok(source);
    assert.equal(describe(route(recordedState, source, target)), expected);
  });
}
