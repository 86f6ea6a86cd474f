import assert from "node:assert/strict";
import { test } from "node:test";
import {
  chooseInboundTarget,
  guessService,
  type InboundQuery,
  type InboundTarget,
} from "../../src/proxy/inbound-target.ts";
import type { MeshState } from "../../src/state/mesh-state.ts";
import {
  address,
  mesh,
  type ServiceBuilder,
  type WorkloadBuilder,
} from "../support/mesh-fixture.ts";
import { describeTarget, ILLEGAL_PORTS } from "./routes.ts";

const echo = mesh.service("echo").at("10.96.0.1").port(80, 8080);
const ECHO = echo.value.hostname;
const server = mesh.workload("server").at("10.0.0.2").hbone().behind(echo);
const wpService = mesh.service("wp").at("10.96.0.9").port(15008, 15008);
const wp = mesh.workload("wp").at("10.0.0.9").hbone().behind(wpService);
const WP = "default/wp.default.svc.cluster.local";

function choose(
  state: MeshState,
  workload: WorkloadBuilder,
  authority: string | undefined,
  more: Partial<InboundQuery> = {},
): InboundTarget {
  const local = `${workload.value.ips[0]?.includes(":") ? `[${workload.value.ips[0]}]` : workload.value.ips[0]}:15008`;
  return chooseInboundTarget(state, {
    workload: workload.value,
    local: address(local),
    method: "CONNECT",
    authority,
    forwardedHost: undefined,
    network: "",
    illegalPorts: ILLEGAL_PORTS,
    ...more,
  });
}

type Parts = (WorkloadBuilder | ServiceBuilder)[];
type Row = [title: string, Parts, WorkloadBuilder, authority: string | undefined, string];
const cases: readonly Row[] = [
  ["its own address", [echo, server], server, "10.0.0.2:8080", "10.0.0.2:8080 of echo"],
  ["a port of no service", [echo, server], server, "10.0.0.2:9", "10.0.0.2:9"],
  [
    "its own IPv6 address",
    [server.at("fd00::2")],
    server.at("fd00::2"),
    "[fd00::2]:80",
    "[fd00::2]:80",
  ],
  ["port 0", [server], server, "10.0.0.2:0", "10.0.0.2:0"],
  ["no authority", [server], server, undefined, "400 no valid authority pseudo header: "],
  [
    "an authority without a port",
    [server],
    server,
    "10.0.0.2",
    "400 no valid authority pseudo header: 10.0.0.2",
  ],
  [
    "a host name without a port",
    [server],
    server,
    "echo",
    "400 no valid authority pseudo header: echo",
  ],
  [
    "another pod's address",
    [server, wp],
    server,
    "10.0.0.9:80",
    "400 ip mismatch: 10.0.0.2 != 10.0.0.9",
  ],
  [
    "an address that nobody knows",
    [server],
    server,
    "10.1.1.1:80",
    "400 ip mismatch: 10.0.0.2 != 10.1.1.1",
  ],
  [
    "its own service's address",
    [echo, server],
    server,
    "10.96.0.1:80",
    "400 ip mismatch: 10.0.0.2 != 10.96.0.1",
  ],
  ["our own port", [server], server, "10.0.0.2:15008", "503 attempted recursive call to ourselves"],
  [
    "a service name that leads to our own port",
    [mesh.service("echo").port(80, 15006), server],
    server,
    `${ECHO}:80`,
    "503 attempted recursive call to ourselves",
  ],
  ["the name of its service", [echo, server], server, `${ECHO}:80`, "10.0.0.2:8080 of echo"],
  [
    "the name of its service with its own port",
    [echo, server.behind(echo, { 80: 9090 })],
    server.behind(echo, { 80: 9090 }),
    `${ECHO}:80`,
    "10.0.0.2:9090 of echo",
  ],
  [
    "a named port",
    [mesh.service("echo").port(80, 0), server.behind(echo, { 80: 9090 })],
    server.behind(echo, { 80: 9090 }),
    `${ECHO}:80`,
    "10.0.0.2:9090 of echo",
  ],
  [
    "a named port that it does not map",
    [mesh.service("echo").port(80, 0), server],
    server,
    `${ECHO}:80`,
    `503 requested service ${ECHO}:80 found, but cannot resolve port`,
  ],
  [
    "a port that the service does not list",
    [echo, server],
    server,
    `${ECHO}:81`,
    `503 requested service ${ECHO}:81 found, but cannot resolve port`,
  ],
  [
    "the name of a service that it is not behind",
    [echo, wp],
    wp,
    `${ECHO}:80`,
    "10.0.0.9:8080 of echo",
  ],
  [
    "a name that nobody knows",
    [server],
    server,
    "gone.example:80",
    "503 no service or workload for hostname: gone.example",
  ],
  [
    "the name of a service that is hidden from it",
    [echo.in("shop").hidden(), server],
    server,
    "echo.shop.svc.cluster.local:80",
    "503 no service or workload for hostname: echo.shop.svc.cluster.local",
  ],

  [
    "a pod whose waypoint it is, by name",
    [server.waypoint(WP), wpService, wp],
    wp,
    "10.0.0.2:80",
    "10.0.0.9:80",
  ],
  [
    "a pod whose waypoint it is, by its address",
    [server.waypoint("/10.0.0.9"), wp],
    wp,
    "10.0.0.2:80",
    "10.0.0.9:80",
  ],
  [
    "a pod whose waypoint it is, by its service's address",
    [server.waypoint("/10.96.0.9"), wpService, wp],
    wp,
    "10.0.0.2:80",
    "10.0.0.9:80",
  ],
  [
    "a service whose waypoint it is",
    [echo.waypoint(WP), wpService, wp],
    wp,
    "10.96.0.1:80",
    "10.0.0.9:80",
  ],
  [
    "a pod whose waypoint is another one",
    [server.waypoint("/10.0.0.8"), mesh.workload("other").at("10.0.0.8"), wp],
    wp,
    "10.0.0.2:80",
    "400 ip mismatch: 10.0.0.9 != 10.0.0.2",
  ],
  [
    "a pod whose waypoint has a service that it is not behind",
    [server.waypoint(WP), wpService, mesh.workload("wp").at("10.0.0.9")],
    mesh.workload("wp").at("10.0.0.9"),
    "10.0.0.2:80",
    "400 ip mismatch: 10.0.0.9 != 10.0.0.2",
  ],
  [
    "a pod whose waypoint nobody knows",
    [server.waypoint("default/gone.example"), wp],
    wp,
    "10.0.0.2:80",
    "400 ip mismatch: 10.0.0.9 != 10.0.0.2",
  ],

  [
    "any address, when the application judges itself",
    [wp],
    wp.tunnel("NONE"),
    "10.1.1.1:80",
    "10.0.0.9:80",
  ],
  [
    "any address, when the application has a port for it",
    [wp],
    wp.tunnel("NONE", 15088),
    "10.1.1.1:80",
    "10.0.0.9:15088",
  ],
  [
    "a name, when the application has a port for it",
    [echo, wp],
    wp.tunnel("NONE", 15088),
    `${ECHO}:80`,
    "10.0.0.9:15088",
  ],
  [
    "our own port behind a tunnel's port",
    [wp],
    wp.tunnel("NONE", 15088),
    "10.0.0.9:15008",
    "503 attempted recursive call to ourselves",
  ],
  [
    "a tunnel's port that is also ours",
    [wp],
    wp.tunnel("NONE", 15008),
    "10.0.0.9:80",
    "10.0.0.9:15008",
  ],
  [
    "an address, when the application wants the PROXY protocol",
    [wp],
    wp.tunnel("PROXY", 15088),
    "10.1.1.1:80",
    "10.0.0.9:15088 announcing 10.1.1.1:80",
  ],
  [
    "its own port, when the application wants the PROXY protocol there",
    [wp],
    wp.tunnel("PROXY"),
    "10.1.1.1:80",
    "10.0.0.9:80 announcing 10.1.1.1:80",
  ],
  [
    "a name, when the application wants the PROXY protocol",
    [echo, wp],
    wp.tunnel("PROXY", 15088),
    `${ECHO}:80`,
    "10.0.0.9:15088 announcing 10.96.0.1:80",
  ],
  [
    "a name with many addresses, of which the last IPv4 one of our network is announced",
    [echo.at("fd96::1", "net1/10.96.7.7", "10.96.0.3", "fd96::3"), wp],
    wp.tunnel("PROXY", 15088),
    `${ECHO}:80`,
    "10.0.0.9:15088 announcing 10.96.0.3:80",
  ],
  [
    "a name without addresses, when the application wants the PROXY protocol",
    [mesh.service("echo").port(80, 8080), wp],
    wp.tunnel("PROXY", 15088),
    `${ECHO}:80`,
    `503 requested service ${ECHO} found, but has no IP addresses`,
  ],
];
for (const [title, parts, workload, authority, expected] of cases) {
  test(`a CONNECT to ${title}`, () => {
    assert.equal(describeTarget(choose(mesh.state(...parts), workload, authority)), expected);
  });
}

test("another method is refused before anything else", () => {
  const target = choose(mesh.state(server), server, undefined, { method: "GET" });
  assert.equal(describeTarget(target), "400 expected method CONNECT, got GET");
});

test("the waypoint of a pod in another network says nothing about ours", () => {
  const state = mesh.state(server.network("net1").waypoint("/10.0.0.9"), wp);
  assert.equal(
    describeTarget(choose(state, wp, "10.0.0.2:80")),
    "400 ip mismatch: 10.0.0.9 != 10.0.0.2",
  );
  assert.equal(
    describeTarget(choose(state, wp, "10.0.0.2:80", { network: "net1" })),
    "10.0.0.9:80",
  );
});

test("the authority is kept as it came", () => {
  const target = choose(mesh.state(echo, server), server, `${ECHO}:80`);
  assert.equal(target.kind === "accept" && target.authority, `${ECHO}:80`);
});

const one = mesh.service("one").port(80, 8080);
const two = mesh.service("two").port(81, 8080);
const both = mesh.workload("w").at("10.0.0.3").behind(one).behind(two, { 90: 9000 });
const guesses: readonly [string, number, string | undefined, string | undefined][] = [
  ["the service that the peer names", 8080, two.value.hostname, "two"],
  ["the service that the peer names, whatever the port", 1, two.value.hostname, "two"],
  ["the first that leads to the port", 8080, undefined, "one"],
  ["the first that leads to the port when the peer names another", 8080, "gone.example", "one"],
  ["the one through which the workload maps the port", 9000, undefined, "two"],
  ["none for a port of no service", 1, undefined, undefined],
];
for (const [title, port, forwardedHost, expected] of guesses) {
  test(`a connection is taken to be meant for ${title}`, () => {
    const state = mesh.state(one, two, both);
    const candidates = state.servicesOf(both.value);
    assert.equal(guessService(candidates, both.value, port, forwardedHost)?.name, expected);
  });
}
