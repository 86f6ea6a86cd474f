/** A pod calls external services that the mesh knows by host name only; a real DNS server answers the daemon. */
import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { native } from "../../src/net/native.ts";
import { DnsServer } from "../support/dns-server.ts";
import { connectFrom, type LabServer, listenEcho, tellStory } from "../support/lab-application.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { type LabHost, requireNetns } from "../support/netns-lab.ts";
import { pingPong } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const COMMAND = `${process.execPath} ${resolve(import.meta.dirname, "../../dist/main.js")} proxy ztunnel`;
/** Enough for an answer on a busy machine. */
const DNS_MS = 3000;
const NAME_SERVER = "10.81.0.53";
const EXTERNAL = "10.81.0.33";

const external = (name: string, vip: string, hostname: string): readonly [string, string] => [
  `- {uid: "c//ServiceEntry/default/${name}", name: ${name}, namespace: default, serviceAccount: default, trustDomain: cluster.local, workloadIps: [], hostname: ${hostname}, protocol: TCP, services: {"default/${name}.example": {80: 8080}}}`,
  `- {name: ${name}, namespace: default, hostname: ${name}.example, vips: ["/${vip}"], ports: {80: 8080}}`,
];
const EXTERNALS = [
  external("db", "10.81.1.1", "db.ext.example"),
  external("short", "10.81.1.2", "db"),
  external("gone", "10.81.1.3", "gone.ext.example"),
  external("mute", "10.81.1.4", "mute.ext.example"),
];
const MESH = `
workloads:
- {uid: client, name: client, namespace: default, serviceAccount: client, trustDomain: cluster.local, workloadIps: ["10.81.0.11"], protocol: HBONE, node: node-a, services: {}, workloadName: client, canonicalName: client, canonicalRevision: v1, clusterId: Kubernetes}
${EXTERNALS.map(([workload]) => workload).join("\n")}
services:
${EXTERNALS.map(([, service]) => service).join("\n")}
`;

describe("external services known by host name", {
  skip: requireNetns("iptables", "unshare"),
}, () => {
  const folder = mkdtempSync(join(tmpdir(), "ztunnel-names-"));
  const dns = new DnsServer();
  let lab: MeshLab;
  let server: LabServer;

  before(async () => {
    const resolv = join(folder, "resolv.conf");
    writeFileSync(resolv, `nameserver ${NAME_SERVER}\nsearch ext.example\noptions ndots:1\n`);
    lab = await MeshLab.start({
      nodes: {
        "node-a": {
          ip: "10.81.0.2",
          pods: [{ name: "client", ip: "10.81.0.11" }],
          environment: { ON_DEMAND_DNS_TIMEOUT: `${DNS_MS}ms` },
          command: `unshare --mount sh -c 'mount --bind ${resolv} /etc/resolv.conf && exec ${COMMAND}'`,
        },
      },
      outsiders: { dns: NAME_SERVER, external: EXTERNAL },
      mesh: MESH,
      controlIp: "10.81.0.4",
      prefixLength: 24,
      gatewayIp: "10.81.0.1",
    });
    dns.serve(socketOf(lab.host("dns")));
    dns.names.set("db.ext.example", { ips: [EXTERNAL, "fd81::33"] });
    dns.names.set("mute.ext.example", { ips: [EXTERNAL], silent: 4 });
    server = listenEcho(lab.host("external"), 8080);
  });

  after(async () => {
    server?.close();
    dns.close();
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const call = async (vip: string): Promise<void> => {
    const socket = await connectFrom(lab.host("client"), vip, 80);
    await pingPong(socket);
    socket.destroy();
  };
  const said = (text: string): Promise<void> =>
    waitUntil(() => lab.node("node-a").lines.some((line) => line.includes(text)), `no ${text}`);

  test("test_on_demand_dns_request: are looked up when they are called, and not again while DNS allows", async () => {
    await Promise.all([call("10.81.1.1"), call("10.81.1.1")]);
    await call("10.81.1.1");
    assert.deepEqual(dns.asked.splice(0).sort(), ["A db.ext.example", "AAAA db.ext.example"]);
    await said(`dst.addr=${EXTERNAL}:8080 dst.service="db.example" dst.workload="db"`);
    assert.match(
      await lab.node("node-a").metrics(),
      /^istio_on_demand_dns_total\{source_workload="client",.*,hostname="db\.ext\.example"\} 3$/m,
    );
  });

  test("are looked up by the search list of the daemon's own pod", async () => {
    await call("10.81.1.2");
    assert.deepEqual(dns.asked.splice(0).sort(), ["A db.ext.example", "AAAA db.ext.example"]);
  });

  test("refuse connections while they can't be looked up", async () => {
    const { end } = await tellStory(lab.host("client"), "10.81.1.3", 80);
    assert.match(end, /^(EOF|ECONNRESET)$/);
    const error = "no ip addresses were resolved for workload: c//ServiceEntry/default/";
    await said(`error="${error}gone"`);
    await tellStory(lab.host("client"), "10.81.1.4", 80);
    await said(`error="${error}mute"`);
    await said(`err="no answer for mute.ext.example within ${DNS_MS} ms"`);
    dns.names.set("gone.ext.example", { ips: [EXTERNAL] });
    await call("10.81.1.3");
  });
});

/** Bound to the port of DNS in the host's namespace. */
function socketOf(host: LabHost): number {
  const netnsFd = openSync(host.path, "r");
  try {
    const bind = { ip: host.ipv4, port: 53 };
    return native.socketInNamespace({ netnsFd, family: "ipv4", type: "dgram", bind }).fd;
  } finally {
    closeSync(netnsFd);
  }
}
