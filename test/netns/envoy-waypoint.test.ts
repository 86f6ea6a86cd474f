/**
 * A real Envoy as a waypoint between two real daemons: client, our outbound, Envoy that ends the
 * tunnel, applies a route and begins another, our inbound, server.
 */
import assert from "node:assert/strict";
import { createServer, type IncomingMessage, request } from "node:http";
import { after, before, describe, test } from "node:test";
import { parseJsonLine } from "../support/access-line.ts";
import { EnvoyProcess, requireEnvoy } from "../support/envoy-process.ts";
import { waypoint } from "../support/envoy-waypoint.ts";
import { connectFrom, type LabServer, listenOn, tellStory } from "../support/lab-application.ts";
import { labCertificate, workloadName } from "../support/lab-certificate.ts";
import { behind, DOMAIN, service, workload } from "../support/mesh-entries.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";

const CLIENT = "10.83.0.11";
const SERVER = "10.83.0.21";
const WAYPOINT = "10.83.0.31";
const VIP = "10.83.1.1";
const SPIFFE = "spiffe://cluster.local/ns/default/sa";
const HOSTNAME = `server.default.${DOMAIN}`;

describe("a real waypoint", { skip: requireNetns("iptables") || requireEnvoy() }, () => {
  let lab: MeshLab;
  let envoy: EnvoyProcess;
  let listening: LabServer;
  const requests: IncomingMessage[] = [];

  before(async () => {
    lab = await startLab();
    const application = createServer((incoming, response) => {
      requests.push(incoming);
      // A line is written when a connection ends, and Envoy would keep this one.
      response.shouldKeepAlive = false;
      response.end(`served ${incoming.url}`);
    });
    listening = listenOn(lab.host("server"), 8080, (socket) => {
      application.emit("connection", socket);
    });
    const certificate = await labCertificate(lab, workloadName("waypoint"));
    envoy = await EnvoyProcess.start(lab, "waypoint", (accessLog) =>
      waypoint({
        certificate,
        caller: `${SPIFFE}/client`,
        destination: { ip: SERVER, port: 8080, uri: `${SPIFFE}/server` },
        accessLog,
      }),
    );
  });

  after(async () => {
    listening?.close();
    await lab?.close();
  });

  const line = async (
    node: string,
    pattern: RegExp,
    after = 0,
  ): Promise<Record<string, unknown>> => {
    const find = (): string | undefined =>
      lab
        .node(node)
        .lines.slice(after)
        .find((one) => one.includes('"access"') && pattern.test(one));
    await waitUntil(() => find() !== undefined, `${node} has no line like ${pattern}`);
    const { fields } = parseJsonLine(find() ?? "");
    return Object.fromEntries(fields.map(([name, value]) => [name, JSON.parse(value)]));
  };

  for (const [what, ip, port] of [
    ["a service", VIP, 80],
    ["a pod", SERVER, 8080],
  ] as const) {
    test(`routes HTTP to ${what}, and everybody is told who calls`, async () => {
      const linesBefore = lab.node("node-b").lines.length;
      const { status, body, from } = await get(lab, ip, port, "/shop/cart");
      assert.deepEqual([status, body], [200, "served /cart"]);
      assert.equal(requests.at(-1)?.headers["x-waypoint"], "yes");
      // The server sees who opened the last tunnel.
      const peer = listening.peers.at(-1) ?? "";
      assert.equal(peer.slice(0, peer.lastIndexOf(":")), WAYPOINT);

      const isService = ip === VIP;
      const ours = await line("node-a", new RegExp(`"dst.hbone_addr":"${ip}:${port}"`));
      assert.equal(ours["error"], undefined);
      assert.deepEqual(
        ["src.identity", "dst.addr", "dst.identity", "dst.workload", "dst.service"].map(
          (field) => ours[field],
        ),
        [
          `${SPIFFE}/client`,
          `${WAYPOINT}:15008`,
          `${SPIFFE}/waypoint`,
          "waypoint",
          isService ? HOSTNAME : undefined,
        ],
      );

      await waitUntil(
        () => envoy.accessLines().some(({ authority }) => authority === `${ip}:${port}`),
        "Envoy logged nothing",
      );
      const told = envoy.accessLines().find(({ authority }) => authority === `${ip}:${port}`);
      assert.equal(told?.["peer"], `${SPIFFE}/client`);
      const host = isService ? `;host=${HOSTNAME}` : "";
      assert.equal(told["forwarded"], `for="${from}"${host}`);
      assert.match(told["baggage"] ?? "", /k8s.deployment.name=client/);

      const theirs = await line("node-b", /"direction":"inbound"/, linesBefore);
      assert.deepEqual(
        ["src.identity", "src.workload", "dst.hbone_addr", "dst.identity"].map(
          (field) => theirs[field],
        ),
        [`${SPIFFE}/waypoint`, "waypoint", `${SERVER}:8080`, `${SPIFFE}/server`],
      );
    });
  }

  test("answers what no route takes, without a connection to the server", async () => {
    const count = listening.peers.length;
    assert.equal((await get(lab, VIP, 80, "/elsewhere")).status, 404);
    assert.equal(listening.peers.length, count);
  });

  test("only it may call the server", async () => {
    // Plain text has no identity that the policy could allow.
    const count = listening.peers.length;
    assert.equal((await tellStory(lab.host("outside"), SERVER, 8080)).received, "");
    assert.equal(listening.peers.length, count);
  });

  test("when it is gone, the error says which waypoint it was", async () => {
    process.kill(envoy.pid, "SIGKILL");
    await waitUntil(async () => {
      const story = await tellStory(lab.host("client"), VIP, 80);
      assert.equal(story.received, "");
      return lab.node("node-a").lines.some((one) => one.includes("Connection refused"));
    }, "the daemon never noticed");
    const { error } = await line("node-a", /Connection refused/);
    assert.equal(
      error,
      "io error: Connection refused (os error 111), at waypoint default/waypoint",
    );
  });
});

async function get(
  lab: MeshLab,
  ip: string,
  port: number,
  path: string,
): Promise<{ status: number | undefined; body: string; from: string }> {
  const socket = await connectFrom(lab.host("client"), ip, port);
  const from = `${socket.localAddress}:${socket.localPort}`;
  return new Promise((resolve, reject) => {
    const asked = request({ path, createConnection: () => socket }, (response) => {
      let body = "";
      response.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      response.on("end", () => {
        socket.destroy();
        resolve({ status: response.statusCode, body, from });
      });
    });
    asked.on("error", reject);
    asked.end();
  });
}

function startLab(): Promise<MeshLab> {
  const environment = { LOG_FORMAT: "json", ZTUNNEL_WORKER_THREADS: "1" };
  const at = `waypoint: {destination: default/waypoint.default.${DOMAIN}, hboneMtlsPort: 15008}`;
  const only = "authorizationPolicies: [default/waypoint-only]";
  return MeshLab.start({
    nodes: {
      "node-a": { ip: "10.83.0.2", environment, pods: [{ name: "client", ip: CLIENT }] },
      "node-b": { ip: "10.83.0.3", environment, pods: [{ name: "server", ip: SERVER }] },
    },
    outsiders: { waypoint: WAYPOINT, outside: "10.83.0.33" },
    mesh: `workloads:
${workload("client", CLIENT, "node-a", behind())}
${workload("server", SERVER, "node-b", `${behind("server")}, ${at}, ${only}`)}
${workload("waypoint", WAYPOINT, "elsewhere", `protocol: HBONE, services: {default/waypoint.default.${DOMAIN}: {15008: 15008}}`)}
services:
${service("server", VIP, at)}
- {name: waypoint, namespace: default, hostname: waypoint.default.${DOMAIN}, vips: [], ports: {15008: 15008}}
policies:
- {name: waypoint-only, namespace: default, scope: WorkloadSelector, action: Allow, dryRun: false, rules: [[[{principals: [!Exact cluster.local/ns/default/sa/waypoint]}]]]}
`,
    controlIp: "10.83.0.4",
    prefixLength: 24,
    gatewayIp: "10.83.0.1",
  });
}
