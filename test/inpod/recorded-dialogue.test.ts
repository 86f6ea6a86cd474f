/**
 * A dialogue recorded between an agent and the Rust ztunnel (commit 62d82653): start, delete, add,
 * add again, unknown delete, an add whose port is taken, the agent's restart. The same bytes in
 * must give the same bytes out. Runs over a real SOCK_SEQPACKET socket.
 */
import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ZdsClient } from "../../src/inpod/zds-client.ts";
import { SeqpacketConnection } from "../../src/inpod/zds-connection.ts";
import { native } from "../../src/net/native.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { ReconcilerBench } from "./recorded-launcher.ts";

interface Step {
  readonly recv?: "hello" | "ack";
  readonly send?: string;
  readonly pod?: string | null;
  readonly fd?: boolean;
  readonly bytes: string;
}

const steps: Step[] = readFileSync(join(import.meta.dirname, "recorded-dialogue.jsonl"), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as Step);

const SERVER3 = "00000000-0000-4000-8000-000000000023";
const BIND = "failed to bind to address [::]:15006: Address already in use (os error 98)";

test("the recorded dialogue gets the recorded answers, byte by byte", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "zds-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "zds.sock");
  const listenFd = native.listenSeqpacket(path, 5);
  t.after(() => closeSync(listenFd));
  // Any kind of namespace is told apart by its inode; none is entered here.
  const kinds = ["net", "mnt", "uts", "ipc", "pid", "user"];
  const podFds = new Map<string, number>();
  t.after(() => podFds.forEach((fd) => void closeSync(fd)));
  const podFd = (pod: string): number => {
    const fd = podFds.get(pod) ?? openSync(`/proc/self/ns/${kinds[podFds.size]}`, "r");
    podFds.set(pod, fd);
    return fd;
  };

  const bench = new ReconcilerBench();
  const controller = new AbortController();
  const client = new ZdsClient(
    {
      dial: (to) => SeqpacketConnection.dial(native, to),
      reconciler: bench.reconciler,
      clock: systemClock,
      random: systemRandom(),
      log: bench.log,
    },
    { path },
  );
  const ended = client.run(controller.signal);
  const signal = AbortSignal.timeout(5_000);
  let agent: SeqpacketConnection | undefined;
  const answers: string[] = [];
  for (const step of steps) {
    if (step.recv === "hello") {
      agent?.close();
      agent = await accept(listenFd, signal);
    }
    assert.ok(agent !== undefined);
    if (step.send !== undefined) {
      // Its delete is recorded just before the add that meets a taken port.
      if (step.pod === "server3" && bench.launcher.calls.includes(`stop ${SERVER3}`)) {
        if (!bench.launcher.failures.has(SERVER3)) bench.launcher.failures.set(SERVER3, [BIND]);
      }
      agent.send(Buffer.from(step.bytes, "hex"), step.fd ? podFd(step.pod ?? "") : undefined);
    } else {
      const packet = await agent.receive(signal);
      answers.push(Buffer.from(packet?.data ?? []).toString("hex"));
    }
  }
  assert.deepEqual(
    answers,
    steps.filter((step) => step.recv !== undefined).map((step) => step.bytes),
  );
  assert.equal(bench.workloads.filter((line) => line.endsWith(" Up")).length, 6);
  assert.equal(bench.isReady, true);
  agent?.close();
  controller.abort();
  await ended;
  await bench.reconciler.close();
});

async function accept(listenFd: number, signal: AbortSignal): Promise<SeqpacketConnection> {
  for (;;) {
    const fd = native.accept(listenFd);
    if (fd !== undefined) return new SeqpacketConnection(native, fd);
    signal.throwIfAborted();
    await new Promise<void>((resolve) => {
      const watch = native.watchReadable(listenFd, () => {
        watch.close();
        resolve();
      });
    });
  }
}
