/**
 * Two networks with a daemon each: a connection to the other one is a tunnel inside of a stream to its
 * network gateway, which is a hand-written HBONE server or an Envoy. The names are those of spec
 * data-path 13.1.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { formatHostPort } from "../../src/mesh/socket-address.ts";
import { EnvoyProcess, requireEnvoy } from "../support/envoy-process.ts";
import { clusterTo, connectRoute, serverListener } from "../support/envoy-tunnel.ts";
import { type HboneServer, listenHbone } from "../support/hbone-server.ts";
import { connectFrom, type LabServer, listenDoubling } from "../support/lab-application.ts";
import { labCertificate, workloadName } from "../support/lab-certificate.ts";
import { behind, DOMAIN, workload } from "../support/mesh-entries.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { observeCall } from "../support/observed-call.ts";
import { fdCount } from "../support/proc.ts";
import { tryWhy } from "../support/tried-why.ts";
import { waitUntil } from "../support/wait-until.ts";

const IP = {
  client: "10.85.0.11",
  near: "10.85.0.12",
  server: "10.85.0.21",
  eastwest: "10.85.0.31",
  envoy: "10.85.0.32",
  down: "10.85.0.34",
} as const;
/** Of those who are called over it. */
const IPV6 = { client: "fd85::11", server: "fd85::21", eastwest: "fd85::31" } as const;
/** Of services with port 8080. */
const VIP = {
  remote: "10.85.1.1",
  named: "10.85.1.2",
  envoys: "10.85.1.3",
  stranger: "10.85.1.4",
  unproven: "10.85.1.5",
  cutoff: "10.85.1.6",
  both: "10.85.1.7",
  six: "fd85::1:8",
} as const;
const SPIFFE = "spiffe://cluster.local/ns/default/sa";

const NO_ENVOY = requireEnvoy();

describe("another network", { skip: requireNetns("iptables") }, () => {
  let lab: MeshLab;
  let gateway: HboneServer;
  let envoy: EnvoyProcess;
  const servers: LabServer[] = [];

  before(async () => {
    lab = await startLab();
    servers.push(listenDoubling(lab.host("server"), 8080), listenDoubling(lab.host("near"), 8080));
    lab.addHost("eastwest", IP.eastwest, IPV6.eastwest);
    gateway = await listenHbone(lab, "eastwest", "eastwest", (stream, { authority }) => {
      const { server } = authority.startsWith("six.") ? IPV6 : IP;
      void connectFrom(lab.host("eastwest"), server, 15008).then((socket) => {
        stream.pipe(socket);
        socket.pipe(stream);
      });
    });
    if (NO_ENVOY !== false) return;
    const certificate = await labCertificate(lab, workloadName("envoy"));
    envoy = await EnvoyProcess.start(lab, "envoy", (accessLog) => ({
      listeners: [
        serverListener(
          { certificate, expected: `${SPIFFE}/client`, loggedHeaders: ["forwarded"], accessLog },
          [{ name: "all", domains: ["*"], routes: [connectRoute("far")] }],
        ),
      ],
      clusters: [clusterTo("far", IP.server, 15008)],
    }));
  });

  after(async () => {
    for (const server of servers) server.close();
    gateway?.close();
    await lab?.close();
  });

  for (const [name, service, through] of [
    ["double_hbone1", "remote", "eastwest"],
    ["double_hbone2", "named", "eastwest"],
    ["double HBONE over IPv6", "six", "eastwest"],
    ["double HBONE through Envoy", "envoys", "envoy"],
  ] as const) {
    const skip = through === "envoy" && NO_ENVOY;
    test(name, { skip }, async () => {
      const seen = await observeCall(lab, "client", VIP[service], 8080);
      assert.equal(seen.received, "hello worldhello world");
      const gatewayIp = service === "six" ? IPV6.eastwest : IP[through];
      const hostname = `${service}.default.${DOMAIN}`;
      const line = (direction: string): Record<string, unknown> | undefined =>
        seen.lines.find(({ fields }) => fields["direction"] === direction)?.fields;
      assert.deepEqual(pick(line("outbound"), "dst.addr", "dst.hbone_addr", "dst.service"), [
        formatHostPort(gatewayIp, 15008),
        `${hostname}:8080`,
        hostname,
      ]);
      assert.deepEqual(
        pick(line("outbound"), "dst.workload", "dst.namespace", "dst.identity", "error"),
        ["server", "default", `${SPIFFE}/server`, undefined],
        "the final peer, by its baggage and its certificate",
      );
      assert.deepEqual(
        pick(line("inbound"), "src.identity", "src.workload", "dst.hbone_addr", "dst.workload"),
        [`${SPIFFE}/client`, "client", `${hostname}:8080`, "server"],
      );
      for (const reporter of ["source", "destination"]) {
        const moved = seen.counters(
          `reporter="${reporter}"`,
          'destination_workload="server"',
          `destination_principal="${SPIFFE}/server"`,
          `source_principal="${SPIFFE}/client"`,
          'connection_security_policy="mutual_tls"',
        );
        assert.deepEqual(moved, { opened: 1, closed: 1, received: 11, sent: 22 }, reporter);
      }
      const peer = servers[0]?.peers.at(-1) ?? "";
      assert.equal(peer.slice(0, peer.lastIndexOf(":")), gatewayIp);
      const forwarded = `for="${line("outbound")?.["src.addr"]}";host=${hostname}`;
      if (through === "eastwest") {
        const request = gateway.requests.at(-1);
        assert.deepEqual(
          [request?.authority, request?.caller, request?.headers["forwarded"]],
          [`${hostname}:8080`, `URI:${SPIFFE}/client`, forwarded],
        );
        assert.equal(request?.headers["x-forwarded-network"], undefined, "only the inner one");
      } else {
        await waitUntil(() => envoy.accessLines().length > 0, "Envoy logged nothing");
        assert.deepEqual(pick(envoy.accessLines()[0], "authority", "peer", "forwarded"), [
          `${hostname}:8080`,
          `${SPIFFE}/client`,
          forwarded,
        ]);
      }
    });
  }

  test("a live connection is listed as what it is, and 20 at once share the outer tunnel", {
    skip: NO_ENVOY,
  }, async () => {
    const completed = (): number =>
      ["node-a", "node-b"]
        .flatMap((node) => lab.node(node).lines)
        .filter((line) => line.includes("connection complete")).length;
    const before = completed();
    const daemon = lab.node("node-a").process.pid ?? 0;
    const fdsBefore = fdCount(daemon);
    const sockets = await Promise.all(
      Array.from({ length: 20 }, () => connectFrom(lab.host("client"), VIP.envoys, 8080)),
    );
    await Promise.all(
      sockets.map(async (socket, i) => {
        socket.write(`${i};`);
        const [chunk] = (await once(socket, "data")) as [Buffer];
        assert.equal(chunk.toString(), `${i};${i};`);
      }),
    );
    const dump = await lab.node("node-a").get(15000, "/config_dump");
    assert.equal(dump.match(/"DOUBLEHBONE"/g)?.length, 20);
    assert.equal(await envoy.stat("http.hbone.downstream_cx_active"), 1);
    for (const socket of sockets) socket.destroy();
    await waitUntil(
      async () =>
        completed() - before === 2 * sockets.length &&
        (await envoy.stat("http.hbone.downstream_rq_active")) === 0,
      "connections or streams of the outer tunnel stay",
    );
    await waitUntil(() => fdCount(daemon) <= fdsBefore, "sockets stay open");
  });

  for (const [name, service, error] of [
    [
      "a gateway that is down",
      "cutoff",
      "io error: Connection refused (os error 111), at network gateway default/down",
    ],
    [
      "a peer behind the gateway that is somebody else",
      "stranger",
      `io error: invalid peer certificate: Other(OtherError(identity verification error: peer did not present the expected SAN (${SPIFFE}/nobody), got ${SPIFFE}/server)), beyond network gateway default/eastwest`,
    ],
    [
      "a service whose peers are not named",
      "unproven",
      `io error: invalid peer certificate: Other(OtherError(identity verification error: peer did not present the expected SAN (), got ${SPIFFE}/server)), beyond network gateway default/eastwest`,
    ],
  ] as const) {
    test(`${name} is told from other errors`, async () => {
      const seen = await observeCall(lab, "client", VIP[service], 8080);
      assert.equal(seen.received, "");
      const lines = seen.lines.filter(({ fields }) => fields["direction"] === "outbound");
      assert.deepEqual(
        lines.map(({ fields }) => pick(fields, "error", "dst.addr")),
        [[error, `${service === "cutoff" ? IP.down : IP.eastwest}:15008`]],
      );
    });
  }

  test("when the gateway is down, an endpoint nearby takes its place", async () => {
    const seen = await observeCall(lab, "client", VIP.both, 8080);
    assert.equal(seen.received, "hello worldhello world");
    const line = seen.lines.find(({ fields }) => fields["direction"] === "outbound");
    assert.deepEqual(pick(line?.fields, "dst.workload", "retries", "error"), [
      "near",
      1,
      undefined,
    ]);
  });

  // Each looks for two seconds what becomes of its connection.
  describe("why", { concurrency: true }, () => {
    for (const [service, remote, beyond, connect] of [
      ["remote", `${IP.eastwest}:15008`, `must be ${SPIFFE}/server`, "open after"],
      ["six", `[${IPV6.eastwest}]:15008`, `must be ${SPIFFE}/server`, "open after"],
      ["unproven", `${IP.eastwest}:15008`, "nobody is believed: ", "taken, then ended with EOF"],
    ] as const) {
      test(`tells the way to ${service} in the other network, and tries it`, async () => {
        const hostname = `${service}.default.${DOMAIN}`;
        const { error, "dst.identity": far } = await tryWhy(lab, "default/client", hostname, [
          `route        tunnel to ${remote}, which connects to ${hostname}:8080`,
          `             because workload far-${service} is on network "remote", behind network gateway eastwest`,
          "             through network gateway default/eastwest",
          `             to workload default/far-${service}`,
          `             the other end must be ${SPIFFE}/eastwest`,
          `             beyond the gateway ${beyond}`,
          `certificate  ${SPIFFE}/client`,
          "policies     judged in the other network",
          "verdict      goes through",
          `connect      ${connect}`,
        ]);
        assert.equal(far, `${SPIFFE}/${connect === "open after" ? "server" : "eastwest"}`);
        assert.equal(error === undefined, connect === "open after", String(error));
      });
    }
  });
});

function pick(
  fields: Readonly<Record<string, unknown>> | undefined,
  ...names: string[]
): unknown[] {
  return names.map((name) => fields?.[name]);
}

function startLab(): Promise<MeshLab> {
  const environment = { LOG_FORMAT: "json", ZTUNNEL_WORKER_THREADS: "1" };
  const pods = (...names: (keyof typeof IP)[]) =>
    names.map((name) => ({
      name,
      ip: IP[name],
      ...(name in IPV6 ? { ipv6: IPV6[name as keyof typeof IPV6] } : {}),
    }));
  const both = (name: keyof typeof IPV6): readonly string[] => [IP[name], IPV6[name]];
  const service = (name: keyof typeof VIP, identity: string | undefined): string =>
    `- {name: ${name}, namespace: default, hostname: ${name}.default.${DOMAIN}, ` +
    `vips: ["/${VIP[name]}"], ports: {8080: 8080}, ` +
    `subjectAltNames: [${identity === undefined ? "" : `"${SPIFFE}/${identity}"`}]}`;
  // Without an address of its own, as a control plane sends what is on another network.
  const far = (name: keyof typeof VIP, gateway: string, port = 15008): string =>
    `- {uid: lab/far/${name}, name: far-${name}, namespace: default, serviceAccount: server, ` +
    `trustDomain: cluster.local, workloadIps: [], protocol: HBONE, network: remote, capacity: 4000000000, ` +
    `networkGateway: {destination: "${gateway}", hboneMtlsPort: ${port}}, ` +
    `services: {default/${name}.default.${DOMAIN}: {8080: 8080}}}`;
  const remote = (entry: string): string => entry.replace('network: ""', "network: remote");
  return MeshLab.start({
    nodes: {
      "node-a": { ip: "10.85.0.2", environment, pods: pods("client", "near") },
      "node-b": {
        ip: "10.85.0.3",
        environment: { ...environment, NETWORK: "remote" },
        pods: pods("server"),
      },
    },
    outsiders: { envoy: IP.envoy, down: IP.down },
    mesh: `workloads:
${workload("client", both("client"), "node-a", behind())}
${workload("near", IP.near, "node-a", `protocol: HBONE, services: {default/both.default.${DOMAIN}: {8080: 8080}}`)}
${remote(workload("server", both("server"), "node-b", behind()))}
${remote(workload("eastwest", both("eastwest"), "elsewhere", `protocol: HBONE, services: {default/east-west.default.${DOMAIN}: {15009: 15008}}`))}
${remote(workload("envoy", IP.envoy, "elsewhere", behind()))}
${remote(workload("down", IP.down, "elsewhere", behind()))}
${far("remote", `remote/${IP.eastwest}`)}
${far("named", `default/east-west.default.${DOMAIN}`, 15009)}
${far("envoys", `remote/${IP.envoy}`)}
${far("stranger", `remote/${IP.eastwest}`)}
${far("unproven", `remote/${IP.eastwest}`)}
${far("cutoff", `remote/${IP.down}`)}
${far("both", `remote/${IP.down}`)}
${far("six", `remote/${IPV6.eastwest}`)}
services:
${service("remote", "server")}
${service("named", "server")}
${service("envoys", "server")}
${service("stranger", "nobody")}
${service("unproven", undefined)}
${service("cutoff", "server")}
${service("both", "server")}
${service("six", "server")}
- {name: east-west, namespace: default, hostname: east-west.default.${DOMAIN}, vips: [], ports: {15009: 15008}}
`,
    controlIp: "10.85.0.4",
    prefixLength: 24,
    gatewayIp: "10.85.0.1",
  });
}
