import assert from "node:assert/strict";
import { test } from "node:test";
import { DialBackoff } from "../../src/hbone/dial-backoff.ts";
import { FakeClock } from "../support/fake-clock.ts";

test("the delay doubles from 10 ms to the limit, for each peer on its own", async () => {
  const clock = new FakeClock();
  const backoff = new DialBackoff(clock, 100);
  assert.equal(backoff.delayMs("a"), 0);
  for (const delayMs of [10, 20, 40, 80, 100, 100]) {
    backoff.failed("a");
    assert.equal(backoff.delayMs("a"), delayMs);
    assert.equal(backoff.delayMs("b"), 0);
    await clock.advance(delayMs - 1);
    assert.equal(backoff.delayMs("a"), 1);
    await clock.advance(1);
    assert.equal(backoff.delayMs("a"), 0);
  }
});

test("an answer, or a while without failures, begins anew", async () => {
  const clock = new FakeClock();
  const backoff = new DialBackoff(clock, 100);
  for (const forget of [async () => backoff.succeeded("a"), () => clock.advance(200)]) {
    backoff.failed("a");
    backoff.failed("a");
    await forget();
    assert.equal(clock.pendingCount, 0);
    backoff.failed("a");
    assert.equal(backoff.delayMs("a"), 10);
  }
  backoff.close();
  assert.equal(clock.pendingCount, 0);
});
