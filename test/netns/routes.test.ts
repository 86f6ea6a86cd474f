/** The routes of the contract between two real daemons, by the names of spec data-path 13.1. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type HboneServer, listenHbone, serveAsWaypoint } from "../support/hbone-server.ts";
import { type LabServer, listenDoubling, tellStory } from "../support/lab-application.ts";
import { behind, DOMAIN, service, workload } from "../support/mesh-entries.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { observeCall } from "../support/observed-call.ts";
import { tryWhy } from "../support/tried-why.ts";

const IP = {
  client: "10.81.0.11",
  local: "10.81.0.12",
  server: "10.81.0.21",
  second: "10.81.0.22",
  behind: "10.81.0.23",
  orphan: "10.81.0.24",
  waypoint: "10.81.0.31",
  plain: "10.81.0.33",
  down: "10.81.0.34",
  host: "10.81.0.35",
  sick: "10.81.0.36",
} as const;
const VIP = {
  server: "10.81.1.1",
  pair: "10.81.1.2",
  byAddress: "10.81.1.3",
  byHostname: "10.81.1.4",
  byWorkloadHostname: "10.81.1.5",
  weighted: "10.81.1.6",
  down: "10.81.1.7",
  empty: "10.81.1.8",
  halfDead: "10.81.1.9",
  own: "10.81.1.10",
  ofHost: "10.81.1.11",
  passthrough: "10.81.0.99",
  passthroughBehind: "10.81.1.13",
  unhealthy: "10.81.1.14",
  replicas: "10.81.1.15",
} as const;
const PASSTHROUGH =
  "loadBalancer: {routingPreferences: [], mode: Passthrough, healthPolicy: OnlyHealthy}";
const SPIFFE = "spiffe://cluster.local/ns/default/sa";

describe("routes", { skip: requireNetns("iptables") }, () => {
  let lab: MeshLab;
  let waypoint: HboneServer;
  const servers: LabServer[] = [];

  before(async () => {
    lab = await startLab();
    const plain = lab.host("plain");
    lab.net.exec(plain, "ip", "address", "add", `${VIP.passthrough}/24`, "dev", "eth0");
    for (const name of ["local", "server", "second", "plain", "client", "host"]) {
      servers.push(listenDoubling(lab.host(name), 8080));
    }
    waypoint = await listenHbone(lab, "waypoint", "waypoint", serveAsWaypoint);
  });

  after(async () => {
    for (const server of servers) server.close();
    waypoint?.close();
    await lab?.close();
  });

  for (const [name, from, to, reporters] of [
    ["local_captured_inpod", "client", "local", ["source", "destination"]],
    ["cross_node_captured_inpod", "client", "server", ["source", "destination"]],
    ["server_uncaptured_inpod", "client", "plain", ["source"]],
    ["client_uncaptured_inpod", "plain", "server", ["destination"]],
  ] as const) {
    test(name, async () => {
      const first = from === "plain" ? "inbound" : "outbound";
      const seen = await observeCall(lab, from, IP[to], 8080, 22, first);
      assert.equal(seen.received, "hello worldhello world");
      assert.deepEqual(seen.lines.map(({ fields }) => fields["direction"]).sort(), [
        ...reporters.map((one) => (one === "source" ? "outbound" : "inbound")).sort(),
      ]);
      const isTunnel = reporters.length === 2;
      for (const { fields } of seen.lines) {
        const sent = fields["direction"] === "outbound" ? [11, 22] : [22, 11];
        assert.deepEqual([fields["bytes_sent"], fields["bytes_recv"]], sent);
        assert.equal(fields["src.identity"], isTunnel ? `${SPIFFE}/${from}` : undefined);
        assert.equal(fields["dst.identity"], isTunnel ? `${SPIFFE}/${to}` : undefined);
      }
      for (const reporter of ["source", "destination"] as const) {
        const moved = seen.counters(`reporter="${reporter}"`);
        const expected = reporters.some((one) => one === reporter)
          ? { opened: 1, closed: 1, received: 11, sent: 22 }
          : { opened: 0, closed: 0, received: 0, sent: 0 };
        assert.deepEqual(moved, expected, reporter);
      }
    });
  }

  for (const [name, ip, port, authority, service] of [
    ["workload_waypoint", IP.behind, 8080, `${IP.behind}:8080`, undefined],
    ["service_waypoint", VIP.byAddress, 80, `${VIP.byAddress}:80`, "by-address"],
    ["service_waypoint_hostname", VIP.byHostname, 80, `${VIP.byHostname}:80`, "by-hostname"],
    [
      "service_waypoint_workload_hostname",
      VIP.byWorkloadHostname,
      80,
      `${VIP.byWorkloadHostname}:80`,
      "by-workload-hostname",
    ],
    ["weighted service waypoint", VIP.weighted, 80, `${VIP.weighted}:80`, "weighted"],
  ] as const) {
    test(name, async () => {
      const seen = await observeCall(lab, "client", ip, port, 20);
      assert.equal(seen.received, "waypoint\nhello world");
      const [line, ...others] = seen.lines;
      assert.deepEqual(others, []);
      assert.deepEqual(
        [
          "dst.addr",
          "dst.hbone_addr",
          "dst.workload",
          "dst.identity",
          "dst.service",
          "src.identity",
        ].map((field) => line?.fields[field]),
        [
          `${IP.waypoint}:15008`,
          authority,
          "waypoint",
          `${SPIFFE}/waypoint`,
          service && `${service}.default.${DOMAIN}`,
          `${SPIFFE}/client`,
        ],
      );
      const moved = seen.counters('reporter="source"', 'destination_workload="waypoint"');
      assert.deepEqual(moved, { opened: 1, closed: 1, received: 11, sent: 20 });
      const request = waypoint.requests.at(-1);
      assert.equal(request?.authority, authority);
      assert.equal(request.caller, `URI:${SPIFFE}/client`);
      const host = service === undefined ? "" : `;host=${service}.default.${DOMAIN}`;
      assert.equal(request.headers["forwarded"], `for="${line?.fields["src.addr"]}"${host}`);
    });
  }

  for (const [name, ip, port, error] of [
    [
      "a workload's waypoint that is down",
      IP.orphan,
      8080,
      "io error: Connection refused (os error 111), at waypoint default/down",
    ],
    [
      "a service's waypoint that is down",
      VIP.down,
      80,
      "io error: Connection refused (os error 111), at waypoint default/down",
    ],
    [
      "a waypoint without endpoints",
      VIP.empty,
      80,
      `unknown waypoint: waypoint nobody.default.${DOMAIN} not found`,
    ],
  ] as const) {
    test(`${name} is an error with its name`, async () => {
      const seen = await observeCall(lab, "client", ip, port);
      assert.equal(seen.received, "");
      assert.deepEqual(
        seen.lines.map(({ fields }) => fields["error"]),
        [error],
      );
    });
  }

  test("a connection goes to another endpoint when the first can't be reached", async () => {
    const before = await lab.node("node-a").metrics();
    const seen = await observeCall(lab, "client", VIP.halfDead, 80);
    assert.equal(seen.received, "hello worldhello world");
    const [line] = seen.lines.filter(({ fields }) => fields["direction"] === "outbound");
    assert.deepEqual(
      ["dst.workload", "retries", "retry_error", "error"].map((field) => line?.fields[field]),
      ["server", 1, `${IP.down}:15008: io error: Connection refused (os error 111)`, undefined],
    );
    const retries = (text: string): number =>
      Number(/^ztunnel_connect_retries_total (\d+)/m.exec(text)?.[1] ?? 0);
    assert.equal(retries(await lab.node("node-a").metrics()) - retries(before), 1);
  });

  test("a connection goes to another replica of a waypoint when the first can't be reached", async () => {
    const seen = await observeCall(lab, "client", VIP.replicas, 80, 20);
    assert.equal(seen.received, "waypoint\nhello world");
    const [line] = seen.lines;
    assert.deepEqual(
      ["dst.workload", "retries", "retry_error"].map((field) => line?.fields[field]),
      [
        "waypoint",
        1,
        `${IP.down}:15008: io error: Connection refused (os error 111), at waypoint default/down`,
      ],
    );
  });

  // Rows of spec data-path 2.8 that no test of 13.1 plays.
  for (const [name, ip, port, received, fields] of [
    [
      "Own service, picks self",
      VIP.own,
      80,
      "hello worldhello world",
      {
        "dst.addr": `${IP.client}:15008`,
        "dst.workload": "client",
        "dst.service": `own.default.${DOMAIN}`,
      },
    ],
    [
      "Node IP / host-network pod IP",
      IP.host,
      8080,
      "hello worldhello world",
      { "dst.addr": `${IP.host}:8080`, "dst.workload": undefined },
    ],
    [
      "Service VIP of a host-network pod",
      VIP.ofHost,
      80,
      "hello worldhello world",
      { "dst.addr": `${IP.host}:8080`, "dst.workload": "host" },
    ],
    [
      "Service VIP, passthrough LB, no waypoint",
      VIP.passthrough,
      8080,
      "hello worldhello world",
      {
        "dst.addr": `${VIP.passthrough}:8080`,
        "dst.workload": undefined,
        "dst.service": undefined,
      },
    ],
    [
      "Service VIP, passthrough LB, waypoint",
      VIP.passthroughBehind,
      80,
      "waypoint\nhello world",
      { "dst.addr": `${IP.waypoint}:15008`, "dst.hbone_addr": `${VIP.passthroughBehind}:80` },
    ],
    [
      "Service VIP, all unhealthy",
      VIP.unhealthy,
      80,
      "",
      { error: `no healthy upstream: ${VIP.unhealthy}:80` },
    ],
    [
      "podIP:15001 etc. (not loopback)",
      IP.server,
      15001,
      "",
      { "dst.hbone_addr": `${IP.server}:15001`, error: "http status: 503 Service Unavailable" },
    ],
  ] as const) {
    test(name, async () => {
      const seen = await observeCall(lab, "client", ip, port, Math.max(received.length, 1));
      assert.equal(seen.received, received);
      const line = seen.lines.find((one) => one.fields["direction"] === "outbound");
      const said = Object.keys(fields).map((field) => [field, line?.fields[field]]);
      assert.deepEqual(Object.fromEntries(said), fields);
    });
  }

  test("service_loadbalancing", async () => {
    const one = await observeCall(lab, "client", VIP.pair, 80);
    const hit = ["server", "second"].filter((name) => {
      const workload = `destination_workload="${name}"`;
      const both = ["source", "destination"].map((reporter) =>
        one.counters(
          `reporter="${reporter}"`,
          workload,
          `destination_service="pair.default.${DOMAIN}"`,
        ),
      );
      return both.every(({ opened, closed }) => opened === 1 && closed === 1);
    });
    assert.equal(hit.length, 1);
    const before = servers.map(({ peers }) => peers.length);
    await Promise.all(
      Array.from({ length: 50 }, () => tellStory(lab.host("client"), VIP.pair, 80)),
    );
    const [, server = 0, second = 0] = servers.map(
      ({ peers }, index) => peers.length - (before[index] ?? 0),
    );
    assert.equal(server + second, 50);
    assert.ok(server > 0 && second > 0, `${server} and ${second}`);
  });

  // Each looks for two seconds what becomes of its connection.
  describe("why", { concurrency: true }, () => {
    for (const { to, reason, waypoint, authority, judged, connect } of [
      {
        to: "default/behind:8080",
        reason: "waypoint waypoint stands before the destination",
        waypoint: "waypoint",
        authority: `${IP.behind}:8080`,
        judged: "behind",
        connect: "open after",
      },
      {
        to: `by-hostname.default.${DOMAIN}`,
        reason: "waypoint waypoint stands before the destination",
        waypoint: "waypoint",
        authority: `${VIP.byHostname}:80`,
        judged: undefined,
        connect: "open after",
      },
      {
        to: "default/orphan:8080",
        reason: "waypoint down stands before the destination",
        waypoint: "down",
        authority: `${IP.orphan}:8080`,
        judged: "orphan",
        connect: "taken, then ended with EOF",
      },
    ] as const) {
      test(`tells the waypoint on the way to ${to}, and tries it`, async () => {
        const { error, "dst.workload": workload } = await tryWhy(lab, "default/client", to, [
          `route        tunnel to ${IP[waypoint]}:15008, which connects to ${authority}`,
          `             because ${reason}`,
          `             through waypoint default/${waypoint}`,
          `             the other end must be ${SPIFFE}/${waypoint}`,
          `certificate  ${SPIFFE}/client`,
          judged === undefined
            ? "policies     judged by the waypoint; no endpoint with a proxy of the mesh is known behind it"
            : `policies     0 for default/${judged}, judged on node node-b for ${SPIFFE}/${waypoint}`,
          `connect      ${connect}`,
        ]);
        assert.equal(error === undefined, connect === "open after", String(error));
        assert.equal(workload, waypoint);
      });
    }
  });
});

function startLab(): Promise<MeshLab> {
  const at = (destination: string): string =>
    `waypoint: {destination: "${destination}", hboneMtlsPort: 15008}`;
  const mesh = `workloads:
${workload("client", IP.client, "node-a", behind("own"))}
${workload("local", IP.local, "node-a", behind())}
${workload("server", IP.server, "node-b", behind("server", "pair", "half-dead"))}
${workload("second", IP.second, "node-b", behind("pair"))}
${workload("behind", IP.behind, "node-b", `${behind()}, ${at(`/${IP.waypoint}`)}`)}
${workload("orphan", IP.orphan, "node-b", `${behind()}, ${at(`/${IP.down}`)}`)}
${workload("waypoint", IP.waypoint, "elsewhere", `hostname: waypoint.example, protocol: HBONE, services: {default/waypoint.default.${DOMAIN}: {15008: 15008}, default/replicas.default.${DOMAIN}: {15008: 15008}}`)}
${workload("down", IP.down, "elsewhere", `protocol: HBONE, capacity: 4000000000, services: {default/down.default.${DOMAIN}: {15008: 15008}, default/half-dead.default.${DOMAIN}: {80: 8080}, default/replicas.default.${DOMAIN}: {15008: 15008}}`)}
${workload("host", IP.host, "elsewhere", `protocol: TCP, networkMode: HostNetwork, services: {default/of-host.default.${DOMAIN}: {80: 8080}}`)}
${workload("sick", IP.sick, "elsewhere", `${behind("unhealthy")}, status: Unhealthy`)}
${workload("plain", IP.plain, "elsewhere", "protocol: TCP, services: {}")}
services:
${service("server", VIP.server)}
${service("pair", VIP.pair)}
${service("by-address", VIP.byAddress, at(`/${IP.waypoint}`))}
${service("by-hostname", VIP.byHostname, at(`default/waypoint.default.${DOMAIN}`))}
${service("by-workload-hostname", VIP.byWorkloadHostname, at("default/waypoint.example"))}
${service("weighted", VIP.weighted, `weightedWaypoints: [{destination: {destination: "/${IP.down}", hboneMtlsPort: 15008}, weight: 0}, {destination: {destination: "/${IP.waypoint}", hboneMtlsPort: 15008}, weight: 1}]`)}
${service("half-dead", VIP.halfDead)}
${service("own", VIP.own)}
${service("of-host", VIP.ofHost)}
${service("passthrough", VIP.passthrough, PASSTHROUGH)}
${service("passthrough-behind", VIP.passthroughBehind, `${PASSTHROUGH}, ${at(`/${IP.waypoint}`)}`)}
${service("unhealthy", VIP.unhealthy)}
${service("down-before", VIP.down, at(`default/down.default.${DOMAIN}`))}
${service("empty-before", VIP.empty, at(`default/nobody.default.${DOMAIN}`))}
${service("behind-replicas", VIP.replicas, at(`default/replicas.default.${DOMAIN}`))}
- {name: replicas, namespace: default, hostname: replicas.default.${DOMAIN}, vips: [], ports: {15008: 15008}}
- {name: waypoint, namespace: default, hostname: waypoint.default.${DOMAIN}, vips: [], ports: {15008: 15008}}
- {name: down, namespace: default, hostname: down.default.${DOMAIN}, vips: [], ports: {15008: 15008}}
- {name: nobody, namespace: default, hostname: nobody.default.${DOMAIN}, vips: [], ports: {15008: 15008}}
`;
  const environment = { LOG_FORMAT: "json", ZTUNNEL_WORKER_THREADS: "1" };
  const pods = (...names: (keyof typeof IP)[]) => names.map((name) => ({ name, ip: IP[name] }));
  return MeshLab.start({
    nodes: {
      "node-a": { ip: "10.81.0.2", environment, pods: pods("client", "local") },
      "node-b": { ip: "10.81.0.3", environment, pods: pods("server", "second") },
    },
    outsiders: { waypoint: IP.waypoint, plain: IP.plain, down: IP.down, host: IP.host },
    mesh,
    controlIp: "10.81.0.4",
    prefixLength: 24,
    gatewayIp: "10.81.0.1",
  });
}
