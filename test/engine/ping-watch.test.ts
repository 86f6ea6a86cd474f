import assert from "node:assert/strict";
import { test } from "node:test";
import { PingWatch } from "../../src/engine/ping-watch.ts";
import { FakeClock } from "../support/fake-clock.ts";

function watch() {
  const clock = new FakeClock();
  const told: string[] = [];
  const pings = new PingWatch(
    { clock, ping: () => told.push("ping"), unanswered: () => told.push("unanswered") },
    { pingIntervalMs: 10_000, pingTimeoutMs: 20_000 },
  );
  return { clock, told, pings };
}

test("a peer that answers is asked again an interval later", async () => {
  const { clock, told, pings } = watch();
  await clock.advance(10_000);
  assert.deepEqual(told, ["ping"]);
  await clock.advance(19_999);
  pings.answered();
  await clock.advance(9999);
  assert.deepEqual(told, ["ping"]);
  await clock.advance(1);
  assert.deepEqual(told, ["ping", "ping"]);
});

test("a peer that does not is told once", async () => {
  const { clock, told } = watch();
  await clock.advance(30_000);
  assert.deepEqual(told, ["ping", "unanswered"]);
  assert.equal(clock.pendingCount, 0);
});

test("who is no longer watched leaves no timer", async () => {
  const { clock, told, pings } = watch();
  await clock.advance(10_000);
  pings.stop();
  pings.stop();
  assert.equal(clock.pendingCount, 0);
  assert.deepEqual(told, ["ping"]);
});
