/** What becomes of a pod's connections when its agent takes it back: they go on to their own end, or to the deadline. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { DrainReport } from "../../src/admin/drain-report.ts";
import { ZdsServer } from "../../src/embedded/zds-server.ts";
import { native } from "../../src/net/native.ts";
import { connectFrom, listenEcho } from "../support/lab-application.ts";
import type { LabNode } from "../support/lab-node.ts";
import { enrolment, type MeshLab, patientClock } from "../support/mesh-lab.ts";
import { sampleSum } from "../support/metrics-text.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { silentLogger } from "../support/silent-logger.ts";
import {
  ADDRESS,
  echoOnce,
  type Pair,
  PairMaker,
  readingEnd,
  startTwoNodes,
  talk,
} from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const SERVER = enrolment({ name: "server", ip: ADDRESS.server }, "node-b", 0);
const GUARDED = enrolment({ name: "guarded", ip: ADDRESS.guarded }, "node-b", 1);
const THREAD_COUNT = 2;
/** Where an echo is now and then. */
const ECHO_PORT = 9000;

describe("a pod that its agent takes back", { skip: requireNetns("iptables") }, () => {
  let lab: MeshLab;
  /** Of node-b, the one that speaks to it now. */
  let agent: ZdsServer;
  const made: PairMaker[] = [];
  let nextPort = 8081;

  before(async () => {
    lab = await startTwoNodes({
      environmentOf: {
        "node-a": { POD_TERMINATION_DEADLINE: "1s" },
        // Longer than a test may take; what waits for it fails.
        "node-b": {
          POD_TERMINATION_DEADLINE: "10m",
          CONNECTION_TERMINATION_DEADLINE: "1s",
          ZTUNNEL_WORKER_THREADS: String(THREAD_COUNT),
        },
      },
    });
    agent = lab.node("node-b").agent;
  });
  after(async () => {
    for (const pairs of made) pairs.close();
    agent?.close();
    await lab?.close();
  });

  /** A connection on which both have spoken. */
  async function connect(from: string, to: string): Promise<Pair & { readonly port: number }> {
    const port = nextPort++;
    const pairs = new PairMaker(lab, { from, to }, port);
    made.push(pairs);
    const pair = await pairs.make();
    await talk(pair);
    return { ...pair, port };
  }

  test("lets its connections go on to their own end, takes no new ones, and may come back meanwhile", async () => {
    const node = lab.node("node-b");
    const [tunnelled, plain, leaving, passing] = [
      await connect("client", "server"),
      await connect("outside", "server"),
      await connect("server", "client"),
      await connect("server", "outside"),
    ] as const;
    const all = [tunnelled, plain, leaving, passing];
    assert.equal(heldNamespaces(lab, node, "server"), 1);

    await agent.del(SERVER.uid);
    // Nobody listens there: what comes through before the ports are closed ends at once.
    for (const [from, ip] of [
      ["outside", ADDRESS.server],
      ["server", ADDRESS.outside],
    ] as const) {
      await waitUntil(() => isRefused(lab, from, ip, ECHO_PORT), `${from} is still served`);
    }
    // The client's own proxy takes it, then finds nobody.
    const late = await connectFrom(lab.host("client"), ADDRESS.server, tunnelled.port);
    late.write("hello");
    assert.match(await readingEnd(late), /^(ECONNRESET|EOF)$/);
    for (const pair of all) await talk(pair);

    const report = async (): Promise<DrainReport> =>
      JSON.parse(await node.get(15000, "/drain")) as DrainReport;
    await waitUntil(async () => {
      const { inbound, outbound } = (await report()).connections;
      return inbound === 2 && outbound === 2;
    }, "others are listed");
    const { state, workloads } = await report();
    assert.deepEqual([state, workloads.map(({ uid }) => uid)], ["LIVE", [SERVER.uid]]);
    const restSeconds = workloads[0]?.remainingSeconds ?? 0;
    assert.ok(restSeconds > 0 && restSeconds <= 600, `${restSeconds} s left`);
    const { workloadState } = JSON.parse(await node.get(15000, "/config_dump"));
    assert.equal(workloadState[SERVER.uid].state, "Draining");
    assert.match(
      await node.get(15021, "/healthz/ready?verbose"),
      /^pods: 1 up, 0 pending, 1 draining$/m,
    );
    assert.deepEqual(await podCounts(node), { active: 1, draining: 1 });
    assert.equal(heldNamespaces(lab, node, "server"), 1);

    await agent.add(SERVER, node.openNetns(lab.host("server")));
    const echo = listenEcho(lab.host("server"), ECHO_PORT);
    for (let i = 0; i < 2 * THREAD_COUNT; i++) {
      await echoOnce(lab, "client", ADDRESS.server, ECHO_PORT);
      await echoOnce(lab, "outside", ADDRESS.server, ECHO_PORT);
    }
    echo.close();
    for (const pair of all) await talk(pair);
    assert.deepEqual(await podCounts(node), { active: 2, draining: 1 });

    for (const pair of all) await hangUp(pair);
    await waitUntil(async () => (await podCounts(node)).draining === 0, "it drains for ever");
    await waitUntil(
      () => heldNamespaces(lab, node, "server") === 1,
      "the namespace is held for those that are gone",
    );
    const ends = all.map(({ port }) => `:${port}"`);
    const complete = (): readonly string[] =>
      node.lines.filter(
        (line) =>
          line.includes("connection complete") && ends.some((address) => line.includes(address)),
      );
    await waitUntil(() => complete().length === all.length, "access lines are missing");
    assert.deepEqual(
      complete().map((line) => JSON.parse(line).error),
      all.map(() => undefined),
    );
    assert.deepEqual(expiries(node), []);
  });

  test("has no connection ended by a snapshot that lacks it", async () => {
    const node = lab.node("node-b");
    const pair = await connect("client", "server");
    agent.close();
    const deps = { native, clock: patientClock, log: silentLogger };
    agent = new ZdsServer(deps, { path: join(lab.folder, "node-b.sock") });
    await agent.add(GUARDED, node.openNetns(lab.host("guarded"))).catch(() => {
      // Nobody is connected yet.
    });
    await waitUntil(
      async () => (await podCounts(node)).active === 1,
      "the snapshot has not reached it",
    );
    await waitUntil(() => isRefused(lab, "outside", ADDRESS.server, 15008), "still served");
    await talk(pair);
    await agent.add(SERVER, node.openNetns(lab.host("server")));
    const another = await connect("client", "server");
    await talk(pair);

    // Deleted once more, in another namespace's favour: nothing of either life is touched.
    const moved = lab.addHost("moved", "10.66.0.23");
    await agent.add(SERVER, node.openNetns(moved));
    await waitUntil(() => isRefused(lab, "outside", ADDRESS.server, 15008), "still served");
    await waitUntil(async () => !(await isRefused(lab, "outside", "10.66.0.23", 15008)), "no port");
    await talk(pair);
    await talk(another);
    assert.deepEqual(await podCounts(node), { active: 2, draining: 2 });
    await hangUp(pair);
    await hangUp(another);
    await waitUntil(async () => (await podCounts(node)).draining === 0, "it drains for ever");
    assert.equal(heldNamespaces(lab, node, "server"), 0);
    await agent.add(SERVER, node.openNetns(lab.host("server")));
  });

  test("has connections that outlive the deadline ended with the words of the original", async () => {
    const node = lab.node("node-a");
    const pairs = [
      await connect("client", "server"),
      await connect("client", "outside"),
      await connect("server", "client"),
    ];
    const ends = pairs.flatMap(({ client, server }) => [readingEnd(client), readingEnd(server)]);
    await node.agent.del("node-a-0");
    assert.deepEqual(
      await Promise.all(ends),
      ends.map(() => "EOF"),
    );
    await waitUntil(async () => (await podCounts(node)).draining === 0, "it drains for ever");
    const cut = (): readonly string[] =>
      node.lines.filter((line) => line.includes("connection closed due to connection drain"));
    await waitUntil(() => cut().length >= pairs.length, "access lines are missing");
    assert.deepEqual(
      cut().map((line) => JSON.parse(line).message),
      pairs.map(() => "connection complete"),
    );
    assert.deepEqual(expiries(node), ["inbound", "outbound"]);
    await waitUntil(() => heldNamespaces(lab, node, "client") === 0, "the namespace is held");
  });

  test("is not waited for when its network went first and nobody uses its tunnels", async () => {
    const node = lab.node("node-b");
    const echo = listenEcho(lab.host("guarded"), ECHO_PORT);
    await echoOnce(lab, "friend", ADDRESS.guarded, ECHO_PORT);
    echo.close();
    lab.net.exec(lab.host("guarded"), "ip", "link", "delete", "eth0");
    await agent.del(GUARDED.uid);
    await waitUntil(async () => (await podCounts(node)).draining === 0, "it is waited for");
    assert.deepEqual(expiries(node), []);
  });

  test("does not keep a daemon that is told to end", async () => {
    const node = lab.node("node-b");
    const pair = await connect("outside", "server");
    const ends = [readingEnd(pair.client), readingEnd(pair.server)];
    await agent.del(SERVER.uid);
    await waitUntil(async () => (await podCounts(node)).draining === 1, "it does not drain");
    const exited = once(node.process, "exit");
    node.process.kill("SIGTERM");
    assert.deepEqual(await Promise.all(ends), ["EOF", "EOF"]);
    assert.deepEqual(await exited, [0, null]);
  });
});

/** How often the daemon holds a pod's network namespace. */
function heldNamespaces(lab: MeshLab, node: LabNode, pod: string): number {
  const folder = `/proc/${node.process.pid}/fd`;
  const wanted = statSync(lab.host(pod).path);
  return readdirSync(folder).filter((fd) => {
    try {
      const { ino, dev } = statSync(join(folder, fd));
      return ino === wanted.ino && dev === wanted.dev;
    } catch {
      // Closed meanwhile.
      return false;
    }
  }).length;
}

async function podCounts(
  node: LabNode,
): Promise<{ readonly active: number; readonly draining: number }> {
  const metrics = await node.metrics();
  return {
    active: sampleSum(metrics, "workload_manager_active_proxy_count "),
    draining: sampleSum(metrics, "ztunnel_draining_pods "),
  };
}

/** The parts of pods that were cut off at the deadline, so far. */
function expiries(node: LabNode): readonly string[] {
  return node.lines
    .filter((line) => line.includes("drain duration expired"))
    .map((line) => JSON.parse(line).component)
    .sort();
}

async function isRefused(lab: MeshLab, from: string, ip: string, port: number): Promise<boolean> {
  try {
    (await connectFrom(lab.host(from), ip, port)).destroy();
    return false;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "ECONNREFUSED";
  }
}

/** Both applications end their direction and read to the end. */
async function hangUp({ client, server }: Pair): Promise<void> {
  const ends = [readingEnd(client), readingEnd(server)];
  client.end();
  server.end();
  assert.deepEqual(await Promise.all(ends), ["EOF", "EOF"]);
}
