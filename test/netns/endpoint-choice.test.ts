/** Which endpoint of a service is chosen, by what happened before: between real daemons. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type HboneServer, listenHbone, serveAsWaypoint } from "../support/hbone-server.ts";
import { type LabServer, listenDoubling, listenOn, tellStory } from "../support/lab-application.ts";
import { behind, DOMAIN, service, workload } from "../support/mesh-entries.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { observeCall } from "../support/observed-call.ts";
import { waitUntil } from "../support/wait-until.ts";

const MAIN = join(import.meta.dirname, "../../dist/main.js");
const IP = {
  client: "10.59.0.11",
  visitor: "10.59.0.12",
  server: "10.59.0.21",
  second: "10.59.0.22",
  third: "10.59.0.23",
  waypoint: "10.59.0.31",
  down: "10.59.0.34",
} as const;
const VIP = {
  flaky: "10.59.1.1",
  gated: "10.59.1.2",
  sticky: "10.59.1.3",
  named: "10.59.1.4",
} as const;
/** What makes the server an endpoint. */
const FLAKY = `default/flaky.default.${DOMAIN}: {80: 8080}, `;

describe("the choice of an endpoint", { skip: requireNetns("iptables"), timeout: 170_000 }, () => {
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
    lab.changeMesh(mesh.replace(FLAKY, ""));
    await waitUntil(
      async () => (await call(VIP.flaky, 20)).join() === "down,",
      "the server stayed an endpoint",
    );
    await logged(
      `"endpoint taken back","workload":"default/down","service":"default/flaky.default.${DOMAIN}","port":80,"thread":"data-0"`,
    );
    await waitUntil(
      async () => (await lab.node("node-a").get(15000, "/debug/outliers")) === "[]\n",
      "it is still listed",
    );
  });

  test("a waypoint's replica is left out like any other endpoint", async () => {
    servers.pop()?.close();
    assert.deepEqual(await call(VIP.gated, 20), ["waypoint", 1]);
    assert.deepEqual(await call(VIP.gated, 20), ["waypoint", 1]);
    assert.deepEqual(await call(VIP.gated, 20), ["waypoint", undefined]);
  });

  describe("with session affinity, on two data threads", () => {
    const names = ["server", "second", "third"] as const;
    const open = new Map<string, LabServer>();

    before(() => {
      for (const name of names) listen(name);
    });
    after(() => {
      for (const server of open.values()) server.close();
    });

    /** Each says its name. */
    function listen(name: (typeof names)[number]): void {
      open.set(
        name,
        listenOn(lab.host(name), 8081, (socket) => socket.end(name)),
      );
    }

    /** Whom a dozen connections meet. */
    async function visit(vip: string): Promise<string> {
      const visitor = lab.host("visitor");
      const stories = await Promise.all(
        Array.from({ length: 12 }, () => tellStory(visitor, vip, 81, "")),
      );
      return [...new Set(stories.map(({ received }) => received))].join();
    }

    async function change(name: string, status: "Healthy" | "Unhealthy"): Promise<void> {
      const mesh = readFileSync(lab.meshFile, "utf8");
      const line = new RegExp(`(uid: lab//Pod/default/${name},.*status: )[a-zA-Z]+`);
      lab.changeMesh(mesh.replace(line, `$1${status}`));
      await waitUntil(async () => {
        const { workloads } = JSON.parse(await lab.node("node-b").get(15000, "/config_dump"));
        return workloads.some(
          (one: { name: string; status: string }) => one.name === name && one.status === status,
        );
      }, `${name} never became ${status}`);
    }

    const why = (): string =>
      lab.net.exec(
        lab.node("node-b").host,
        ...[process.execPath, MAIN, "why", "default/visitor", `sticky.default.${DOMAIN}:81`],
      );

    test("a client goes to one endpoint, to another when that is not healthy, and stays there", async () => {
      assert.match(why(), /^ +where the client's address leads: the service keeps it at one/m);
      const first = await visit(VIP.sticky);
      assert.ok(
        names.some((name) => name === first),
        first,
      );
      assert.equal(await visit(VIP.sticky), first);
      await change(first, "Unhealthy");
      const second = await visit(VIP.sticky);
      assert.ok(
        names.some((name) => name === second && name !== first),
        second,
      );
      await change(first, "Healthy");
      assert.equal(await visit(VIP.sticky), second);
      const text = why();
      assert.match(text, new RegExp(`^ +to workload default/${second}$`, "m"));
      assert.match(
        text,
        /^ +where the client was last: the service keeps it at one endpoint for 600 s after/m,
      );
    });

    test("a client whose endpoint can't be reached goes to its next one, and stays there", async () => {
      const text = why();
      const first = names.find((name) => text.includes(`to workload default/${name}\n`));
      assert.ok(first);
      open.get(first)?.close();
      const second = await visit(VIP.sticky);
      assert.ok(
        names.some((name) => name === second && name !== first),
        second,
      );
      listen(first);
      assert.equal(await visit(VIP.sticky), second);
    });

    test("SESSION_AFFINITY_SERVICES names services of a control plane that does not tell", async () => {
      const met = await visit(VIP.named);
      assert.ok(
        names.some((name) => name === met),
        met,
      );
    });
  });
});

function startLab(): Promise<MeshLab> {
  const port = "{15008: 15008}";
  const kept = (name: string): string => `default/${name}.default.${DOMAIN}: {81: 8081}`;
  const visited = `protocol: HBONE, services: {${kept("sticky")}, ${kept("named")}}, status: Healthy`;
  const mesh = `workloads:
${workload("client", IP.client, "node-a", behind())}
${workload("server", IP.server, "node-b", visited.replace("{", `{${FLAKY}`))}
${workload("second", IP.second, "node-b", visited)}
${workload("third", IP.third, "node-b", visited)}
${workload("visitor", IP.visitor, "node-b", behind())}
${workload("waypoint", IP.waypoint, "elsewhere", `protocol: HBONE, services: {default/gates.default.${DOMAIN}: ${port}}`)}
${workload("down", IP.down, "elsewhere", `protocol: HBONE, capacity: 4000000000, services: {default/gates.default.${DOMAIN}: ${port}, default/flaky.default.${DOMAIN}: {80: 8080}}`)}
services:
${service("flaky", VIP.flaky)}
${service("gated", VIP.gated, `waypoint: {destination: "default/gates.default.${DOMAIN}", hboneMtlsPort: 15008}`)}
- {name: sticky, namespace: default, hostname: sticky.default.${DOMAIN}, vips: ["/${VIP.sticky}"], ports: {81: 8081}, affinitySeconds: 600}
- {name: named, namespace: default, hostname: named.default.${DOMAIN}, vips: ["/${VIP.named}"], ports: {81: 8081}}
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
      "node-b": {
        ip: "10.59.0.3",
        environment: {
          LOG_FORMAT: "json",
          ZTUNNEL_WORKER_THREADS: "2",
          SESSION_AFFINITY_SERVICES: `default/named.default.${DOMAIN}=60`,
        },
        pods: (["server", "second", "third", "visitor"] as const).map((name) => ({
          name,
          ip: IP[name],
        })),
      },
    },
    outsiders: { waypoint: IP.waypoint, down: IP.down },
    mesh,
    controlIp: "10.59.0.4",
    prefixLength: 24,
    gatewayIp: "10.59.0.1",
  });
}
