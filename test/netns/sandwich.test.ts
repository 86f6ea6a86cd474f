/**
 * Waypoints that leave HBONE to the daemon and speak to it as an application, in a captured pod of
 * their own: plain, or told of their clients by the PROXY protocol.
 */
import assert from "node:assert/strict";
import { isIPv6, type Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { formatHostPort, parseSocketAddress } from "../../src/mesh/socket-address.ts";
import { EnvoyProcess, requireEnvoy } from "../support/envoy-process.ts";
import { sandwich } from "../support/envoy-sandwich.ts";
import {
  connectFrom,
  type LabServer,
  listenDoubling,
  listenOn,
} from "../support/lab-application.ts";
import { behind, DOMAIN, service, workload } from "../support/mesh-entries.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { observeCall } from "../support/observed-call.ts";
import { type ReadProxyHeader, readProxyHeader } from "../support/proxy-header-reader.ts";
import { waitUntil } from "../support/wait-until.ts";

const IP = {
  client: "10.84.0.11",
  first: "10.84.0.21",
  second: "10.84.0.22",
  third: "10.84.0.23",
  plain: "10.84.0.31",
  proxied: "10.84.0.32",
  envoy: "10.84.0.33",
} as const;
type Dual = "client" | "second" | "proxied";
/** Of those that have one, too. */
const IPV6: Partial<Record<keyof typeof IP, string>> & Record<Dual, string> = {
  client: "fd84::11",
  second: "fd84::22",
  proxied: "fd84::32",
};
const WAYPOINT_VIP = "10.84.1.1";
const SERVICE_VIP = "10.84.1.2";
const SERVICE_VIP_V6 = "fd84::1:2";
/** What is called as a service, or not told → its endpoint. */
const ENDPOINTS = new Map([
  [`${SERVICE_VIP}:80`, `${IP.second}:8080`],
  ["", `${IP.second}:8080`],
]);
const TUNNEL_PORT = 15088;
const SPIFFE = "spiffe://cluster.local/ns/default/sa";

const NO_ENVOY = requireEnvoy();

describe("sandwiched waypoints", { skip: requireNetns("iptables") }, () => {
  let envoy: EnvoyProcess;
  let lab: MeshLab;
  let plainWaypoint: LabServer;
  let proxiedWaypoint: LabServer;
  const headers: ReadProxyHeader[] = [];
  const servers: LabServer[] = [];

  before(async () => {
    lab = await startLab();
    for (const name of ["first", "second", "third"]) {
      servers.push(listenDoubling(lab.host(name), 8080));
    }
    if (NO_ENVOY === false) {
      envoy = await EnvoyProcess.start(lab, "envoy", (log) => sandwich(TUNNEL_PORT, log));
    }
    plainWaypoint = listenOn(lab.host("plain"), 8080, (socket) => {
      void forward(lab, "plain", socket, `${IP.first}:8080`);
    });
    proxiedWaypoint = listenOn(lab.host("proxied"), TUNNEL_PORT, (socket) => {
      let bytes = Buffer.alloc(0);
      const look = (chunk: Buffer): void => {
        bytes = Buffer.concat([bytes, chunk]);
        const header = readProxyHeader(bytes);
        if (header === undefined) return;
        headers.push(header);
        socket.off("data", look).pause();
        if (bytes.length > header.length) socket.unshift(bytes.subarray(header.length));
        // A waypoint of a service has to know where that leads.
        const to = ENDPOINTS.get(header.destination);
        void forward(lab, "proxied", socket, to ?? header.destination);
      };
      socket.on("data", look);
    });
    servers.push(plainWaypoint, proxiedWaypoint);
  });

  after(async () => {
    for (const server of servers) server.close();
    await lab?.close();
  });

  test("sandwich_waypoint_plain", async () => {
    const seen = await observeCall(lab, "client", IP.first, 8080);
    assert.equal(seen.received, "hello worldhello world");
    assert.equal(ipOf(plainWaypoint.peers.at(-1)), IP.client, "a plain one sees who calls");
    assert.equal(ipOf(servers[0]?.peers.at(-1)), IP.plain);
    assert.deepEqual(hops(seen), [
      `outbound client -> plain at ${IP.plain}:15008 for ${IP.first}:8080`,
      `inbound client -> plain at ${IP.plain}:15008 for ${IP.first}:8080`,
      `outbound plain -> first at ${IP.first}:15008 for ${IP.first}:8080`,
      `inbound plain -> first at ${IP.first}:15008 for ${IP.first}:8080`,
    ]);
  });

  for (const [name, to, port, way] of [
    ["sandwich_waypoint_proxy_protocol", IP.second, 8080, IP],
    ["sandwich_waypoint_proxy_protocol for a service", SERVICE_VIP, 80, IP],
    ["sandwich_waypoint_proxy_protocol over IPv6", IPV6.second, 8080, IPV6],
    // The waypoint is named by an IPv4 address, and the header has room for one family.
    ["sandwich_waypoint_proxy_protocol between families", SERVICE_VIP_V6, 80, { ...IPV6, ...IP }],
  ] as const) {
    test(name, async () => {
      const seen = await observeCall(lab, "client", to, port);
      assert.equal(seen.received, "hello worldhello world");
      const called = formatHostPort(to, port);
      const isOneFamily = isIPv6(to) === isIPv6(way.proxied);
      const loopback = isIPv6(way.proxied) ? "::1" : "127.0.0.1";
      assert.equal(ipOf(proxiedWaypoint.peers.at(-1)), loopback, "over its loopback");
      const header = headers.at(-1);
      assert.equal(ipOf(header?.source), isOneFamily ? way.client : "");
      assert.equal(header?.destination, isOneFamily ? called : "");
      assert.equal(header.identity, `${SPIFFE}/client`);
      const [proxied, second] = [way.proxied, way.second].map((ip) => formatHostPort(ip, 15008));
      const behind = formatHostPort(way.second, 8080);
      assert.deepEqual(hops(seen), [
        `outbound client -> proxied at ${proxied} for ${called}`,
        `inbound client -> proxied at ${proxied} for ${called}`,
        `outbound proxied -> second at ${second} for ${behind}`,
        `inbound proxied -> second at ${second} for ${behind}`,
      ]);
      // The header is no part of what the client sent.
      assert.deepEqual(
        seen.lines.map(({ fields }) => [fields["bytes_sent"], fields["bytes_recv"]].sort()),
        seen.lines.map(() => [11, 22]),
      );
    });
  }

  test("sandwich_waypoint_proxy_protocol with a real Envoy", { skip: NO_ENVOY }, async () => {
    const seen = await observeCall(lab, "client", IP.third, 8080);
    assert.equal(seen.received, "hello worldhello world");
    assert.deepEqual(hops(seen), [
      `outbound client -> envoy at ${IP.envoy}:15008 for ${IP.third}:8080`,
      `inbound client -> envoy at ${IP.envoy}:15008 for ${IP.third}:8080`,
      `outbound envoy -> third at ${IP.third}:15008 for ${IP.third}:8080`,
      `inbound envoy -> third at ${IP.third}:15008 for ${IP.third}:8080`,
    ]);
    await waitUntil(() => envoy.accessLines().length > 0, "Envoy logged nothing");
    assert.deepEqual(envoy.accessLines(), [
      { source: IP.client, called: `${IP.third}:8080`, peer: `${SPIFFE}/client` },
    ]);
  });
});

/** What the waypoint does with a connection; its own is captured again. */
async function forward(lab: MeshLab, from: string, socket: Socket, to: string): Promise<void> {
  socket.pause();
  const { ip, port } = parseSocketAddress(to) ?? {};
  assert.ok(ip !== undefined && port !== undefined, to);
  const upstream = await connectFrom(lab.host(from), ip, port);
  socket.pipe(upstream);
  upstream.pipe(socket);
}

/** Every access line in the order of the way. */
function hops(seen: Awaited<ReturnType<typeof observeCall>>): string[] {
  const lines = seen.lines.map(({ fields }) => {
    const field = (name: string): unknown => fields[name];
    assert.equal(field("error"), undefined);
    assert.equal(field("src.identity"), `${SPIFFE}/${field("src.workload")}`);
    assert.equal(field("dst.identity"), `${SPIFFE}/${field("dst.workload")}`);
    return (
      `${field("direction")} ${field("src.workload")} -> ${field("dst.workload")} ` +
      `at ${field("dst.addr")} for ${field("dst.hbone_addr")}`
    );
  });
  const rank = (line: string): number =>
    (line.includes(" client -> ") ? 0 : 2) + (line.startsWith("outbound") ? 0 : 1);
  return lines.sort((a, b) => rank(a) - rank(b));
}

function ipOf(address: string | undefined): string | undefined {
  return address?.slice(0, address.lastIndexOf(":")).replace(/^\[|\]$/g, "");
}

function ipv6Of(name: keyof typeof IP): { ipv6?: string } {
  const { [name]: ipv6 } = IPV6;
  return ipv6 === undefined ? {} : { ipv6 };
}

function startLab(): Promise<MeshLab> {
  const environment = { LOG_FORMAT: "json", ZTUNNEL_WORKER_THREADS: "1" };
  const pods = (...names: (keyof typeof IP)[]) =>
    names.map((name) => ({ name, ip: IP[name], ...ipv6Of(name) }));
  const both = (name: Dual): readonly string[] => [IP[name], IPV6[name]];
  const named = `waypoint: {destination: default/proxied.default.${DOMAIN}, hboneMtlsPort: 15008}`;
  const at = (ip: string): string => `waypoint: {destination: "/${ip}", hboneMtlsPort: 15008}`;
  const tunnel = `applicationTunnel: {protocol: PROXY, port: ${TUNNEL_PORT}}`;
  const proxied = `protocol: HBONE, services: {default/proxied.default.${DOMAIN}: {}}, ${tunnel}`;
  return MeshLab.start({
    nodes: {
      "node-a": { ip: "10.84.0.2", environment, pods: pods("client") },
      "node-b": {
        ip: "10.84.0.3",
        environment,
        pods: pods("first", "second", "third", "plain", "proxied", "envoy"),
      },
    },
    mesh: `workloads:
${workload("client", both("client"), "node-a", behind())}
${workload("first", IP.first, "node-b", `${behind()}, ${at(IP.plain)}`)}
${workload("second", both("second"), "node-b", `${behind("second")}, ${named}`)}
${workload("third", IP.third, "node-b", `${behind()}, ${at(IP.envoy)}`)}
${workload("envoy", IP.envoy, "node-b", `${behind()}, ${tunnel}`)}
${workload("plain", IP.plain, "node-b", `${behind()}, applicationTunnel: {protocol: NONE}`)}
${workload("proxied", both("proxied"), "node-b", proxied)}
services:
- {name: proxied, namespace: default, hostname: proxied.default.${DOMAIN}, vips: ["/${WAYPOINT_VIP}"], ports: {}}
${service("second", SERVICE_VIP, at(WAYPOINT_VIP)).replace("]", `, "/${SERVICE_VIP_V6}"]`)}
`,
    controlIp: "10.84.0.4",
    prefixLength: 24,
    gatewayIp: "10.84.0.1",
  });
}
