import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type QuietLimit, type QuietRelay, QuietRelays } from "../../src/engine/quiet-relays.ts";
import { FakeClock } from "../support/fake-clock.ts";

const IDLE_MS = 8000;
const HALF_CLOSED: QuietLimit = { kind: "half-closed", quietMs: IDLE_MS };
const IDLE: QuietLimit = { kind: "idle", quietMs: IDLE_MS };

class FakeRelay implements QuietRelay {
  readonly #relays: QuietRelays;
  isHalfClosed = true;
  movedBytes = 0;
  expired: string[] = [];

  constructor(relays: QuietRelays) {
    this.#relays = relays;
  }

  expire(error: Error): void {
    this.expired.push(error.message);
    this.#relays.delete(this);
  }
}

describe("quiet relays", () => {
  for (const [limit, isHalfClosed, said] of [
    [HALF_CLOSED, true, "half-closed and idle for 8s"],
    [IDLE, false, "idle for 8s"],
    [IDLE, true, "idle for 8s"],
  ] as const) {
    test(`are ${said}: ended not before the limit, not a quarter after it`, async () => {
      const clock = new FakeClock();
      const relays = new QuietRelays(clock, limit);
      const relay = new FakeRelay(relays);
      relay.isHalfClosed = isHalfClosed;
      await clock.advance(IDLE_MS);
      relays.add(relay);
      await clock.advance(IDLE_MS - 1);
      assert.deepEqual(relay.expired, []);
      await clock.advance(IDLE_MS / 4 + 1);
      assert.deepEqual(relay.expired, [said]);
      await clock.advance(IDLE_MS);
      assert.equal(clock.pendingCount, 0);
    });
  }

  test("live on as long as a byte moves now and then", async () => {
    const clock = new FakeClock();
    const relays = new QuietRelays(clock, HALF_CLOSED);
    const [talking, quiet] = [new FakeRelay(relays), new FakeRelay(relays)];
    relays.add(talking);
    relays.add(quiet);
    for (let i = 0; i < 5; i++) {
      await clock.advance(IDLE_MS / 2);
      talking.movedBytes++;
    }
    assert.deepEqual([talking.expired.length, quiet.expired.length], [0, 1]);
    relays.close();
    assert.equal(clock.pendingCount, 0);
  });

  test("that are open may be silent where only half-closed ones may not, and have the whole limit from their first end on", async () => {
    const clock = new FakeClock();
    const relays = new QuietRelays(clock, HALF_CLOSED);
    const relay = new FakeRelay(relays);
    relay.isHalfClosed = false;
    relays.add(relay);
    await clock.advance(3 * IDLE_MS);
    relay.isHalfClosed = true;
    await clock.advance(IDLE_MS);
    assert.deepEqual(relay.expired, []);
    await clock.advance(IDLE_MS / 4);
    assert.equal(relay.expired.length, 1);
  });

  test("that have ended are forgotten", async () => {
    const clock = new FakeClock();
    const relays = new QuietRelays(clock, HALF_CLOSED);
    const relay = new FakeRelay(relays);
    relays.add(relay);
    relays.delete(relay);
    await clock.advance(2 * IDLE_MS);
    assert.deepEqual(relay.expired, []);
    assert.equal(clock.pendingCount, 0);
  });
});
