import assert from "node:assert/strict";
import { test } from "node:test";
import { sleep, systemClock } from "../../src/runtime/clock.ts";
import { FakeClock } from "../support/fake-clock.ts";

test("the wall clock is the machine's and finer than milliseconds; the other never goes back", () => {
  // biome-ignore lint/style/noRestrictedGlobals: what the clock is measured by
  const { now } = Date;
  const before = now();
  const walls = Array.from({ length: 1000 }, () => systemClock.now());
  const first = walls[0] ?? 0;
  assert.ok(first > before - 5 && first < now() + 5, `${first}, not ${before} to ${now()}`);
  assert.ok(walls.some((at) => !Number.isInteger(at)));
  const ticks = Array.from({ length: 1000 }, () => systemClock.monotonic());
  assert.deepEqual(
    ticks,
    ticks.toSorted((a, b) => a - b),
  );
});

test("a timer fires once; a cancelled one never", async () => {
  const fired: string[] = [];
  systemClock.after(0, () => fired.push("cancelled")).cancel();
  await new Promise<void>((resolve) => {
    systemClock.after(1, () => fired.push("due"), true);
    systemClock.after(5, resolve, true);
  });
  assert.deepEqual(fired, ["due"]);
});

test("a delay longer than Node's longest timer does not fire at once", async () => {
  let fired = false;
  const timer = systemClock.after(2 ** 33, () => {
    fired = true;
  });
  await sleep(systemClock, 5);
  timer.cancel();
  assert.equal(fired, false);
});

test("a sleep ends in time, or with the signal's reason and without its timer", async () => {
  const clock = new FakeClock();
  const abort = new AbortController();
  const slept = sleep(clock, 100, abort.signal);
  await clock.advance(100);
  await slept;
  const aborted = sleep(clock, 100, abort.signal);
  abort.abort(new Error("enough"));
  await assert.rejects(aborted, { message: "enough" });
  await assert.rejects(sleep(clock, 100, abort.signal), { message: "enough" });
  assert.equal(clock.pendingCount, 0);
});
