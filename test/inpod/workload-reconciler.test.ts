import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/fake-clock.ts";
import { DRAIN_MS, FakeNetns, ReconcilerBench } from "./recorded-launcher.ts";

const POD = { name: "server", namespace: "default", serviceAccount: "server" };
const BIND = "failed to bind to address [::]:15006: Address already in use (os error 98)";

async function startedBench(): Promise<ReconcilerBench> {
  const bench = new ReconcilerBench();
  await bench.reconciler.conversationStarted();
  return bench;
}

async function syncedBench(...uids: string[]): Promise<ReconcilerBench> {
  const bench = await startedBench();
  for (const uid of uids) await bench.reconciler.add(uid, POD, new FakeNetns(`ns-${uid}`));
  await bench.reconciler.snapshotSent();
  bench.launcher.calls.length = 0;
  return bench;
}

test("an added pod runs when its add has settled", async () => {
  const bench = await startedBench();
  await bench.reconciler.add("u1", POD, new FakeNetns("ns"));
  assert.deepEqual(bench.launcher.calls, ["start u1"]);
  assert.deepEqual(bench.workloads, ["u1 Up"]);
  assert.deepEqual(bench.counted, { started: 1, stopped: 0, active: 1, pending: 0, draining: 0 });
});

test("the process is ready only once the snapshot is complete", async () => {
  const bench = await startedBench();
  await bench.reconciler.add("u1", POD, new FakeNetns("ns"));
  assert.equal(bench.isReady, false);
  await bench.reconciler.snapshotSent();
  assert.equal(bench.isReady, true);
});

test("a second add with the same namespace starts nothing and closes its descriptor", async () => {
  const bench = await startedBench();
  const first = new FakeNetns("ns");
  const second = new FakeNetns("ns");
  await bench.reconciler.add("u1", POD, first);
  await bench.reconciler.add("u1", POD, second);
  assert.deepEqual(bench.launcher.calls, ["start u1"]);
  assert.deepEqual([first.closeCount, second.closeCount], [0, 1]);
});

test("an add with another namespace ends the old instance before the new one starts", async () => {
  const bench = await startedBench();
  const old = new FakeNetns("old");
  await bench.reconciler.add("u1", POD, old);
  await bench.reconciler.add("u1", POD, new FakeNetns("new"));
  await settle();
  assert.deepEqual(bench.launcher.calls, ["start u1", "stop u1", "start u1"]);
  assert.equal(old.closeCount, 1);
  assert.deepEqual(bench.counted, { started: 2, stopped: 1, active: 1, pending: 0, draining: 0 });
});

test("an add without a workload is a protocol error and closes its descriptor", async () => {
  const bench = await startedBench();
  const netns = new FakeNetns("ns");
  await assert.rejects(bench.reconciler.add("u1", undefined, netns), { code: "protocol" });
  assert.equal(netns.closeCount, 1);
  assert.deepEqual(bench.workloads, []);
});

test("a pod that fails to start is pending and retried every five seconds", async () => {
  const bench = await startedBench();
  bench.launcher.failures.set("u1", [BIND, BIND]);
  await assert.rejects(bench.reconciler.add("u1", POD, new FakeNetns("ns")), {
    code: "start",
    message: BIND,
  });
  await bench.reconciler.snapshotSent();
  assert.deepEqual(bench.workloads, ["u1 Pending"]);
  assert.equal(bench.counted.pending, 1);
  assert.equal(bench.isReady, false);
  await bench.clock.advance(4_999);
  assert.deepEqual(bench.launcher.calls, ["start u1 failed"]);
  await bench.clock.advance(1);
  assert.deepEqual(bench.launcher.calls, ["start u1 failed", "start u1 failed"]);
  await bench.clock.advance(5_000);
  assert.deepEqual(bench.workloads, ["u1 Up"]);
  assert.equal(bench.counted.pending, 0);
  assert.equal(bench.isReady, true);
  assert.equal(bench.clock.pendingCount, 0);
});

test("a failed add after the first snapshot leaves the process ready", async () => {
  const bench = await syncedBench();
  bench.launcher.failures.set("u1", [BIND]);
  await assert.rejects(bench.reconciler.add("u1", POD, new FakeNetns("ns")));
  assert.equal(bench.isReady, true);
  assert.equal(bench.counted.pending, 1);
});

test("the log tells a failed start as the original does", async () => {
  const bench = await startedBench();
  bench.launcher.failures.set("u1", [BIND, BIND]);
  await assert.rejects(bench.reconciler.add("u1", POD, new FakeNetns("ns")));
  await bench.clock.advance(5_000);
  assert.deepEqual(bench.lines, [
    'inpod::statemanager info pod received, starting proxy uid="u1" name="server" namespace="default"',
    'inpod::workloadmanager error failed to start proxy: Bind([::]:15006, Os { code: 98, kind: AddrInUse, message: "Address already in use" }) uid=u1',
    'inpod::workloadmanager info scheduling retry uids=["u1"]',
    'inpod::statemanager info retrying workload uid="u1"',
    `inpod::statemanager info retrying workload failed: ${BIND} uid="u1"`,
    'inpod::workloadmanager info scheduling retry uids=["u1"]',
  ]);
});

test("an add of a pending pod with another namespace replaces the pending one", async () => {
  const bench = await startedBench();
  bench.launcher.failures.set("u1", [BIND]);
  const broken = new FakeNetns("broken");
  await assert.rejects(bench.reconciler.add("u1", POD, broken));
  await bench.reconciler.add("u1", POD, new FakeNetns("good"));
  assert.deepEqual(bench.workloads, ["u1 Up"]);
  assert.equal(broken.closeCount, 1);
  await bench.clock.advance(5_000);
  assert.deepEqual(bench.launcher.calls, ["start u1 failed", "start u1"]);
});

test("a pending pod that is deleted is not retried and completes readiness", async () => {
  const bench = await startedBench();
  bench.launcher.failures.set("u1", [BIND]);
  const netns = new FakeNetns("ns");
  await assert.rejects(bench.reconciler.add("u1", POD, netns));
  await bench.reconciler.snapshotSent();
  await bench.reconciler.del("u1");
  assert.equal(netns.closeCount, 1);
  assert.equal(bench.isReady, true);
  await bench.clock.advance(5_000);
  assert.deepEqual(bench.launcher.calls, ["start u1 failed"]);
});

test("a delete before the snapshot is carried out by the snapshot", async () => {
  const bench = await startedBench();
  await bench.reconciler.add("u1", POD, new FakeNetns("ns"));
  await bench.reconciler.del("u1");
  await settle();
  assert.deepEqual(bench.workloads, ["u1 Up"]);
  await bench.reconciler.snapshotSent();
  await settle();
  assert.deepEqual(bench.launcher.calls, ["start u1", "stop u1"]);
  assert.deepEqual(bench.workloads, []);
});

test("a delete after the snapshot settles before the workload has stopped", async () => {
  const bench = await startedBench();
  const netns = new FakeNetns("ns");
  await bench.reconciler.add("u1", POD, netns);
  await bench.reconciler.snapshotSent();
  const gate = Promise.withResolvers<void>();
  bench.launcher.stopGate = gate.promise;
  await bench.reconciler.del("u1");
  await settle();
  assert.deepEqual(bench.launcher.calls, ["start u1", "stop u1"]);
  assert.equal(bench.launcher.drainMs, DRAIN_MS);
  assert.deepEqual(bench.reconciler.workloads(), [
    { workload: { uid: "u1", ...POD }, state: "Draining", deadline: bench.clock.now() + DRAIN_MS },
  ]);
  assert.deepEqual(bench.counted, { started: 1, stopped: 1, active: 0, pending: 0, draining: 1 });
  assert.deepEqual([bench.isReady, netns.closeCount], [true, 0]);
  assert.equal(bench.reconciler.netnsFd("u1"), undefined);
  gate.resolve();
  await settle();
  assert.deepEqual(bench.workloads, []);
  assert.deepEqual([bench.counted.draining, netns.closeCount], [0, 1]);
});

test("a delete of an unknown pod is fine", async () => {
  const bench = await syncedBench();
  await bench.reconciler.del("nobody");
  assert.deepEqual(bench.launcher.calls, []);
});

test("a pod added again waits for its ports, not for its old connections", async () => {
  const bench = await syncedBench("u1");
  const gate = Promise.withResolvers<void>();
  const connections = Promise.withResolvers<void>();
  bench.launcher.portsGate = gate.promise;
  bench.launcher.stopGate = connections.promise;
  await bench.reconciler.del("u1");
  const again = bench.reconciler.add("u1", POD, new FakeNetns("ns-u1"));
  await settle();
  assert.deepEqual(bench.launcher.calls, []);
  gate.resolve();
  await again;
  assert.deepEqual(bench.launcher.calls, ["stop u1", "start u1"]);
  assert.deepEqual(bench.workloads, ["u1 Up"]);
  assert.deepEqual([bench.counted.active, bench.counted.draining], [1, 1]);

  await bench.reconciler.del("u1");
  assert.equal(bench.counted.draining, 2);
  assert.deepEqual(bench.workloads, ["u1 Draining"]);
  await bench.reconciler.add("u1", POD, new FakeNetns("another"));
  assert.deepEqual(bench.workloads, ["u1 Up"]);
  connections.resolve();
  await settle();
  assert.deepEqual([bench.counted.active, bench.counted.draining], [1, 0]);
  assert.deepEqual(bench.workloads, ["u1 Up"]);
});

test("a new snapshot stops what was neither added nor kept", async () => {
  const bench = await syncedBench("u1", "u2", "u3");
  await bench.reconciler.conversationEnded();
  await bench.reconciler.conversationStarted();
  await bench.reconciler.add("u1", POD, new FakeNetns("ns-u1"));
  await bench.reconciler.keep("u2");
  assert.deepEqual(bench.workloads, ["u1 Up", "u2 Up", "u3 Up"]);
  await bench.reconciler.snapshotSent();
  await settle();
  assert.deepEqual(bench.workloads, ["u1 Up", "u2 Up"]);
  assert.deepEqual(bench.launcher.calls, ["stop u3"]);
});

test("losing the agent unreadies the process and stops nothing", async () => {
  const bench = await syncedBench("u1");
  await bench.reconciler.conversationEnded();
  assert.equal(bench.isReady, false);
  assert.deepEqual(bench.workloads, ["u1 Up"]);
  await bench.reconciler.conversationStarted();
  await bench.reconciler.keep("u1");
  await bench.reconciler.snapshotSent();
  assert.equal(bench.isReady, true);
  assert.deepEqual(bench.launcher.calls, []);
});

test("pending pods are forgotten when a new conversation starts", async () => {
  const bench = await startedBench();
  bench.launcher.failures.set("u1", [BIND]);
  const netns = new FakeNetns("ns");
  await assert.rejects(bench.reconciler.add("u1", POD, netns));
  await bench.reconciler.conversationEnded();
  await bench.clock.advance(20_000);
  await bench.reconciler.conversationStarted();
  assert.equal(netns.closeCount, 1);
  assert.deepEqual(bench.workloads, []);
  assert.deepEqual(bench.launcher.calls, ["start u1 failed"]);
});

test("keep after the snapshot is a protocol error", async () => {
  const bench = await syncedBench("u1");
  await assert.rejects(bench.reconciler.keep("u1"), {
    code: "protocol",
    message: "pod keep received after snapshot",
  });
});

test("a second snapshot in one conversation is a protocol error", async () => {
  const bench = await syncedBench("u1");
  await assert.rejects(bench.reconciler.snapshotSent(), { code: "protocol" });
  assert.deepEqual(bench.workloads, ["u1 Up"]);
});

test("closing stops everything and closes every namespace once", async () => {
  const bench = await startedBench();
  const up = new FakeNetns("up");
  const pending = new FakeNetns("pending");
  bench.launcher.failures.set("u2", [BIND]);
  await bench.reconciler.add("u1", POD, up);
  await assert.rejects(bench.reconciler.add("u2", POD, pending));
  await bench.reconciler.close();
  assert.deepEqual([up.closeCount, pending.closeCount], [1, 1]);
  assert.deepEqual(bench.launcher.calls, ["start u1", "start u2 failed", "stop u1"]);
  assert.equal(bench.clock.pendingCount, 0);
});
