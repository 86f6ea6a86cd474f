/** A daemon is replaced under load: by a successor beside it, and by one that comes after it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import type { DrainReport } from "../../src/admin/drain-report.ts";
import { ConnectionLoad } from "../support/connection-load.ts";
import { connectFrom, type LabServer, listenEcho } from "../support/lab-application.ts";
import type { LabNode } from "../support/lab-node.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import {
  ADDRESS,
  APP_PORT,
  PATHS,
  type PathName,
  pingPong,
  readingEnd,
  startTwoNodes,
} from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const MAIN = join(import.meta.dirname, "../../dist/main.js");
const PATH_NAMES = Object.keys(PATHS) as PathName[];
/** New connections, on each of the three: two of them go through each daemon. */
const PER_SECOND = 100;
/** Enough for a busy machine to look at a daemon that drains. */
const DRAIN_MS = 4000;

/** Through whose daemons the connections of a path go. */
const THROUGH: Readonly<Record<string, readonly PathName[]>> = {
  "node-a": ["HBONE", "passthrough"],
  "node-b": ["HBONE", "plaintext inbound"],
};

/** Without tunnels, which end with the daemon that has them. */
const QUEUE_OF = {
  "node-a": { path: "passthrough", host: "client", port: 15001 },
  "node-b": { path: "plaintext inbound", host: "server", port: 15006 },
} as const;

describe("a daemon is replaced", {
  skip: requireNetns("iptables"),
  concurrency: false,
}, () => {
  let lab: MeshLab;
  let servers: LabServer[];
  let podCount = 100;

  before(async () => {
    lab = await startTwoNodes({
      environment: {
        ZTUNNEL_WORKER_THREADS: "2",
        CONNECTION_TERMINATION_DEADLINE: `${DRAIN_MS}ms`,
      },
    });
    servers = [listenEcho(lab.host("server"), APP_PORT), listenEcho(lab.host("outside"), APP_PORT)];
  });
  after(async () => {
    for (const server of servers ?? []) server.close();
    await lab?.close();
  });

  const startSuccessor = (name: string): Promise<LabNode> =>
    lab.startSuccessor(name, `10.66.0.${podCount++}`);

  const startLoads = (t: TestContext): readonly ConnectionLoad[] => {
    const loads = PATH_NAMES.map((name) => {
      const { from, to } = PATHS[name];
      return new ConnectionLoad(lab, { from, ip: ADDRESS[to] }, PER_SECOND);
    });
    t.after(() => Promise.all(loads.map((load) => load.stop())));
    return loads;
  };

  for (const [name, paths] of Object.entries(THROUGH)) {
    test(`${name} by one that is ready before it ends: of ${paths.length * PER_SECOND} new connections/s none fails, long ones live to the limit`, async (t) => {
      const loadedAt = performance.now();
      const loads = startLoads(t);
      const old = lab.node(name);
      const long = await Promise.all(paths.map((path) => connectAlong(lab, path)));
      const ends = long.map(readingEnd);
      const successor = await startSuccessor(name);
      assert.equal((await drainOf(old)).state, "LIVE");
      assert.equal(old.agent.proxyCount, 2, "the agent serves both");

      const startedAt = performance.now();
      const exited = once(old.process, "exit");
      old.process.kill("SIGTERM");
      await waitUntil(async () => (await drainOf(old)).state === "DRAINING", "it does not drain");
      const { inbound, outbound } = (await drainOf(old)).connections;
      assert.ok(inbound + outbound >= 2, "both long ones are listed");
      await Promise.all(long.map((socket) => pingPong(socket)));
      assert.deepEqual(await exited, [0, null]);
      const tookMs = performance.now() - startedAt;
      t.diagnostic(`gone ${tookMs.toFixed(0)} ms after SIGTERM`);
      assert.ok(tookMs > DRAIN_MS - 100, `took ${tookMs} ms`);
      assert.deepEqual(await Promise.all(ends), ["EOF", "EOF"]);

      const seconds = (performance.now() - loadedAt) / 1000;
      for (const load of loads) {
        const { count, failures } = await load.stop();
        t.diagnostic(`${count} connections in ${seconds.toFixed(1)} s`);
        assert.deepEqual(failures, []);
        assert.ok(count > (seconds - 1) * PER_SECOND, `only ${count} were offered`);
      }
      assert.match(await successor.metrics(), /^istio_tcp_connections_opened_total\{/m);
    });

    test(`${name} dies with connections in its queues: its successor takes them`, async () => {
      const old = lab.node(name);
      await startSuccessor(name);
      old.process.kill("SIGSTOP");
      // Those that the kernel put into the queues of the old one hang.
      const { path, host, port } = QUEUE_OF[name as keyof typeof QUEUE_OF];
      const done = Promise.allSettled(Array.from({ length: 40 }, () => connectAlong(lab, path)));
      await waitUntil(() => queued(lab, host, port) > 0, "nothing waits for the old daemon");
      const exited = once(old.process, "exit");
      old.process.kill("SIGKILL");
      await exited;
      const outcomes = await done;
      for (const outcome of outcomes) {
        if (outcome.status === "fulfilled") outcome.value.destroy();
        else assert.fail(String(outcome.reason));
      }
    });
  }

  test("by one that comes after it: connections are refused until it has its pods, and none later", async (t) => {
    const loads = startLoads(t);
    const node = lab.node("node-a");
    const long = await connectAlong(lab, "passthrough");
    const end = readingEnd(long);
    await waitUntil(() => loads.every(({ count }) => count > 10), "no load");
    const startedAt = performance.now();
    const restarted = node.restart();
    await waitUntil(async () => (await drainOf(node)).state === "DRAINING", "it does not drain");
    await pingPong(long);
    await restarted;
    t.diagnostic(`ready ${(performance.now() - startedAt).toFixed(0)} ms after SIGTERM`);
    assert.equal(await end, "EOF");
    const before = loads.map(({ count }) => count);
    await waitUntil(() => loads.every(({ count }, i) => count > (before[i] ?? 0) + 20), "no load");
    const [hbone, inbound, passthrough] = await Promise.all(loads.map((load) => load.stop()));
    assert.ok(hbone !== undefined && inbound !== undefined && passthrough !== undefined);
    assert.deepEqual(inbound.failures, [], "the other node's connections");
    for (const { count, failures } of [hbone, passthrough]) {
      t.diagnostic(
        `${failures.length} of ${count} refused, ${failures.at(0)} to ${failures.at(-1)}`,
      );
      assert.ok(failures.length > 0 && failures.length < count);
      for (const failure of failures) assert.match(failure, REFUSALS);
    }
  });
});

test("a daemon is replaced by one in the same network namespace, which waits for the ports of operators", {
  skip: requireNetns("iptables"),
}, async (t) => {
  // The old one drains until it has been looked at.
  const lab = await startTwoNodes({ environment: { CONNECTION_TERMINATION_DEADLINE: "60s" } });
  t.after(() => lab.close());
  const server = listenEcho(lab.host("server"), APP_PORT);
  t.after(() => server.close());
  const old = lab.node("node-b");
  const long = await connectAlong(lab, "plaintext inbound");
  const successor = lab.startBeside("node-b");
  const has = (text: string): boolean => successor.lines.some((line) => line.includes(text));
  await waitUntil(() => has("marking server ready"), "it never took the pods");
  for (const port of ["127.0.0.1:15000", "[::]:15020", "[::]:15021"]) {
    const taken = `failed to bind to address ${port}: address already in use (os error 98), waiting`;
    await waitUntil(() => has(taken), `it does not say that ${port} is taken`);
  }
  const exited = once(old.process, "exit");
  old.process.kill("SIGTERM");
  await waitUntil(async () => (await drainOf(old)).state === "DRAINING", "it does not drain");
  await successor.ready();
  // Each port is tried for again by itself.
  await waitUntil(
    () =>
      successor.metrics().then(
        (text) => /^istio_build/m.test(text),
        () => false,
      ),
    "no metrics",
  );
  // The admin port is there for those who ask what is still waited for.
  assert.deepEqual((await drainOf(old)).connections, { inbound: 1, outbound: 0 });
  long.destroy();
  await exited;
  await waitUntil(
    () =>
      drainOf(successor).then(
        ({ state }) => state === "LIVE",
        () => false,
      ),
    "no admin port",
  );
  const command = [MAIN, "drain", "status", "--admin", "127.0.0.1:15000"];
  assert.match(
    lab.net.exec(successor.host, process.execPath, ...command),
    /^live, \d+ inbound and \d+ outbound connections/,
  );
});

/** A connection that has carried something. */
async function connectAlong(lab: MeshLab, path: PathName): Promise<Socket> {
  const { from, to } = PATHS[path];
  const socket = await connectFrom(lab.host(from), ADDRESS[to], APP_PORT);
  await pingPong(socket);
  return socket;
}

async function drainOf(node: LabNode): Promise<DrainReport> {
  return JSON.parse(await node.get(15000, "/drain")) as DrainReport;
}

/** Connections to `outside` that fail while a daemon is away must fail: none may pass by it. */
const REFUSALS = /: (ECONNREFUSED|ECONNRESET|EOF instead of the echo)$/;

/** How many connections wait in the accept queues of a port. */
function queued(lab: MeshLab, host: string, port: number): number {
  const listeners = lab.net.exec(lab.host(host), "ss", "-tlnH", "sport", "=", `:${port}`);
  return listeners
    .split("\n")
    .map((line) => Number(line.trim().split(/\s+/)[1] ?? 0))
    .reduce((sum, count) => sum + count, 0);
}
