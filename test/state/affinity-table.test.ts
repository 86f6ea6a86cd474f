import assert from "node:assert/strict";
import { test } from "node:test";
import { AffinityTable, affinityKey, makeAffinityMemory } from "../../src/state/affinity-table.ts";
import { FakeClock } from "../support/fake-clock.ts";

const key = affinityKey("shop/web", "10.0.0.1");

test("what one thread keeps, another finds, until so long after it was kept last", async () => {
  const clock = new FakeClock();
  const memory = makeAffinityMemory(64);
  const one = new AffinityTable(memory, clock);
  const other = new AffinityTable(memory, clock);
  assert.equal(other.find(key), undefined);
  one.keep(key, 7, 60);
  await clock.advance(59_000);
  assert.equal(other.find(key), 7);
  other.keep(key, 7, 60);
  await clock.advance(59_000);
  assert.equal(one.find(key), 7);
  await clock.advance(1000);
  assert.equal(one.find(key), undefined);
  one.keep(key, 8, 60);
  assert.equal(one.find(key), 8);
});

test("clients and services are told apart", () => {
  const table = new AffinityTable(makeAffinityMemory(64), new FakeClock());
  table.keep(key, 7, 60);
  assert.equal(table.find(affinityKey("shop/web", "10.0.0.2")), undefined);
  assert.equal(table.find(affinityKey("shop/cart", "10.0.0.1")), undefined);
});

test("when there is no room the one whose time is over first is forgotten", async () => {
  const clock = new FakeClock();
  // One bucket.
  const table = new AffinityTable(makeAffinityMemory(8), clock);
  const keys = Array.from({ length: 9 }, (_, i) => affinityKey("shop/web", `10.0.0.${i}`));
  for (const [i, one] of keys.slice(0, 8).entries()) table.keep(one, i, i === 3 ? 10 : 60);
  table.keep(keys[8] ?? key, 8, 60);
  assert.deepEqual(
    keys.map((one) => table.find(one)),
    [0, 1, 2, undefined, 4, 5, 6, 7, 8],
  );
});

test("a slot that two threads wrote at the same time is as if it were not there", () => {
  for (let word = 0; word < 5; word++) {
    const memory = makeAffinityMemory(8);
    const table = new AffinityTable(memory, new FakeClock());
    table.keep(key, 7, 60);
    const words = new Uint32Array(memory);
    const at = words.indexOf(key.first) + word;
    words[at] = (words[at] ?? 0) ^ 1;
    assert.equal(table.find(key), undefined);
    table.keep(key, 7, 60);
    assert.equal(table.find(key), 7);
  }
});
