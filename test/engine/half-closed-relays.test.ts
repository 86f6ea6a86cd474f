import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { HalfClosedRelays, type QuietRelay } from "../../src/engine/half-closed-relays.ts";
import { FakeClock } from "../support/fake-clock.ts";

const IDLE_MS = 8000;

class FakeRelay implements QuietRelay {
  readonly #relays: HalfClosedRelays;
  isHalfClosed = true;
  movedBytes = 0;
  expired: string[] = [];

  constructor(relays: HalfClosedRelays) {
    this.#relays = relays;
  }

  expire(error: Error): void {
    this.expired.push(error.message);
    this.#relays.delete(this);
  }
}

describe("half-closed relays", () => {
  test("are ended when nothing moves: not before the limit, not a quarter after it", async () => {
    const clock = new FakeClock();
    const relays = new HalfClosedRelays(clock, IDLE_MS);
    const relay = new FakeRelay(relays);
    await clock.advance(IDLE_MS);
    relays.add(relay);
    await clock.advance(IDLE_MS - 1);
    assert.deepEqual(relay.expired, []);
    await clock.advance(IDLE_MS / 4 + 1);
    assert.deepEqual(relay.expired, ["half-closed and idle for 8s"]);
    await clock.advance(IDLE_MS);
    assert.equal(clock.pendingCount, 0);
  });

  test("live on as long as a byte moves now and then", async () => {
    const clock = new FakeClock();
    const relays = new HalfClosedRelays(clock, IDLE_MS);
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

  test("that are open may be silent, and have the whole limit from their first end on", async () => {
    const clock = new FakeClock();
    const relays = new HalfClosedRelays(clock, IDLE_MS);
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
    const relays = new HalfClosedRelays(clock, IDLE_MS);
    const relay = new FakeRelay(relays);
    relays.add(relay);
    relays.delete(relay);
    await clock.advance(2 * IDLE_MS);
    assert.deepEqual(relay.expired, []);
    assert.equal(clock.pendingCount, 0);
  });
});
