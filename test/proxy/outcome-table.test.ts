/**
 * The outcomes that the contract lists, by its own words: the table of spec data-path 2.8, then the
 * rows "outbound" and "inbound" of 13.3.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseInboundTarget } from "../../src/proxy/inbound-target.ts";
import {
  address,
  gateway,
  mesh,
  type ServiceBuilder,
  type WorkloadBuilder,
} from "../support/mesh-fixture.ts";
import { describe, describeTarget, ILLEGAL_PORTS, route } from "./routes.ts";

const client = mesh.workload("client").at("10.0.0.1").hbone().on("n1");
const echo = mesh.service("echo").at("10.96.0.1").port(80, 8080);
const server = mesh.workload("server").at("10.0.0.2").hbone().behind(echo).on("n2");
const plain = mesh.workload("plain").at("10.0.0.3").on("n2");
const wpService = mesh.service("wp").at("10.96.0.9").port(15008, 15008);
const wp = mesh.workload("wp").at("10.0.0.9").hbone().behind(wpService);
const WP = "default/wp.default.svc.cluster.local";
const ECHO = echo.value.hostname;
const eastWest = mesh.workload("gw").at("10.9.9.9").hbone().network("net1");
const gwService = mesh.service("gw").port(15_009, 15_008);
const remote = mesh
  .workload("remote")
  .hbone()
  .behind(echo)
  .network("net1")
  .with({ networkGateway: gateway("net1/10.9.9.9") });
const dual = (families: "Automatic" | "IPv4" | "IPv6" | "Dual"): ServiceBuilder =>
  echo.at("fd96::1").families(families);
const both = server.at("10.0.0.2", "fd00::2");

interface Row {
  readonly name: string;
  readonly mesh: readonly (WorkloadBuilder | ServiceBuilder)[];
  readonly to: string;
  readonly outcome: string;
}

const OUTCOMES: readonly Row[] = [
  { name: "Unknown IP", mesh: [server], to: "192.0.2.1:80", outcome: "tcp 192.0.2.1:80" },
  {
    name: "Node IP / host-network pod IP",
    mesh: [server.hostNetwork()],
    to: "10.0.0.2:80",
    outcome: "tcp 10.0.0.2:80",
  },
  {
    name: "Pod IP, HBONE",
    mesh: [server],
    to: "10.0.0.2:9000",
    outcome: "hbone 10.0.0.2:15008 for 10.0.0.2:9000 -> server",
  },
  { name: "Pod IP, TCP", mesh: [plain], to: "10.0.0.3:80", outcome: "tcp 10.0.0.3:80 -> plain" },
  {
    name: "Pod IP with workload waypoint",
    mesh: [server.waypoint(WP), wpService, wp],
    to: "10.0.0.2:9000",
    outcome: "hbone 10.0.0.9:15008 for 10.0.0.2:9000 -> wp",
  },
  {
    name: "Service VIP",
    mesh: [echo, server],
    to: "10.96.0.1:80",
    outcome: "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  },
  {
    name: "Service VIP, TCP endpoint",
    mesh: [echo, plain.behind(echo)],
    to: "10.96.0.1:80",
    outcome: "tcp 10.0.0.3:8080 -> plain of echo",
  },
  {
    name: "Service VIP with waypoint",
    mesh: [echo.waypoint(WP), server, wpService, wp],
    to: "10.96.0.1:80",
    outcome: "hbone 10.0.0.9:15008 for 10.96.0.1:80 -> wp of echo",
  },
  {
    name: "Service VIP, passthrough LB, no waypoint",
    mesh: [echo.balance("Passthrough"), server],
    to: "10.96.0.1:80",
    outcome: "tcp 10.96.0.1:80",
  },
  {
    name: "Service VIP, passthrough LB, waypoint",
    mesh: [echo.balance("Passthrough").waypoint(WP), server, wpService, wp],
    to: "10.96.0.1:80",
    outcome: "hbone 10.0.0.9:15008 for 10.96.0.1:80 -> wp of echo",
  },
  {
    name: "Service VIP, no endpoints",
    mesh: [echo],
    to: "10.96.0.1:80",
    outcome: "no healthy upstream: 10.96.0.1:80",
  },
  {
    name: "Service VIP, unknown port",
    mesh: [echo, server],
    to: "10.96.0.1:81",
    outcome: "no healthy upstream: 10.96.0.1:81",
  },
  {
    name: "Service VIP, all unhealthy",
    mesh: [echo, server.unhealthy()],
    to: "10.96.0.1:80",
    outcome: "no healthy upstream: 10.96.0.1:80",
  },
  {
    name: "Service VIP, endpoint remote network with gateway",
    mesh: [echo, remote, eastWest],
    to: "10.96.0.1:80",
    outcome: `hbone 10.9.9.9:15008 for ${ECHO}:80 -> gw of echo, then remote`,
  },
  {
    name: "Own service, picks self",
    mesh: [echo, client.behind(echo)],
    to: "10.96.0.1:80",
    outcome: "hbone 10.0.0.1:15008 for 10.0.0.1:8080 -> client of echo",
  },
  ...["127.0.0.1:15001", "127.0.0.1:15006", "127.0.0.1:15008"].map((to) => ({
    name: to,
    mesh: [server],
    to,
    outcome: "attempted recursive call to ourselves",
  })),
  {
    name: "podIP:15001 etc. (not loopback)",
    mesh: [server],
    to: "10.0.0.2:15001",
    outcome: "hbone 10.0.0.2:15008 for 10.0.0.2:15001 -> server",
  },
  {
    name: "Headless service",
    mesh: [mesh.service("headless").port(80, 8080), server],
    to: "10.0.0.2:8080",
    outcome: "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server",
  },
];

const OUTBOUND: readonly Row[] = [
  {
    name: "wrong network",
    mesh: [echo, server.network("net1")],
    to: "10.96.0.1:80",
    outcome: "no valid routing destination for workload: cluster1//Pod/default/server",
  },
  {
    name: "double HBONE by IP",
    mesh: [echo, remote, eastWest],
    to: "10.96.0.1:80",
    outcome: `hbone 10.9.9.9:15008 for ${ECHO}:80 -> gw of echo, then remote`,
  },
  {
    name: "double HBONE by hostname",
    mesh: [
      echo,
      remote.with({ networkGateway: gateway(`default/${gwService.value.hostname}`, 15_009) }),
      gwService,
      eastWest.behind(gwService),
    ],
    to: "10.96.0.1:80",
    outcome: `hbone 10.9.9.9:15008 for ${ECHO}:80 -> gw of echo, then remote`,
  },
  {
    name: "double HBONE with remote waypoint",
    mesh: [
      echo.waypoint(WP),
      server,
      wpService,
      wp
        .at()
        .network("net1")
        .with({ networkGateway: gateway("net1/10.9.9.9") }),
      eastWest,
    ],
    to: "10.96.0.1:80",
    outcome: `hbone 10.9.9.9:15008 for ${ECHO}:80 -> gw of echo, then wp`,
  },
  {
    name: "failover to remote when local unhealthy",
    mesh: [echo.balance("Failover", ["Network"]), server.unhealthy(), remote, eastWest],
    to: "10.96.0.1:80",
    outcome: `hbone 10.9.9.9:15008 for ${ECHO}:80 -> gw of echo, then remote`,
  },
  {
    name: "no failover to remote when local healthy",
    mesh: [echo.balance("Failover", ["Network"]), server, remote, eastWest],
    to: "10.96.0.1:80",
    outcome: "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  },
  { name: "unknown dest", mesh: [], to: "127.0.0.1:80", outcome: "tcp 127.0.0.1:80" },
  {
    name: "known dest local, tcp",
    mesh: [plain.on("n1")],
    to: "10.0.0.3:80",
    outcome: "tcp 10.0.0.3:80 -> plain",
  },
  {
    name: "known dest local, hbone",
    mesh: [server.on("n1")],
    to: "10.0.0.2:80",
    outcome: "hbone 10.0.0.2:15008 for 10.0.0.2:80 -> server",
  },
  {
    name: "known dest remote, tcp",
    mesh: [plain],
    to: "10.0.0.3:80",
    outcome: "tcp 10.0.0.3:80 -> plain",
  },
  {
    name: "known dest remote, hbone",
    mesh: [server],
    to: "10.0.0.2:80",
    outcome: "hbone 10.0.0.2:15008 for 10.0.0.2:80 -> server",
  },
  {
    name: "source waypoint ignored",
    mesh: [client.waypoint(WP), plain, wpService, wp],
    to: "10.0.0.3:80",
    outcome: "tcp 10.0.0.3:80 -> plain",
  },
  {
    name: "destination waypoint",
    mesh: [plain.waypoint("/10.0.0.9"), wp],
    to: "10.0.0.3:80",
    outcome: "hbone 10.0.0.9:15008 for 10.0.0.3:80 -> wp",
  },
  {
    name: "waypoint v4 for v6 target",
    mesh: [both.waypoint(WP), wpService, wp],
    to: "[fd00::2]:80",
    outcome: "hbone 10.0.0.9:15008 for [fd00::2]:80 -> wp",
  },
  {
    name: "service waypoint",
    mesh: [echo.waypoint("/10.0.0.9"), server, wp],
    to: "10.96.0.1:80",
    outcome: "hbone 10.0.0.9:15008 for 10.96.0.1:80 -> wp of echo",
  },
  {
    name: "empty service",
    mesh: [echo],
    to: "10.96.0.1:80",
    outcome: "no healthy upstream: 10.96.0.1:80",
  },
  {
    name: "named target port filters endpoints",
    mesh: [
      mesh.service("echo").at("10.96.0.1").port(80, 0),
      server,
      plain.behind(echo, { 80: 9000 }),
    ],
    to: "10.96.0.1:80",
    outcome: "tcp 10.0.0.3:9000 -> plain of echo",
  },
  {
    name: "host network",
    mesh: [echo, server.hostNetwork()],
    to: "10.96.0.1:80",
    outcome: "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  },
  {
    name: "multi-address workload",
    mesh: [both],
    to: "[fd00::2]:80",
    outcome: "hbone [fd00::2]:15008 for [fd00::2]:80 -> server",
  },
  {
    name: "service IP families: IPv4 asked for over IPv6",
    mesh: [dual("IPv4"), both],
    to: "[fd96::1]:80",
    outcome: "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  },
  {
    name: "service IP families: IPv6 asked for over IPv4",
    mesh: [dual("IPv6"), both],
    to: "10.96.0.1:80",
    outcome: "hbone [fd00::2]:15008 for [fd00::2]:8080 -> server of echo",
  },
  {
    name: "service IP families: dual follows the client",
    mesh: [dual("Dual"), both],
    to: "[fd96::1]:80",
    outcome: "hbone [fd00::2]:15008 for [fd00::2]:8080 -> server of echo",
  },
  {
    name: "service IP families: automatic follows the client",
    mesh: [dual("Automatic"), both],
    to: "10.96.0.1:80",
    outcome: "hbone 10.0.0.2:15008 for 10.0.0.2:8080 -> server of echo",
  },
  {
    name: "passthrough service without waypoint",
    mesh: [echo.balance("Passthrough"), server],
    to: "10.96.0.1:80",
    outcome: "tcp 10.96.0.1:80",
  },
  {
    name: "passthrough service with waypoint",
    mesh: [echo.balance("Passthrough").waypoint("/10.0.0.9"), server, wp],
    to: "10.96.0.1:80",
    outcome: "hbone 10.0.0.9:15008 for 10.96.0.1:80 -> wp of echo",
  },
];

for (const [chapter, rows] of [
  ["2.8", OUTCOMES],
  ["13.3 outbound", OUTBOUND],
] as const) {
  for (const { name, mesh: parts, to, outcome } of rows) {
    test(`${chapter}: ${name}`, () => {
      const state = mesh.state(client, ...parts);
      const source = state.findLocalWorkload({
        name: "client",
        namespace: "default",
        serviceAccount: "client",
      });
      assert.ok(source);
      assert.equal(describe(route(state, source, to)), outcome);
    });
  }
}

interface InboundRow {
  readonly name: string;
  /** Which of the two has a waypoint, and how it is named. */
  readonly waypoint?: readonly [of: "workload" | "service", reference: string];
  readonly appTunnel?: boolean;
  readonly connection: string;
  readonly authority: string;
  readonly outcome: string;
}

const POD = "10.0.0.2:8080";
const VIP = "10.96.0.1:8080";
const INBOUND: readonly InboundRow[] = [
  {
    name: "to workload no waypoint",
    connection: "10.0.0.2",
    authority: POD,
    outcome: `${POD} of echo`,
  },
  {
    name: "svc hostname to workload no waypoint",
    connection: "10.0.0.2",
    authority: `${ECHO}:80`,
    outcome: `${POD} of echo`,
  },
  {
    name: "to workload with waypoint referenced by pod",
    waypoint: ["workload", "/10.0.0.9"],
    connection: "10.0.0.9",
    authority: POD,
    outcome: "10.0.0.9:8080",
  },
  {
    name: "to workload with waypoint referenced by vip",
    waypoint: ["workload", "/10.96.0.9"],
    connection: "10.0.0.9",
    authority: POD,
    outcome: "10.0.0.9:8080",
  },
  {
    name: "to workload with app tunnel",
    waypoint: ["workload", "/10.96.0.9"],
    appTunnel: true,
    connection: "10.0.0.9",
    authority: POD,
    outcome: `10.0.0.9:15088 announcing ${POD}`,
  },
  {
    name: "to service with waypoint referenced by pod",
    waypoint: ["service", "/10.0.0.9"],
    connection: "10.0.0.9",
    authority: VIP,
    outcome: "10.0.0.9:8080",
  },
  {
    name: "to service with waypoint referenced by vip",
    waypoint: ["service", "/10.96.0.9"],
    connection: "10.0.0.9",
    authority: VIP,
    outcome: "10.0.0.9:8080",
  },
  {
    name: "to service with app tunnel",
    waypoint: ["service", "/10.96.0.9"],
    appTunnel: true,
    connection: "10.0.0.9",
    authority: VIP,
    outcome: `10.0.0.9:15088 announcing ${VIP}`,
  },
  {
    name: "to server ip mismatch",
    connection: "10.0.0.2",
    authority: "10.0.0.1:8080",
    outcome: "400 ip mismatch: 10.0.0.2 != 10.0.0.1",
  },
  {
    name: "to waypoint without attachment",
    connection: "10.0.0.9",
    authority: "10.0.0.1:8080",
    outcome: "400 ip mismatch: 10.0.0.9 != 10.0.0.1",
  },
  {
    name: "to workload via waypoint with wrong attachment",
    waypoint: ["service", "/10.0.0.9"],
    connection: "10.0.0.9",
    authority: POD,
    outcome: "400 ip mismatch: 10.0.0.9 != 10.0.0.2",
  },
  {
    name: "to service via waypoint with wrong attachment",
    waypoint: ["workload", "/10.0.0.9"],
    connection: "10.0.0.9",
    authority: VIP,
    outcome: "400 ip mismatch: 10.0.0.9 != 10.96.0.1",
  },
];

for (const { name, waypoint, appTunnel = false, connection, authority, outcome } of INBOUND) {
  test(`13.3 inbound: ${name}`, () => {
    const [of, reference = ""] = waypoint ?? [];
    const service = of === "service" ? echo.waypoint(reference) : echo;
    const pod = of === "workload" ? server.waypoint(reference) : server;
    const waypointPod = appTunnel ? wp.tunnel("PROXY", 15_088) : wp;
    const state = mesh.state(client, service, pod, wpService, waypointPod);
    const target = chooseInboundTarget(state, {
      workload: (connection === "10.0.0.9" ? waypointPod : pod).value,
      local: address(`${connection}:15008`),
      method: "CONNECT",
      authority,
      forwardedHost: undefined,
      network: "",
      illegalPorts: ILLEGAL_PORTS,
    });
    assert.equal(describeTarget(target), outcome);
  });
}
