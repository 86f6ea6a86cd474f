import assert from "node:assert/strict";
import { test } from "node:test";
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
  // Sampling begins a moment after it was asked for.
  await new Promise((resolve) => systemClock.after(100, () => resolve(undefined), true));
  spin(150);
  const nodes = await profile;
  const spunMs = totalOf(nodes, "spin") / 1e6;
  const allMs = totalOf(nodes, "(root)") / 1e6;
  assert.ok(spunMs > allMs / 2 && spunMs <= 200, `${spunMs} of ${allMs} ms`);
  const spinning = nodes.find(({ functionName }) => functionName === "spin");
  assert.match(spinning?.url ?? "", /thread-profiler\.test\.ts$/);
  assert.ok(totalOf(nodes, "(idle)") === 0, "time without work is no use of a CPU");
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

function spin(ms: number): number {
  let turns = 0;
  for (const endsAt = performance.now() + ms; performance.now() < endsAt; ) turns++;
  return turns;
}

function hoard(): readonly object[] {
  return Array.from({ length: 100_000 }, (_, index) => ({ index, text: `number ${index}` }));
}
