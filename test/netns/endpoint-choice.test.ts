/** Which endpoint of a service is chosen, by what happened before: between real daemons. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type HboneServer, listenHbone, serveAsWaypoint } from "../support/hbone-server.ts";
import { type LabServer, listenDoubling } from "../support/lab-application.ts";
import { behind, DOMAIN, service, workload } from "../support/mesh-entries.ts";
import { MeshLab, waitUntil } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { observeCall } from "../support/observed-call.ts";

const MAIN = join(import.meta.dirname, "../../dist/main.js");
const IP = {
  client: "10.59.0.11",
  server: "10.59.0.21",
  waypoint: "10.59.0.31",
  down: "10.59.0.34",
} as const;
const VIP = { flaky: "10.59.1.1", gated: "10.59.1.2" } as const;

describe("the choice of an endpoint", { skip: requireNetns("iptables"), timeout: 90_000 }, () => {
  let lab: MeshLab;
  const servers: (LabServer | HboneServer)[] = [];

  before(async () => {
    lab = await startLab();
    servers.push(listenDoubling(lab.host("server"), 8080));
    servers.push(await listenHbone(lab, "waypoint", "waypoint", serveAsWaypoint));
  });
  after(async () => {
    for (const server of servers) server.close();
    await lab?.close();
  });

  /** Workload and number of retries of one connection's access line. */
  async function call(vip: string, length = 22): Promise<unknown[]> {
    const seen = await observeCall(lab, "client", vip, 80, length);
    const [line] = seen.lines.filter(({ fields }) => fields["direction"] === "outbound");
    return ["dst.workload", "retries"].map((field) => line?.fields[field]);
  }

  const logged = (text: string): Promise<void> =>
    waitUntil(
      () => lab.node("node-a").lines.some((line) => line.includes(text)),
      `node-a never logged ${text}`,
    );

  test("an endpoint that refuses twice in a row is left out, and everybody is told", async () => {
    assert.deepEqual(await call(VIP.flaky), ["server", 1]);
    assert.deepEqual(await call(VIP.flaky), ["server", 1]);
    await logged(
      `"endpoint left out","workload":"default/down","service":"default/flaky.default.${DOMAIN}","port":80,"failures":2,"for":"30000ms","thread":"data-0"`,
    );
    assert.deepEqual(await call(VIP.flaky), ["server", undefined]);
    const node = lab.node("node-a");
    const metrics = await node.metrics();
    assert.match(metrics, /^ztunnel_outlier_ejections_total\{thread="data-0"\} 1$/m);
    assert.match(metrics, /^ztunnel_outlier_endpoints_ejected\{thread="data-0"\} 1$/m);
    const [listed] = JSON.parse(await node.get(15000, "/debug/outliers"));
    assert.deepEqual([listed.workload, listed.failures], ["default/down", 2]);
    const words = ["why", "default/client", `flaky.default.${DOMAIN}`];
    const why = lab.net.exec(node.host, process.execPath, MAIN, ...words);
    assert.match(why, /^ +not to default\/down, port 80: 2 connects in a row failed, left out by/m);
    assert.match(why, /^ +to workload default\/server$/m);
  });

  test("as the only one left it is tried all the same, and taken back once it can be reached", async () => {
    servers.push(await listenHbone(lab, "down", "down", serveAsWaypoint));
    const mesh = readFileSync(lab.meshFile, "utf8");
    writeFileSync(lab.meshFile, mesh.replace(behind("flaky"), behind()));
    await waitUntil(
      async () => (await call(VIP.flaky, 20)).join() === "down,",
      "the server stayed an endpoint",
    );
    await logged(
      `"endpoint taken back","workload":"default/down","service":"default/flaky.default.${DOMAIN}","port":80,"thread":"data-0"`,
    );
    assert.equal(await lab.node("node-a").get(15000, "/debug/outliers"), "[]\n");
  });

  test("a waypoint's replica is left out like any other endpoint", async () => {
    servers.pop()?.close();
    assert.deepEqual(await call(VIP.gated, 20), ["waypoint", 1]);
    assert.deepEqual(await call(VIP.gated, 20), ["waypoint", 1]);
    assert.deepEqual(await call(VIP.gated, 20), ["waypoint", undefined]);
  });
});

function startLab(): Promise<MeshLab> {
  const port = "{15008: 15008}";
  const mesh = `workloads:
${workload("client", IP.client, "node-a", behind())}
${workload("server", IP.server, "node-b", behind("flaky"))}
${workload("waypoint", IP.waypoint, "elsewhere", `protocol: HBONE, services: {default/gates.default.${DOMAIN}: ${port}}`)}
${workload("down", IP.down, "elsewhere", `protocol: HBONE, capacity: 4000000000, services: {default/gates.default.${DOMAIN}: ${port}, default/flaky.default.${DOMAIN}: {80: 8080}}`)}
services:
${service("flaky", VIP.flaky)}
${service("gated", VIP.gated, `waypoint: {destination: "default/gates.default.${DOMAIN}", hboneMtlsPort: 15008}`)}
- {name: gates, namespace: default, hostname: gates.default.${DOMAIN}, vips: [], ports: ${port}}
`;
  const environment = { LOG_FORMAT: "json", ZTUNNEL_WORKER_THREADS: "1" };
  return MeshLab.start({
    nodes: {
      "node-a": {
        ip: "10.59.0.2",
        environment: { ...environment, OUTLIER_CONSECUTIVE_FAILURES: "2" },
        pods: [{ name: "client", ip: IP.client }],
      },
      "node-b": { ip: "10.59.0.3", environment, pods: [{ name: "server", ip: IP.server }] },
    },
    outsiders: { waypoint: IP.waypoint, down: IP.down },
    mesh,
    controlIp: "10.59.0.4",
    prefixLength: 24,
    gatewayIp: "10.59.0.1",
  });
}
