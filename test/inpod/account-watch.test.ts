import assert from "node:assert/strict";
import { test } from "node:test";
import { AccountWatch } from "../../src/inpod/account-watch.ts";
import type { EnrolledWorkload } from "../../src/mesh/enrolled-workload.ts";
import { RecordedLauncher } from "./recorded-launcher.ts";

function pod(uid: string, serviceAccount: string, namespace = "default"): EnrolledWorkload {
  return { uid, name: uid, namespace, serviceAccount };
}

class Bench {
  readonly launcher: RecordedLauncher = new RecordedLauncher();
  readonly watch: AccountWatch;

  constructor(resident?: EnrolledWorkload) {
    this.watch = new AccountWatch(
      {
        launcher: this.launcher,
        lastLeft: ({ namespace, serviceAccount }) =>
          void this.launcher.calls.push(`last of ${namespace}/${serviceAccount}`),
      },
      resident,
    );
  }

  async start(...pods: readonly EnrolledWorkload[]): Promise<void> {
    for (const one of pods) await this.watch.startWorkload(one, -1);
    this.launcher.calls.length = 0;
  }
}

test("the last pod of an account is told of once it has stopped", async () => {
  const bench = new Bench();
  await bench.start(pod("u1", "cart"), pod("u2", "cart"));
  await bench.watch.stopWorkload("u1", 0).ended;
  await bench.watch.stopWorkload("u2", 0).ended;
  assert.deepEqual(bench.launcher.calls, ["stop u1", "stop u2", "last of default/cart"]);
});

test("an account of the same name in another namespace is another", async () => {
  const bench = new Bench();
  await bench.start(pod("u1", "cart"), pod("u2", "cart", "shop"), pod("u3", "web"));
  await bench.watch.stopWorkload("u1", 0).ended;
  assert.deepEqual(bench.launcher.calls, ["stop u1", "last of default/cart"]);
});

test("a pod that starts while the last one stops keeps the account", async () => {
  const bench = new Bench();
  await bench.start(pod("u1", "cart"));
  const stopping = Promise.withResolvers<void>();
  bench.launcher.stopGate = stopping.promise;
  const stopped = bench.watch.stopWorkload("u1", 0).ended;
  await bench.watch.startWorkload(pod("u2", "cart"), -1);
  stopping.resolve();
  await stopped;
  assert.deepEqual(bench.launcher.calls, ["start u2", "stop u1"]);
});

test("the account of the daemon's own pod stays", async () => {
  const bench = new Bench(pod("self", "ztunnel", "istio-system"));
  await bench.start(pod("u1", "ztunnel", "istio-system"));
  await bench.watch.stopWorkload("u1", 0).ended;
  assert.deepEqual(bench.launcher.calls, ["stop u1"]);
});

test("a pod that never ran has no account to leave", async () => {
  const bench = new Bench();
  bench.launcher.failures.set("u1", ["failed to bind"]);
  await assert.rejects(bench.start(pod("u1", "cart")));
  await bench.watch.stopWorkload("u1", 0).ended;
  assert.deepEqual(bench.launcher.calls, ["start u1 failed", "stop u1"]);
});
