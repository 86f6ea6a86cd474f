import assert from "node:assert/strict";
import { test } from "node:test";
import { ZdsClient } from "../../src/inpod/zds-client.ts";
import type { ZdsConnection } from "../../src/inpod/zds-connection.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { encodeZdsRequest } from "../../src/wire/zds-message.ts";
import { settle } from "../support/fake-clock.ts";
import { MemoryConnection, ownNetnsFd } from "./memory-connection.ts";
import { ReconcilerBench } from "./recorded-launcher.ts";

const POD = { name: "server", namespace: "default", serviceAccount: "server" };
const SNAPSHOT = encodeZdsRequest({ kind: "snapshot-sent" });
const KEEP = encodeZdsRequest({ kind: "keep", uid: "u1" });
const PATH = "/run/zds.sock";

function add(uid: string): Uint8Array {
  return encodeZdsRequest({ kind: "add", uid, workload: POD });
}

/** A client whose dials meet the given connections, and refusals when there is none left. */
class ClientBench extends ReconcilerBench {
  readonly upcoming: ZdsConnection[] = [];
  readonly #controller = new AbortController();
  readonly ended: Promise<unknown>;
  dialCount = 0;

  constructor(...upcoming: ZdsConnection[]) {
    super();
    this.upcoming.push(...upcoming);
    const client = new ZdsClient(
      {
        dial: () => {
          this.dialCount++;
          const connection = this.upcoming.shift();
          if (connection !== undefined) return connection;
          throw Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
        },
        reconciler: this.reconciler,
        clock: this.clock,
        random: systemRandom(),
        log: this.log,
      },
      { path: PATH },
    );
    this.ended = client.run(this.#controller.signal).catch((error: unknown) => error);
  }

  async drain(): Promise<unknown> {
    this.#controller.abort();
    return this.ended;
  }
}

test("dialling backs off from 20 ms to 15 s and names the node agent", async () => {
  const bench = new ClientBench();
  await bench.clock.advance(60_000);
  const delays = bench.lines.map((line) => / retrying in (\S+)$/.exec(line)?.[1]);
  assert.deepEqual(
    delays.slice(0, 13),
    "20ms 40ms 80ms 160ms 320ms 640ms 1.28s 2.56s 5.12s 10.24s 15s 15s 15s".split(" "),
  );
  assert.equal(
    bench.lines[0],
    'inpod::workloadmanager warn failed to connect to the Istio CNI node agent over "/run/zds.sock", is the node agent healthy? details: Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }. retrying in 20ms',
  );
  assert.equal(bench.isReady, false);
  assert.equal(await bench.drain(), undefined);
  assert.equal(bench.lines.at(-1), "inpod::workloadmanager info drain requested");
  assert.equal(bench.clock.pendingCount, 0);
});

test("a lost agent is dialled at once, and what runs goes on running", async () => {
  const first = new MemoryConnection();
  const bench = new ClientBench(first);
  await first.take();
  await first.ask(add("u1"), [ownNetnsFd()]);
  await first.ask(add("u2"), [ownNetnsFd()]);
  await first.ask(SNAPSHOT);
  assert.equal(bench.isReady, true);
  const second = new MemoryConnection();
  bench.upcoming.push(second);
  first.end();
  await second.take();
  assert.equal(bench.isReady, false);
  assert.deepEqual(bench.workloads, ["u1 Up", "u2 Up"]);
  await second.ask(add("u1"), [ownNetnsFd()]);
  await second.ask(SNAPSHOT);
  await settle();
  assert.equal(bench.isReady, true);
  assert.deepEqual(bench.launcher.calls, ["start u1", "start u2", "stop u2"]);
  await bench.drain();
  await bench.reconciler.close();
});

test("the log of a lost agent is the original's", async () => {
  const first = new MemoryConnection();
  const bench = new ClientBench(first);
  await first.take();
  await first.ask(SNAPSHOT);
  bench.lines.length = 0;
  first.end();
  await settle();
  assert.deepEqual(
    bench.lines.map((line) => line.replace(/ over .*/, " …")),
    [
      "inpod::workloadmanager info process stream ended with eof",
      "inpod::workloadmanager warn failed to connect to the Istio CNI node agent …",
    ],
  );
  await bench.drain();
});

test("an agent that hangs up before any message is not dialled in a tight loop", async () => {
  const silent = Array.from({ length: 3 }, () => {
    const connection = new MemoryConnection();
    connection.end();
    return connection;
  });
  const bench = new ClientBench(...silent);
  await settle();
  await settle();
  assert.equal(bench.dialCount, 1);
  await bench.clock.advance(20);
  assert.equal(bench.dialCount, 2);
  await bench.drain();
});

test("a packet that cannot be read ends the conversation and the agent is dialled again", async () => {
  const first = new MemoryConnection();
  const second = new MemoryConnection();
  const bench = new ClientBench(first, second);
  await first.take();
  await first.ask(SNAPSHOT);
  await first.ask(add("u1"));
  assert.deepEqual(await second.take(), Uint8Array.of(0x08, 0x01));
  assert.equal(first.closed, true);
  await bench.drain();
});

test("a protocol error is final", async () => {
  const connection = new MemoryConnection();
  const bench = new ClientBench(connection);
  await connection.take();
  await connection.ask(SNAPSHOT);
  await connection.ask(KEEP);
  assert.equal(((await bench.ended) as { code: string }).code, "protocol");
  assert.equal(bench.dialCount, 1);
  assert.equal(
    bench.lines.at(-1),
    "inpod::workloadmanager error protocol mismatch error while processing stream, shutting down",
  );
});

test("a drain closes the socket and stops no workload", async () => {
  const connection = new MemoryConnection();
  const bench = new ClientBench(connection);
  await connection.take();
  await connection.ask(add("u1"), [ownNetnsFd()]);
  await connection.ask(SNAPSHOT);
  bench.lines.length = 0;
  assert.equal(await bench.drain(), undefined);
  assert.equal(connection.closed, true);
  assert.deepEqual(bench.workloads, ["u1 Up"]);
  assert.deepEqual(bench.lines, [
    "inpod::protocol info workload proxy manager: drain requested",
    "inpod::workloadmanager info process stream ended with eof",
    "inpod::workloadmanager info drain requested",
  ]);
  await bench.reconciler.close();
});
