/** Starting, stopping, losing the agent, changing while running: the daemon as its node sees it. */
import assert from "node:assert/strict";
import { type ChildProcess, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { ZdsServer } from "../../src/embedded/zds-server.ts";
import { SeqpacketConnection } from "../../src/inpod/zds-connection.ts";
import type { EnrolledWorkload } from "../../src/mesh/enrolled-workload.ts";
import { native } from "../../src/net/native.ts";
import { decodeZdsAck, decodeZdsHello, encodeZdsRequest } from "../../src/wire/zds-message.ts";
import { connectFrom, listenEcho } from "../support/lab-application.ts";
import type { LabNode } from "../support/lab-node.ts";
import { type MeshLab, patientClock } from "../support/mesh-lab.ts";
import { type LabHost, NetnsLab, requireNetns } from "../support/netns-lab.ts";
import { silentLogger } from "../support/silent-logger.ts";
import {
  ADDRESS,
  APP_PORT,
  echoOnce,
  PATHS,
  type Pair,
  PairMaker,
  type PathName,
  readingEnd,
  startTwoNodes,
  type TwoNodesOptions,
  talk,
} from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const MAIN = resolve(import.meta.dirname, "../../dist/main.js");
const skip = requireNetns("iptables");
const timeout = 170_000;
/** Pods that are deleted end like the original's. */
const AT_ONCE = { POD_TERMINATION_DEADLINE: "0" };
/** Both nodes would wait longer than a test may take, did something keep them. */
const PATIENT: TwoNodesOptions = {
  environment: AT_ONCE,
  environmentOf: {
    "node-a": { CONNECTION_TERMINATION_DEADLINE: "60s" },
    "node-b": { CONNECTION_TERMINATION_DEADLINE: "60s" },
  },
};
/** Far below the deadline of {@link PATIENT}, and enough for a busy machine. */
const SOON_MS = 30_000;
/** Of which Node itself takes 43. */
const RESIDENT_MB_MAX = 75;

describe("at rest", { skip, concurrency: false }, () => {
  test("a daemon that has started holds little memory", { timeout }, () =>
    withLab({}, async (lab) => {
      const { pid } = lab.node("node-a").process;
      const residentMb = (): number => {
        const status = readFileSync(`/proc/${pid}/status`, "utf8");
        return (Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024) / 1e6;
      };
      await waitUntil(() => residentMb() <= RESIDENT_MB_MAX, "it keeps what the start took");
    }),
  );
});

describe("going down", { skip, concurrency: false }, () => {
  test("with nothing open the daemon is gone at once", { timeout }, (t) =>
    withLab(PATIENT, async (lab) => {
      const { tookMs } = await terminated(lab.node("node-a"));
      t.diagnostic(`gone ${tookMs.toFixed(0)} ms after SIGTERM`);
      assert.ok(tookMs < SOON_MS, `${tookMs} ms`);
    }),
  );

  test("test_ztunnel_shutdown: open connections go on, new ones are refused", { timeout }, (t) =>
    withLab(PATIENT, async (lab, pairsAlong) => {
      const pairs = pairsAlong(PATHS.HBONE);
      const pair = await pairs.make();
      await talk(pair);
      const node = lab.node("node-b");
      const ended = terminated(node);
      await waitUntil(() => isRefused(node.get(15021, "/healthz/ready")), "still answers probes");
      await waitUntil(() => isRefused(node.metrics()), "still answers scrapes");
      await waitUntil(
        () => isRefused(connectFrom(lab.host("outside"), ADDRESS.server, APP_PORT)),
        "still takes connections",
      );
      // What is asked before the other node reads the GOAWAY is served.
      await waitUntil(() => isEnded(lab.host("client")), "calls are still served");
      await delay(500);
      await talk(pair);
      const hungUpAt = performance.now();
      await hangUp(pair);
      await ended;
      const tookMs = performance.now() - hungUpAt;
      t.diagnostic(`gone ${tookMs.toFixed(0)} ms after the connection`);
      assert.ok(tookMs < SOON_MS, `gone ${tookMs} ms after the connection`);

      const other = pairsAlong(PATHS.passthrough);
      const passing = await other.make();
      const alsoEnded = terminated(lab.node("node-a"));
      await waitUntil(
        () => isRefused(lab.node("node-a").get(15021, "/healthz/ready")),
        "still answers probes",
      );
      await waitUntil(
        () => isRefused(connectFrom(lab.host("client"), ADDRESS.outside, APP_PORT)),
        "still takes connections",
      );
      await talk(passing);
      await hangUp(passing);
      await alsoEnded;
    }),
  );

  test(
    "connections that stay end with EOF at the deadline, 5 s or as configured, after a signal and after /quitquitquit",
    { timeout },
    (t) =>
      withLab(
        // Longer than the other's, so that it does not end what that one is to end.
        { environmentOf: { "node-a": { CONNECTION_TERMINATION_DEADLINE: "7s" } } },
        async (lab, pairsAlong) => {
          const stay = async (
            node: string,
            path: (typeof PATHS)[PathName],
            deadlineMs: number,
            tell: (told: LabNode) => unknown,
          ) => {
            const pair = await pairsAlong(path).make();
            await talk(pair);
            const ends = [readingEnd(pair.client), readingEnd(pair.server)];
            const startedAt = performance.now();
            const ended = terminated(lab.node(node), tell);
            await waitUntil(
              () => isRefused(lab.node(node).get(15021, "/healthz/ready")),
              `${node} still answers probes`,
            );
            const heard = once(pair.server, "data");
            pair.client.write("still here");
            await heard;
            assert.deepEqual(await Promise.all(ends), ["EOF", "EOF"], node);
            const livedMs = performance.now() - startedAt;
            const { tookMs } = await ended;
            t.diagnostic(`${node}: gone after ${tookMs.toFixed(0)} ms`);
            assert.ok(livedMs > deadlineMs - 10, `${node} ended it after ${livedMs} ms`);
            assert.ok(tookMs < deadlineMs + SOON_MS, `${node} took ${tookMs} ms`);
          };
          await Promise.all([
            stay("node-b", PATHS.HBONE, 5000, quit),
            stay("node-a", PATHS.passthrough, 7000, sigterm),
          ]);
        },
      ),
  );

  test("a signal that comes twice at once, as from npm and its terminal, is one", { timeout }, () =>
    withLab(PATIENT, async (lab, pairsAlong) => {
      const pair = await pairsAlong(PATHS["plaintext inbound"]).make();
      await talk(pair);
      const node = lab.node("node-b");
      const ended = terminated(node);
      node.process.kill("SIGTERM");
      await waitUntil(
        () => isRefused(node.get(15021, "/healthz/ready")),
        "it still answers probes",
      );
      await delay(500);
      await talk(pair);
      await hangUp(pair);
      await ended;
    }),
  );

  test("a second signal does not wait", { timeout }, () =>
    withLab(PATIENT, async (lab, pairsAlong) => {
      const pairs = pairsAlong(PATHS["plaintext inbound"]);
      await talk(await pairs.make());
      const node = lab.node("node-b");
      const ended = terminated(node);
      await delay(1000);
      node.process.kill("SIGTERM");
      const { tookMs } = await ended;
      assert.ok(tookMs < SOON_MS, `${tookMs} ms`);
      await waitUntil(
        () => node.lines.some((line) => /received signal SIG(TERM|INT)/.test(line)),
        "what was logged is lost",
      );
    }),
  );
});

describe("a running daemon", { skip }, () => {
  test(
    "changes its log level, outlives its agent, lets a pod go and come back and quits when told",
    {
      timeout,
    },
    (t) =>
      withLab(PATIENT, async (lab, pairsAlong) => {
        const node = lab.node("node-b");
        const pairs = pairsAlong(PATHS.HBONE);
        const pair = await pairs.make();
        await talk(pair);

        assert.match(await node.post("/logging?level=debug"), /current log level is .*debug/);
        let passed = 0;
        // Lines come some time after they were written, in their order.
        const passAndBeLogged = async (): Promise<void> => {
          await passOnce(pairs);
          passed++;
          const logged = (): number =>
            node.lines.filter((line) => line.includes("connection complete")).length;
          await waitUntil(() => logged() >= passed, "no access line");
        };
        // The data thread hears of the level in its own time.
        await waitUntil(async () => {
          await passAndBeLogged();
          return linesOf(node, "debug").length > 0;
        }, "no line at debug");
        await node.post("/logging?level=info");
        await passAndBeLogged();
        const debugCount = linesOf(node, "debug").length;
        await passAndBeLogged();
        assert.equal(linesOf(node, "debug").length, debugCount, "debug lines after the way back");

        node.agent.close();
        await waitUntil(async () => !(await isReady(node)), "ready without an agent");
        await talk(pair);
        await passOnce(pairs);
        const agent = await newAgent(lab, "node-b");
        t.after(() => agent.close());
        await waitUntil(() => isReady(node), "never ready again");
        await talk(pair);
        await passOnce(pairs);

        const ends = [readingEnd(pair.client), readingEnd(pair.server)];
        const startedAt = performance.now();
        await agent.del("node-b-0");
        const tookMs = performance.now() - startedAt;
        assert.deepEqual(await Promise.all(ends), ["EOF", "EOF"]);
        t.diagnostic(`Del was acknowledged after ${tookMs.toFixed(1)} ms`);
        // The daemon's own deadline is not theirs: that would take 60 s.
        assert.ok(tookMs < SOON_MS, `${tookMs} ms`);
        const direct = connectFrom(lab.host("outside"), ADDRESS.server, APP_PORT);
        await assert.rejects(direct, { code: "ECONNREFUSED" });
        const late = await connectFrom(lab.host("client"), ADDRESS.server, APP_PORT);
        late.write("hello");
        // A reset if it was sooner at the proxy than the refusal.
        assert.match(await readingEnd(late), /^(ECONNRESET|EOF)$/);
        assert.ok(await isReady(node), "a pod that leaves does not unready the node");

        // Its certificate went with it, the last pod of its account on this node.
        await node.post("/logging?level=debug");
        await agent.add(enrolledOn("node-b", 0), node.openNetns(lab.host("server")));
        await passOnce(pairs);
        const fetched = (): readonly string[] =>
          node.lines.filter((line) => line.includes("certificate fetch succeeded"));
        await waitUntil(() => fetched().length > 0, "no line about a certificate");
        assert.deepEqual(
          fetched().map((line) => JSON.parse(line).id),
          ["spiffe://cluster.local/ns/default/sa/server"],
        );

        const ended = exitOf(node.process);
        await node.post("/quitquitquit");
        assert.deepEqual(await ended, [0, null]);
      }),
  );

  test(
    "test_server_shutdown: a pod that is deleted ends its connections and takes no new ones",
    {
      timeout,
    },
    () =>
      withLab({ environment: AT_ONCE }, async (lab, pairsAlong) => {
        const pairs = pairsAlong(PATHS.HBONE);
        const pair = await pairs.make();
        await talk(pair);
        const ends = [readingEnd(pair.client), readingEnd(pair.server)];
        const { agent } = lab.node("node-b");
        await agent?.del("node-b-0");
        assert.deepEqual(await Promise.all(ends), ["EOF", "EOF"]);
        // The client's own proxy takes it, then finds nobody.
        const late = await connectFrom(lab.host("client"), ADDRESS.server, APP_PORT);
        late.write("hello");
        assert.match(await readingEnd(late), /^(ECONNRESET|EOF)$/);
        const refusal = (): string | undefined =>
          lab.node("node-a").lines.find((line) => line.includes('"level":"error"'));
        await waitUntil(() => refusal() !== undefined, "no line about the refused connection");
        const { scope, error, direction } = JSON.parse(refusal() ?? "{}");
        assert.deepEqual(
          { scope, error, direction },
          {
            scope: "access",
            error: "io error: Connection refused (os error 111)",
            direction: "outbound",
          },
        );
        const cut = (): string | undefined =>
          lab.node("node-b").lines.find((line) => line.includes("connection complete"));
        await waitUntil(() => cut() !== undefined, "no line about the connection that was cut");
        assert.equal(JSON.parse(cut() ?? "{}").error, "connection closed due to connection drain");
      }),
  );

  test("carries connections with no data thread and with two", { timeout }, () =>
    withLab(
      {
        environmentOf: {
          "node-a": { ZTUNNEL_WORKER_THREADS: "0" },
          "node-b": { ZTUNNEL_WORKER_THREADS: "2" },
        },
      },
      async (lab) => {
        const echo = listenEcho(lab.host("server"), APP_PORT);
        for (let i = 0; i < 8; i++) {
          await echoOnce(lab, "client", ADDRESS.server);
          await echoOnce(lab, "outside", ADDRESS.server);
        }
        echo.close();
        await Promise.all([terminated(lab.node("node-a")), terminated(lab.node("node-b"))]);
      },
    ),
  );
});

describe("a daemon that can't go on", { skip }, () => {
  test("refuses an agent that keeps what it never announced, and ends", { timeout }, async () => {
    const net = new NetnsLab();
    const folder = mkdtempSync(join(tmpdir(), "ztunnel-keep-"));
    const uds = join(folder, "agent.sock");
    const listenFd = native.listenSeqpacket(uds, 1);
    try {
      const host = net.addHost("node", { ipv4: "10.66.0.2/24" });
      const daemon = net.spawn(
        host,
        "env",
        ...[`INPOD_UDS=${uds}`, "LOCAL_XDS={}", process.execPath, MAIN, "proxy"],
      );
      const exited = exitOf(daemon);
      let fd: number | undefined;
      await waitUntil(() => {
        fd = native.accept(listenFd);
        return fd !== undefined;
      }, "the daemon never dialled its agent");
      const connection = new SeqpacketConnection(native, fd as unknown as number);
      const { signal } = new AbortController();
      const next = async (): Promise<Uint8Array> =>
        (await connection.receive(signal))?.data ?? new Uint8Array();
      assert.equal(decodeZdsHello(await next()), 1);
      connection.send(encodeZdsRequest({ kind: "snapshot-sent" }));
      assert.equal(decodeZdsAck(await next()).error, "");
      connection.send(encodeZdsRequest({ kind: "keep", uid: "stranger" }));
      assert.notEqual(decodeZdsAck(await next()).error, "");
      assert.deepEqual(await exited, [1, null]);
      connection.close();
    } finally {
      net.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test("lists every mistake of its configuration", () => {
    const { status, stderr } = spawnSync(process.execPath, [MAIN, "proxy", "ztunnel"], {
      encoding: "utf8",
      env: {
        LOG_FORMAT: "xml",
        ZTUNNEL_WORKER_THREADS: "many",
        ENABLE_ORIG_SRC: "perhaps",
        CONNECTION_TERMINATION_DEADLINE: "soon",
        CA_ADDRESS: "http://ca:1",
        XDS_ADDRESS: "",
      },
    });
    assert.equal(status, 1, stderr);
    for (const name of [
      "LOG_FORMAT",
      "ZTUNNEL_WORKER_THREADS",
      "ENABLE_ORIG_SRC",
      "CONNECTION_TERMINATION_DEADLINE",
      "CA_ADDRESS",
      "LOCAL_XDS",
    ]) {
      const lines = stderr.split("\n").filter((line) => line.includes(name));
      assert.equal(lines.length, 1, `one line about ${name} in:\n${stderr}`);
    }
  });

  test("names the line of its mesh file that it does not understand", () => {
    const net = new NetnsLab();
    const folder = mkdtempSync(join(tmpdir(), "ztunnel-mesh-"));
    try {
      const file = join(folder, "mesh.yaml");
      writeFileSync(file, "workloads: []\nservices: []\nwaypoints: []\n");
      const { path } = net.addHost("node", { ipv4: "10.66.0.2/24" });
      const command = [`--net=${path}`, "--", process.execPath, MAIN, "proxy"];
      const { status, stderr } = spawnSync("nsenter", command, {
        encoding: "utf8",
        env: { LOCAL_XDS_PATH: file },
      });
      assert.equal(status, 1, stderr);
      assert.match(stderr, /mesh\.yaml:3.*waypoints/);
    } finally {
      net.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

type PairsAlong = (path: (typeof PATHS)[PathName]) => PairMaker;

async function withLab(
  options: TwoNodesOptions,
  story: (lab: MeshLab, pairsAlong: PairsAlong) => Promise<void>,
): Promise<void> {
  const lab = await startTwoNodes(options);
  const made: PairMaker[] = [];
  try {
    await story(lab, (path) => {
      const pairs = new PairMaker(lab, path);
      made.push(pairs);
      return pairs;
    });
  } finally {
    for (const pairs of made) pairs.close();
    await lab.close();
  }
}

const sigterm = (node: LabNode): unknown => node.process.kill("SIGTERM");

/** Answered before anything ends. */
async function quit(node: LabNode): Promise<void> {
  assert.equal(await node.post("/quitquitquit"), "shutdown now\n");
}

/** Tells it to end. Settles when the process has ended, which must be with code 0. */
function terminated(
  node: LabNode,
  tell: (told: LabNode) => unknown = sigterm,
): Promise<{ readonly tookMs: number }> {
  const ended = terminate(node, tell);
  // Whoever awaits it is told; a test that failed before that is not told twice.
  ended.catch(() => {});
  return ended;
}

async function terminate(
  node: LabNode,
  tell: (told: LabNode) => unknown,
): Promise<{ readonly tookMs: number }> {
  const startedAt = performance.now();
  const exited = exitOf(node.process);
  await tell(node);
  const [code, signal] = await exited;
  assert.deepEqual({ code, signal }, { code: 0, signal: null }, node.lines.slice(-5).join("\n"));
  return { tookMs: performance.now() - startedAt };
}

async function exitOf(child: ChildProcess): Promise<readonly [number | null, string | null]> {
  const [code, signal] = await once(child, "exit");
  return [code, signal];
}

/** Whether a call to the server is ended by its node: a reset if it was sooner at the proxy than the refusal. */
async function isEnded(from: LabHost): Promise<boolean> {
  const call = await connectFrom(from, ADDRESS.server, APP_PORT);
  call.write("hello");
  const end = await Promise.race([readingEnd(call), delay(2000, "served")]);
  call.resetAndDestroy();
  return /^(ECONNRESET|EOF)$/.test(end);
}

async function isRefused(asked: Promise<unknown>): Promise<boolean> {
  try {
    const answer = await asked;
    if (answer instanceof Socket) answer.resetAndDestroy();
    return false;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "ECONNREFUSED";
  }
}

function isReady(node: LabNode): Promise<boolean> {
  return node.get(15021, "/healthz/ready").then(
    () => true,
    (error: Error) => {
      assert.match(error.message, /: 500 /);
      return false;
    },
  );
}

const PODS = ["server", "guarded"] as const;

function enrolledOn(node: string, index: number): EnrolledWorkload {
  const name = PODS[index] ?? "";
  return { uid: `${node}-${index}`, name, namespace: "default", serviceAccount: name };
}

/** Announces the node's pods anew; whoever connects gets them as its snapshot. */
async function newAgent(lab: MeshLab, name: string): Promise<ZdsServer> {
  const node = lab.node(name);
  const deps = { native, clock: patientClock, log: silentLogger };
  const agent = new ZdsServer(deps, { path: join(lab.folder, `${name}.sock`) });
  for (const [index, pod] of PODS.entries()) {
    await agent.add(enrolledOn(name, index), node.openNetns(lab.host(pod))).catch(() => {
      // Nobody is connected yet.
    });
  }
  return agent;
}

/** Both applications end their direction and read to the end. */
async function hangUp({ client, server }: Pair): Promise<void> {
  const ends = [readingEnd(client), readingEnd(server)];
  client.end();
  server.end();
  assert.deepEqual(await Promise.all(ends), ["EOF", "EOF"]);
}

async function passOnce(pairs: PairMaker): Promise<void> {
  const pair = await pairs.make();
  await talk(pair);
  await hangUp(pair);
}

function linesOf(node: LabNode, level: string): readonly string[] {
  return node.lines.filter((line) => line.includes(`"level":"${level}"`));
}
