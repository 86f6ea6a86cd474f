/**
 * PROXY_MODE=dedicated: a daemon for one workload, inside its network namespace. Titles carry the
 * names of the original's tests.
 */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { SocketReport } from "../../src/admin/socket-report.ts";
import { curl, HTTP_BODY, serveHttp } from "../support/curl.ts";
import { datagramsOf, dig } from "../support/dns-lab.ts";
import { httpFrom } from "../support/http-from.ts";
import {
  connectFrom,
  type LabServer,
  listenDoubling,
  listenOn,
  tellStory,
} from "../support/lab-application.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { sampleSum } from "../support/metrics-text.ts";
import { type LabHost, NetnsLab, requireNetns } from "../support/netns-lab.ts";
import { readingEnd, talk } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const MAIN = join(import.meta.dirname, "../../dist/main.js");
const README = join(import.meta.dirname, "../../README.md");
const skip = requireNetns("iptables", "ip6tables", "setpriv", "curl", "dig");
const timeout = 120_000;

const CLIENT = "10.67.0.11";
const SERVER = "10.67.0.21";
const CLIENT6 = "fd67::11";
const SERVER6 = "fd67::21";
const PLAIN = "10.67.0.13";
const CLIENT_VIP = "10.68.0.11";
const SERVER_VIP = "10.68.0.21";
const OUTSIDE = "10.67.0.33";
const APP_PORT = 8080;
const MESH = `
workloads:
${[
  ["client", CLIENT, CLIENT6],
  ["server", SERVER, SERVER6],
  ["plain", PLAIN],
]
  .map(
    ([name, ...ips]) =>
      `- {uid: ${name}, name: ${name}, namespace: default, serviceAccount: ${name}, trustDomain: cluster.local, workloadIps: ${JSON.stringify(ips)}, protocol: HBONE, services: {default/${name}.default.svc.cluster.local: {80: ${APP_PORT}}}}`,
  )
  .join("\n")}
services:
${[
  ["client", CLIENT_VIP],
  ["server", SERVER_VIP],
]
  .map(
    ([name, vip]) =>
      `- {name: ${name}, namespace: default, hostname: ${name}.default.svc.cluster.local, vips: ["/${vip}"], ports: {80: ${APP_PORT}}}`,
  )
  .join("\n")}
`;

describe("two workloads with a proxy each", { skip, concurrency: false }, () => {
  let lab: MeshLab;
  before(async () => {
    lab = await MeshLab.start({
      nodes: {},
      outsiders: { outside: OUTSIDE },
      mesh: MESH,
      controlIp: "10.67.0.4",
      prefixLength: 24,
      gatewayIp: "10.67.0.1",
    });
    const environment = {
      LOG_FORMAT: "json",
      CONNECTION_TERMINATION_DEADLINE: "60s",
      POD_SOCKETS_INTERVAL: "100ms",
    };
    const asked = { ...environment, UNSTABLE_ENABLE_SOCKS5: "true", ZTUNNEL_WORKER_THREADS: "0" };
    // One learns the mesh from a file, the other from the control plane; one has no data thread, the
    // other two, which share its ports.
    const pods = [
      await lab.addDedicated(
        { name: "client", ip: CLIENT, ipv6: CLIENT6 },
        { mesh: MESH, environment: asked },
      ),
      await lab.addDedicated(
        { name: "server", ip: SERVER, ipv6: SERVER6 },
        { environment: { ...environment, ZTUNNEL_WORKER_THREADS: "2" } },
      ),
    ];
    await Promise.all(pods.map((pod) => pod.ready()));
  });
  after(() => lab?.close());

  test("cross_node_captured_dedicated", { timeout }, async (t) => {
    const signed = (): string[] => lab.controlLines.filter((line) => line.includes("signed"));
    assert.deepEqual(signed(), [], "certificates are fetched when they are needed");
    const app = listenDoubling(lab.host("server"), APP_PORT);
    t.after(() => app.close());
    const story = await tellStory(lab.host("client"), SERVER, APP_PORT);
    assert.equal(story.received.length, 22);
    await waitUntil(() => signed().length >= 2, "a certificate was not signed");
    assert.equal(signed().length, 2, signed().join("\n"));
    // The application saw the client's own address.
    assert.match(app.peers.join(), new RegExp(`^${CLIENT}:\\d+$`));

    for (const [name, reporter, sent, received] of [
      ["client", "source", 11, 22],
      ["server", "destination", 22, 11],
    ] as const) {
      const pod = lab.node(name);
      const line = (): string | undefined => pod.lines.find((one) => one.includes('"access"'));
      await waitUntil(() => line() !== undefined, `no access line of ${name}`);
      const fields = JSON.parse(line() ?? "");
      assert.deepEqual([fields.bytes_sent, fields.bytes_recv], [sent, received], name);
      assert.equal(fields["src.identity"], "spiffe://cluster.local/ns/default/sa/client");
      assert.equal(fields["dst.identity"], "spiffe://cluster.local/ns/default/sa/server");
      const metrics = await pod.metrics();
      const of = (family: string): number => sampleSum(metrics, family, { reporter });
      assert.deepEqual(
        [
          of("istio_tcp_connections_opened_total"),
          of("istio_tcp_connections_closed_total"),
          of("istio_tcp_received_bytes_total"),
          of("istio_tcp_sent_bytes_total"),
        ],
        [1, 1, 11, 22],
        name,
      );
    }
    await tellStory(lab.host("outside"), SERVER, APP_PORT);
    assert.match(app.peers.join(), new RegExp(`,${OUTSIDE}:\\d+$`));
  });

  test("over IPv6", { timeout }, async (t) => {
    const app = listenDoubling(lab.host("server"), APP_PORT);
    t.after(() => app.close());
    const story = await tellStory(lab.host("client"), SERVER6, APP_PORT);
    assert.equal(story.received.length, 22, JSON.stringify(story));
    assert.match(app.peers.join(), new RegExp(`^${CLIENT6}:`));
    for (const name of ["client", "server"]) {
      const said = (): boolean =>
        lab.node(name).lines.some((line) => line.includes(`"src.addr":"[${CLIENT6}]:`));
      await waitUntil(said, `no access line of ${name}`);
    }
  });

  for (const [title, target, goesTo, identity] of [
    ["test_hbone_request", `${SERVER}:${APP_PORT}`, `${SERVER}:15008`, "server"],
    ["test_hbone_request_local", `${CLIENT}:${APP_PORT}`, `${CLIENT}:15008`, "client"],
    ["test_vip_request", `${SERVER_VIP}:80`, `${SERVER}:15008`, "server"],
    ["test_vip_request_local", `${CLIENT_VIP}:80`, `${CLIENT}:15008`, "client"],
    ["test_tcp_request", `${OUTSIDE}:${APP_PORT}`, `${OUTSIDE}:${APP_PORT}`, undefined],
    ["test_tcp_request_local", `127.0.0.1:${APP_PORT}`, `127.0.0.1:${APP_PORT}`, undefined],
  ] as const) {
    test(`${title}, through SOCKS5`, { timeout }, async (t) => {
      const apps = ["client", "server", "outside"].map((name) =>
        serveHttp(lab.host(name), APP_PORT),
      );
      t.after(() => {
        for (const app of apps) app.close();
      });
      const node = lab.node("client");
      const lineCount = node.lines.length;
      assert.equal(await curl(lab.net, lab.host("client"), `http://${target}/`), HTTP_BODY);
      const line = (): string | undefined =>
        node.lines.slice(lineCount).find((one) => one.includes('"direction":"outbound"'));
      await waitUntil(() => line() !== undefined, "no access line");
      const fields = JSON.parse(line() ?? "");
      assert.equal(fields["dst.addr"], goesTo);
      assert.equal(fields["dst.identity"]?.split("/").at(-1), identity);
    });
  }

  test("DNS is answered beside the application", { timeout }, async () => {
    const host = lab.host("client");
    const ask = (...words: string[]): Promise<string> =>
      dig(lab.net, host, "@127.0.0.1", "-p", "15053", "+short", ...words);
    for (const name of ["server", "server.default", "server.default.svc.cluster.local"]) {
      assert.equal(await ask(name), `${SERVER_VIP}\n`);
      assert.equal(await ask("+tcp", name), `${SERVER_VIP}\n`);
    }
  });

  test("operators see the workload, and that there is no agent", { timeout }, async (t) => {
    const node = lab.node("client");
    const app = listenOn(lab.host("server"), APP_PORT, (socket) => socket.resume());
    t.after(() => app.close());
    const socket = await connectFrom(lab.host("client"), SERVER, APP_PORT);
    await waitUntil(() => app.peers.length > 0, "the server was never called");
    let dump = JSON.parse(await node.get(15000, "/config_dump"));
    // Those of the tests before may still be on their way out.
    await waitUntil(async () => {
      dump = JSON.parse(await node.get(15000, "/config_dump"));
      return dump.workloadState.dedicated.connections.outbound.length === 1;
    }, "not the one connection is listed");
    assert.deepEqual(
      [dump.config.proxyMode, dump.config.proxyWorkloadInformation],
      ["Dedicated", { name: "client", namespace: "default", serviceAccount: "client" }],
    );
    const { info, state } = dump.workloadState.dedicated;
    assert.deepEqual([info.name, state], ["client", "Up"]);
    assert.match(await node.get(15021, "/healthz/ready?verbose"), /\nnode agent: none, /);
    socket.destroy();
  });

  test("the sockets and datagrams of its own namespace are shown", { timeout }, async (t) => {
    const node = lab.node("client");
    const look = async (): Promise<SocketReport["pods"][number] | undefined> =>
      (JSON.parse(await node.get(15000, "/debug/sockets")) as SocketReport).pods[0];
    await waitUntil(async () => (await look()) !== undefined, "never looked at");
    const before = (await look()) ?? assert.fail("never looked at");
    assert.deepEqual(
      [before.namespace, before.name, before.workload, Object.keys(before.tcp)],
      ["default", "client", "unknown", ["unknown"]],
    );
    const curt = listenOn(lab.host("outside"), APP_PORT, (socket) => socket.end());
    t.after(() => curt.close());
    const socket = await connectFrom(lab.host("client"), OUTSIDE, APP_PORT);
    t.after(() => void socket.destroy());
    const datagrams = datagramsOf(lab.host("client"));
    t.after(() => datagrams.close());
    datagrams.send("hello", 4433, OUTSIDE);
    await waitUntil(async () => {
      const { tcp, udp } = (await look()) ?? before;
      const closeWait = tcp["unknown"]?.["close_wait"] ?? 0;
      return closeWait >= 2 && udp.bypassing.sent > before.udp.bypassing.sent;
    }, "neither the application's socket nor ours is seen, or no datagram");
    assert.match(
      await node.metrics(),
      /^ztunnel_pod_tcp_sockets\{workload="unknown",workload_namespace="default",pod="client",owner="unknown",state="close_wait"\} \d/m,
    );
  });

  test("without privileges, behind the rules of the README", { timeout }, async (t) => {
    const rules = readFileSync(README, "utf8").match(/^iptables -t nat .*$/gm) ?? [];
    assert.equal(rules.length, 3);
    const node = await lab.addDedicated(
      { name: "plain", ip: PLAIN },
      { unprivileged: rules.join("\n") },
    );
    await node.ready();
    const [ours, theirs] = ["plain", "server"].map((name) =>
      listenDoubling(lab.host(name), APP_PORT),
    ) as [LabServer, LabServer];
    t.after(() => {
      ours.close();
      theirs.close();
    });
    const stories = [
      await tellStory(lab.host("client"), PLAIN, APP_PORT),
      await tellStory(lab.host("outside"), PLAIN, APP_PORT),
      await tellStory(lab.host("plain"), SERVER, APP_PORT),
    ];
    assert.deepEqual(
      stories.map(({ received }) => received.length),
      [22, 22, 22],
    );
    // Nobody else may take a client's address.
    for (const peer of ours.peers) assert.match(peer, new RegExp(`^${PLAIN}:`));
    // Nor does it take any to look at the namespace's sockets.
    await waitUntil(async () => {
      const { pods } = JSON.parse(await node.get(15000, "/debug/sockets"));
      return pods[0]?.tcp.unknown.listen > 0;
    }, "never looked at");
    const identities = (): string[] =>
      node.lines.flatMap((line) => /(?:src|dst)\.identity="[^"]*sa\/(\w+)"/g.exec(line)?.[1] ?? []);
    await waitUntil(() => identities().length >= 2, "two of the connections were encrypted");
  });

  test("test_shutdown_drain: what is open is waited for", { timeout }, async (t) => {
    const node = lab.node("server");
    const pair = await openPair(lab);
    t.after(() => pair.close());
    await talk(pair);
    const ended = exitOf(node.process);
    node.process.kill("SIGTERM");
    await waitUntil(async () => !(await isReady(lab, "server")), "still ready");
    await talk(pair);
    assert.equal(node.process.exitCode, null);
    pair.client.end();
    pair.server.end();
    assert.deepEqual(await ended, [0, null]);
  });

  test("connections wait for a mesh that is not known yet", { timeout }, async (t) => {
    lab.controlPlane.kill("SIGKILL");
    const server = lab.node("server");
    const restarted = server.restart();
    await waitUntil(
      () =>
        server.get(15021, "/healthz/ready").then(
          () => false,
          (error: Error) => error.message.includes("pending: state manager"),
        ),
      "the mesh is all that it waits for",
    );
    const app = listenDoubling(lab.host("server"), APP_PORT);
    t.after(() => app.close());
    const told = tellStory(lab.host("outside"), SERVER, APP_PORT);
    await lab.startControlPlane();
    await restarted;
    assert.equal((await told).received.length, 22);
  });

  test("test_shutdown_forced_drain: what stays ends at the deadline", { timeout }, async (t) => {
    const node = await lab.addDedicated(
      { name: "hasty", ip: "10.67.0.12" },
      {
        mesh: MESH.replaceAll("client", "hasty").replace(CLIENT, "10.67.0.12"),
        environment: { CONNECTION_TERMINATION_DEADLINE: "1s" },
      },
    );
    await node.ready();
    const app = listenOn(lab.host("outside"), APP_PORT, (socket) => socket.resume());
    t.after(() => app.close());
    const socket = await connectFrom(lab.host("hasty"), OUTSIDE, APP_PORT);
    await waitUntil(() => app.peers.length > 0, "nobody called");
    const end = readingEnd(socket);
    const ended = exitOf(node.process);
    const startedAt = performance.now();
    node.process.kill("SIGTERM");
    assert.equal(await end, "EOF");
    assert.deepEqual(await ended, [0, null]);
    assert.ok(performance.now() - startedAt >= 900, "it waited for the deadline");
  });

  async function openPair(of: MeshLab) {
    const { promise: arrived, resolve } =
      Promise.withResolvers<Awaited<ReturnType<typeof connectFrom>>>();
    const app = listenOn(of.host("server"), APP_PORT, resolve);
    const client = await connectFrom(of.host("client"), SERVER, APP_PORT);
    return { client, server: await arrived, close: () => app.close() };
  }
});

describe("a dedicated proxy alone", { skip, concurrency: 2 }, () => {
  for (const [name, end] of [
    ["test_shutdown_lifecycle", (daemon) => daemon.kill("SIGTERM")],
    ["test_quit_lifecycle", (_, host) => httpFrom(host, "POST", 15000, "/quitquitquit")],
  ] as readonly (readonly [string, (daemon: ChildProcess, host: LabHost) => unknown])[]) {
    test(name, { timeout }, async () => {
      const net = new NetnsLab();
      try {
        const host = net.addHost("pod", { ipv4: "10.67.0.2/24" });
        const daemon = spawnAlone(net, host);
        await waitUntil(() => daemon.output().includes("marking server ready"), "never ready");
        await end(daemon.process, host);
        assert.deepEqual(await daemon.ended, [0, null], daemon.output());
      } finally {
        net.close();
      }
    });
  }

  test("a successor shares the ports where both are told to", { timeout }, async () => {
    const net = new NetnsLab();
    try {
      const host = net.addHost("pod", { ipv4: "10.67.0.2/24" });
      const told = ["INPOD_PORT_REUSE=true", "WAIT_FOR_OPERATOR_PORTS=true"];
      for (const ports of ["", "waiting for it"]) {
        const daemon = spawnAlone(net, host, [...told, "ZTUNNEL_WORKER_THREADS=1"]);
        const says = (text: string): boolean => daemon.output().includes(text);
        await waitUntil(() => says("marking server ready") && says(ports), "never ready");
      }
    } finally {
      net.close();
    }
  });

  for (const [name, port, says] of [
    ["inbound", 15008, "failed to bind to address [::]:15008: Address already in use"],
    ["inbound_plaintext", 15006, "failed to bind to address [::]:15006: Address already in use"],
    ["outbound", 15001, "failed to bind to address [::]:15001: Address already in use"],
    ["admin", 15000, "15000"],
  ] as const) {
    test(`test_conflicting_bind_error_${name}`, { timeout }, async () => {
      const net = new NetnsLab();
      const host = net.addHost("pod", { ipv4: "10.67.0.2/24" });
      const squatter = listenOn(host, port, () => {});
      try {
        const daemon = spawnAlone(net, host);
        assert.deepEqual(await daemon.ended, [1, null]);
        assert.ok(daemon.output().includes(says), daemon.output());
      } finally {
        squatter.close();
        net.close();
      }
    });
  }
});

async function isReady(lab: MeshLab, name: string): Promise<boolean> {
  return lab
    .node(name)
    .get(15021, "/healthz/ready")
    .then(
      () => true,
      () => false,
    );
}

/** With all that it said. */
async function exitOf(child: ChildProcess): Promise<readonly unknown[]> {
  return once(child, "close");
}

function spawnAlone(net: NetnsLab, host: LabHost, more: readonly string[] = []) {
  const environment = [
    ...more,
    "PROXY_MODE=dedicated",
    "PROXY_WORKLOAD_INFO=default/local/default",
    "LOCAL_XDS={}",
  ];
  const command = [...environment, process.execPath, MAIN, "proxy", "ztunnel"];
  const daemon = net.spawn(host, "sh", "-c", 'exec env "$@" 2>&1', "sh", ...command);
  let output = "";
  daemon.stdout?.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  return { process: daemon, ended: exitOf(daemon), output: () => output };
}
