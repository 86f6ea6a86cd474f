import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { systemClock } from "../../src/runtime/clock.ts";
import { type CallNode, ThreadProfiler } from "../../src/runtime/thread-profiler.ts";

/** Of the function and of all that it calls. */
function totalOf(nodes: readonly CallNode[], functionName: string): number {
  const below = (node: CallNode | undefined): boolean =>
    node !== undefined && (node.functionName === functionName || below(nodes[node.caller]));
  return nodes.filter(below).reduce((sum, { value }) => sum + value, 0);
}

test("a CPU profile finds the function that keeps the thread busy", async () => {
  const profiler = new ThreadProfiler(systemClock);
  const profile = profiler.run({ kind: "cpu", durationMs: 400, frequencyHz: 1000 });
  // Sampling begins a moment after it was asked for, and may end late: spin all the while.
  let isOver = false;
  void profile.finally(() => {
    isOver = true;
  });
  let spinningMs = 0;
  while (!isOver) {
    spinningMs += spin(20);
    await new Promise((resolve) => systemClock.after(0, () => resolve(undefined), true));
  }
  const nodes = await profile;
  const spunMs = totalOf(nodes, "spin") / 1e6;
  const allMs = totalOf(nodes, "(root)") / 1e6;
  assert.ok(spunMs > allMs / 2, `${spunMs} of ${allMs} ms`);
  assert.ok(spunMs < 1.5 * spinningMs, `${spunMs} of ${spinningMs} ms`);
  const spinning = nodes.find(({ functionName }) => functionName === "spin");
  assert.match(spinning?.url ?? "", /thread-profiler\.test\.ts$/);
});

test("a thread that waits for events uses no CPU", async () => {
  const source = `
    import { parentPort } from "node:worker_threads";
    import { systemClock } from ${JSON.stringify(import.meta.resolve("../../src/runtime/clock.ts"))};
    import { ThreadProfiler } from ${JSON.stringify(import.meta.resolve("../../src/runtime/thread-profiler.ts"))};
    const request = { kind: "cpu", durationMs: 1500, frequencyHz: 1000 };
    parentPort.postMessage(await new ThreadProfiler(systemClock).run(request));`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
  const [nodes] = (await once(worker, "message")) as [readonly CallNode[]];
  const usedMs = totalOf(nodes, "(root)") / 1e6;
  assert.ok(usedMs < 750, `${usedMs} ms`);
});

test("a heap profile finds who made what is still there, while sampling only", async () => {
  const profiler = new ThreadProfiler(systemClock);
  assert.deepEqual(await profiler.run({ kind: "heap" }), []);
  await profiler.run({ kind: "heap-sampling", active: true });
  const hoarded = hoard();
  const bytes = totalOf(await profiler.run({ kind: "heap" }), "hoard");
  assert.ok(bytes > 2e6 && bytes < 40e6, `${bytes} bytes for ${hoarded.length} objects`);
  await profiler.run({ kind: "heap-sampling", active: false });
  assert.deepEqual(await profiler.run({ kind: "heap" }), []);
});

/** @returns how long it took; on a busy machine that is more. */
function spin(ms: number): number {
  const startedAt = performance.now();
  while (performance.now() < startedAt + ms);
  return performance.now() - startedAt;
}

function hoard(): readonly object[] {
  return Array.from({ length: 100_000 }, (_, index) => ({ index, text: `number ${index}` }));
}
