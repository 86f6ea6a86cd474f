import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { measureLoopDelay } from "../../src/runtime/loop-delay.ts";

const BLOCKED_MS = 100;
/** Several wake-ups of the measurement. */
const CALM_MS = 80;

test("tells how long something kept the loop, once", async () => {
  const loopDelay = measureLoopDelay();
  await delay(CALM_MS);
  loopDelay();
  // The first wake-up after that is where the next interval begins.
  await delay(CALM_MS);
  const until = performance.now() + BLOCKED_MS;
  while (performance.now() < until);
  await delay(CALM_MS);
  const blocked = loopDelay();
  // The wake-up was due at most one interval after the block began.
  assert.ok(blocked.maxMs > BLOCKED_MS - 30, `${blocked.maxMs} ms`);
  assert.ok(blocked.p50Ms <= blocked.p99Ms && blocked.p99Ms <= blocked.p999Ms);
  assert.ok(blocked.p999Ms <= blocked.maxMs * 1.01);
  assert.deepEqual(loopDelay(), { p50Ms: 0, p99Ms: 0, p999Ms: 0, maxMs: 0 });
});
