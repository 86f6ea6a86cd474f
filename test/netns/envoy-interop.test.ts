/**
 * Tunnels between our daemon and a real Envoy, the other proxy of the mesh that speaks HBONE (as
 * waypoint and gateway): Envoy calls our 15008, and our outbound calls Envoy's.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { parsePlainLine } from "../support/access-line.ts";
import { EnvoyProcess, requireEnvoy } from "../support/envoy-process.ts";
import { clientTunnels, serverTunnel } from "../support/envoy-tunnel.ts";
import { connectFrom, type LabServer, listenEcho, listenOn } from "../support/lab-application.ts";
import { labCertificate, workloadName } from "../support/lab-certificate.ts";
import type { LabNode } from "../support/lab-node.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { type LabHost, requireNetns } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";

const SKIP = requireNetns("iptables") || requireEnvoy();
const DOMAIN = "spiffe://cluster.local/ns/default/sa";
const BULK_BYTES = 4 * 1024 * 1024;

const WORKLOADS: readonly { name: string; ip: string; node: string; policies?: string }[] = [
  { name: "client", ip: "10.79.0.11", node: "node-a" },
  { name: "server", ip: "10.79.0.21", node: "node-b" },
  { name: "guarded", ip: "10.79.0.22", node: "node-b", policies: "[default/only-friend]" },
  // Both addresses are Envoy's, which shows the certificate of the first.
  { name: "gate", ip: "10.79.0.34", node: "elsewhere" },
  { name: "impostor", ip: "10.79.0.35", node: "elsewhere" },
  // Not in the mesh as an address; Envoy as a client has this identity.
  { name: "ingress", ip: "10.79.0.250", node: "elsewhere" },
];

const MESH = `workloads:
${WORKLOADS.map(
  ({ name, ip, node, policies = "[]" }) =>
    `- {uid: lab//Pod/default/${name}, name: ${name}, namespace: default, serviceAccount: ${name}, ` +
    `trustDomain: cluster.local, workloadIps: [${ip}], protocol: HBONE, node: ${node}, ` +
    `clusterId: Kubernetes, workloadName: ${name}, workloadType: deployment, ` +
    `canonicalName: ${name}, canonicalRevision: v1, services: {}, authorizationPolicies: ${policies}}`,
).join("\n")}
services: []
policies:
- name: only-friend
  namespace: default
  scope: WorkloadSelector
  action: Allow
  dryRun: false
  rules:
  - - - principals: [!Exact cluster.local/ns/default/sa/friend]
`;

describe("a tunnel from Envoy to our 15008", { skip: SKIP }, () => {
  const PORT = { server: 7000, guarded: 7001, stranger: 7002, deceived: 7003, counting: 7004 };
  let lab: MeshLab;
  let envoy: EnvoyProcess;
  let host: LabHost;
  const servers: LabServer[] = [];

  before(async () => {
    lab = await startLab();
    host = lab.host("outside");
    servers.push(listenEcho(lab.host("server"), 8080), listenEcho(lab.host("guarded"), 8080));
    servers.push(listenCounting(lab.host("server"), 8090));
    const certificate = await labCertificate(lab, workloadName("ingress"));
    const stranger = await labCertificate(lab, {
      kind: "uri",
      uri: "spiffe://other.example/ns/default/sa/ingress",
    });
    const server = { ip: "10.79.0.21", expected: `${DOMAIN}/server`, certificate };
    envoy = await EnvoyProcess.start(lab, "outside", () =>
      clientTunnels([
        {
          ...server,
          name: "server",
          listenPort: PORT.server,
          authority: "10.79.0.21:8080",
          headers: {
            baggage: "k8s.cluster.name=far,k8s.namespace.name=web,service.name=entrance",
            forwarded: 'for="192.0.2.7:1234"',
          },
        },
        { ...server, name: "counting", listenPort: PORT.counting, authority: "10.79.0.21:8090" },
        {
          ...server,
          name: "guarded",
          listenPort: PORT.guarded,
          ip: "10.79.0.22",
          expected: `${DOMAIN}/guarded`,
          authority: "10.79.0.22:8080",
        },
        {
          ...server,
          name: "stranger",
          listenPort: PORT.stranger,
          authority: "10.79.0.21:8080",
          certificate: stranger,
        },
        {
          ...server,
          name: "deceived",
          listenPort: PORT.deceived,
          authority: "10.79.0.21:8080",
          expected: `${DOMAIN}/somebody-else`,
        },
      ]),
    );
  });

  after(async () => {
    for (const server of servers) server.close();
    await lab?.close();
  });

  const dial = (port: number): Promise<Socket> => connectFrom(host, "127.0.0.1", port);

  test("carries an echo, and our log names Envoy by its certificate and its baggage", async () => {
    const node = lab.node("node-b");
    const lineCount = node.lines.length;
    assert.equal(await exchange(await dial(PORT.server), "hello"), "hello");
    const line = await accessLine(node, lineCount, /connection complete/);
    assert.equal(line["src.identity"], `"${DOMAIN}/ingress"`);
    assert.equal(line["src.workload"], '"entrance"');
    assert.equal(line["src.namespace"], '"web"');
    assert.equal(line["src.cluster"], '"far"');
    assert.equal(line["dst.hbone_addr"], "10.79.0.21:8080");
    assert.equal(line["dst.workload"], '"server"');
    assert.deepEqual([line["bytes_recv"], line["bytes_sent"]], ["5", "5"]);
    assert.equal(line["error"], undefined);
  });

  test("carries 4 MiB in each direction at once without a changed byte", async () => {
    const bulk = pattern(BULK_BYTES);
    const echoed = await exchange(await dial(PORT.server), bulk);
    assert.equal(digest(echoed), digest(bulk.toString("latin1")));
  });

  test("passes on that the client has ended, and then the server's answer", async () => {
    assert.equal(await exchange(await dial(PORT.counting), pattern(100_000)), "100000 bytes");
  });

  test("serves a hundred and fifty connections at once over one tunnel", async () => {
    const sockets = await Promise.all(Array.from({ length: 150 }, () => dial(PORT.server)));
    for (const [index, socket] of sockets.entries()) socket.write(`i am ${index}`);
    await Promise.all(
      sockets.map(async (socket, index) => {
        const [chunk] = (await once(socket, "data")) as [Buffer];
        assert.equal(chunk.toString(), `i am ${index}`);
      }),
    );
    assert.equal(await envoy.stat("cluster.server.upstream_cx_active"), 1);
    await Promise.all(sockets.map((socket) => exchange(socket, "")));
  });

  test("is closed when a policy denies, and the denial is in our log", async () => {
    const node = lab.node("node-b");
    const lineCount = node.lines.length;
    assert.equal(await exchange(await dial(PORT.guarded), ""), "");
    const line = await accessLine(node, lineCount, /dst.hbone_addr=10\.79\.0\.22:8080/);
    assert.equal(
      line["error"],
      '"connection closed due to policy rejection: allow policies exist, but none allowed"',
    );
    assert.equal(await envoy.stat("cluster.guarded.upstream_rq_total"), 1);
    assert.equal(await envoy.stat("cluster.guarded.upstream_cx_active"), 1, "the tunnel stays");
  });

  test("is refused when Envoy is of another trust domain", async () => {
    const node = lab.node("node-b");
    const lineCount = node.lines.length;
    assert.equal(await exchange(await dial(PORT.stranger), ""), "");
    await accessLine(node, lineCount, /connection failed.*SanTrustDomainError.*other\.example/);
    assert.equal(await envoy.stat("cluster.stranger.upstream_rq_200"), 0);
  });

  test("is refused by Envoy when we are not whom it expects", async () => {
    const node = lab.node("node-b");
    const lineCount = node.lines.length;
    assert.equal(await exchange(await dial(PORT.deceived), ""), "");
    assert.ok((await envoy.stat("cluster.deceived.ssl.fail_verify_san")) > 0);
    await accessLine(node, lineCount, /connection failed.*tls handshake error: .*AlertReceived/);
  });
});

describe("a tunnel from our outbound to Envoy", { skip: SKIP }, () => {
  let lab: MeshLab;
  let envoy: EnvoyProcess;
  let client: LabHost;
  let node: LabNode;
  const servers: LabServer[] = [];

  before(async () => {
    lab = await startLab();
    client = lab.host("client");
    node = lab.node("node-a");
    const gate = lab.host("gate");
    lab.net.exec(gate, "ip", "address", "add", "10.79.0.35/24", "dev", "eth0");
    servers.push(listenEcho(gate, 8080), listenCounting(gate, 8090));
    const certificate = await labCertificate(lab, workloadName("gate"));
    envoy = await EnvoyProcess.start(lab, "gate", (accessLog) =>
      serverTunnel({
        certificate,
        expected: `${DOMAIN}/client`,
        applications: { "10.79.0.34:8080": 8080, "10.79.0.34:8090": 8090, "10.79.0.34:9": 9 },
        loggedHeaders: ["baggage", "forwarded", "traceparent"],
        accessLog,
      }),
    );
  });

  after(async () => {
    for (const server of servers) server.close();
    await lab?.close();
  });

  const dial = (port: number, ip = "10.79.0.34"): Promise<Socket> => connectFrom(client, ip, port);

  test("carries an echo, and Envoy receives who calls", async () => {
    const lineCount = node.lines.length;
    const socket = await dial(8080);
    const from = `${socket.localAddress}:${socket.localPort}`;
    assert.equal(await exchange(socket, "hello"), "hello");
    const line = await accessLine(node, lineCount, /connection complete/);
    assert.equal(line["dst.hbone_addr"], "10.79.0.34:8080");
    assert.equal(line["dst.identity"], `"${DOMAIN}/gate"`);
    assert.equal(line["error"], undefined);
    await waitUntil(() => envoy.accessLines().length > 0, "Envoy logged nothing");
    const [request] = envoy.accessLines();
    assert.equal(request?.["authority"], "10.79.0.34:8080");
    assert.equal(request?.["peer"], `${DOMAIN}/client`);
    assert.equal(request?.["forwarded"], `for="${from}"`);
    assert.equal(
      request?.["baggage"],
      "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=client," +
        "service.name=client,service.version=v1",
    );
    assert.match(request?.["traceparent"] ?? "", /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
  });

  test("carries 4 MiB in each direction at once without a changed byte", async () => {
    const bulk = pattern(BULK_BYTES);
    const echoed = await exchange(await dial(8080), bulk);
    assert.equal(digest(echoed), digest(bulk.toString("latin1")));
  });

  test("passes on that the client has ended, and then the server's answer", async () => {
    assert.equal(await exchange(await dial(8090), pattern(100_000)), "100000 bytes");
  });

  test("serves a hundred and fifty connections at once over two tunnels", async () => {
    const sockets = await Promise.all(Array.from({ length: 150 }, () => dial(8080)));
    for (const [index, socket] of sockets.entries()) socket.write(`i am ${index}`);
    await Promise.all(
      sockets.map(async (socket, index) => {
        const [chunk] = (await once(socket, "data")) as [Buffer];
        assert.equal(chunk.toString(), `i am ${index}`);
      }),
    );
    assert.equal(await envoy.stat("http.hbone.downstream_cx_active"), 2);
    await Promise.all(sockets.map((socket) => exchange(socket, "")));
    assert.equal(await envoy.stat("http.hbone.downstream_cx_protocol_error"), 0);
  });

  for (const { port, status } of [
    { port: 9, status: "503 Service Unavailable" },
    { port: 7777, status: "404 Not Found" },
  ]) {
    test(`is reset when Envoy answers ${status}, and our log says so`, async () => {
      const lineCount = node.lines.length;
      await exchange(await dial(port), "hello");
      const to = new RegExp(`dst.hbone_addr=10\\.79\\.0\\.34:${port} `);
      const line = await accessLine(node, lineCount, to);
      assert.equal(line["error"], `"http status: ${status}"`);
    });
  }

  test("is refused when Envoy is not the workload that was called", async () => {
    const lineCount = node.lines.length;
    await exchange(await dial(8080, "10.79.0.35"), "hello");
    const line = await accessLine(node, lineCount, /dst.hbone_addr=10\.79\.0\.35:8080/);
    assert.match(
      line["error"] ?? "",
      /did not present the expected SAN \(.*\/impostor\), got .*\/gate/,
    );
  });
});

/** Tells, when the client has ended, how much came. */
function listenCounting(host: LabHost, port: number): LabServer {
  return listenOn(host, port, (socket) => {
    let byteCount = 0;
    socket.on("data", (chunk: Buffer) => {
      byteCount += chunk.length;
    });
    socket.on("end", () => socket.end(`${byteCount} bytes`));
  });
}

/** Sends everything, ends its direction. @returns what came until the connection was gone. */
function exchange(socket: Socket, data: string | Buffer): Promise<string> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("close", () => resolve(Buffer.concat(chunks).toString("latin1")));
    socket.end(data);
  });
}

/** Bytes that don't repeat with any power of two. */
function pattern(byteCount: number): Buffer {
  return Buffer.from(Array.from({ length: byteCount }, (_, i) => (i * 31 + (i >> 8)) % 251));
}

function digest(text: string): string {
  return createHash("sha256").update(text, "latin1").digest("hex");
}

/** The fields of the first access line after those that says this. */
async function accessLine(
  node: LabNode,
  after: number,
  pattern: RegExp,
): Promise<Record<string, string>> {
  const find = (): string | undefined => node.lines.slice(after).find((line) => pattern.test(line));
  await waitUntil(() => find() !== undefined, `no line like ${pattern}`);
  const { scope, fields } = parsePlainLine(find() ?? "");
  assert.equal(scope, "access");
  return Object.fromEntries(fields);
}

function startLab(): Promise<MeshLab> {
  const node = (name: string, ip: string, pods: readonly string[]) => ({
    ip,
    environment: { LOG_FORMAT: "plain", ZTUNNEL_WORKER_THREADS: "1" },
    pods: WORKLOADS.filter((one) => one.node === name && pods.includes(one.name)),
  });
  return MeshLab.start({
    nodes: {
      "node-a": node("node-a", "10.79.0.2", ["client"]),
      "node-b": node("node-b", "10.79.0.3", ["server", "guarded"]),
    },
    outsiders: { outside: "10.79.0.31", gate: "10.79.0.34" },
    mesh: MESH,
    controlIp: "10.79.0.4",
    prefixLength: 24,
    gatewayIp: "10.79.0.1",
  });
}
