import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff } from "../../src/runtime/backoff.ts";
import type { Random } from "../../src/runtime/random.ts";
import { fixedRandom } from "../support/mesh-fixture.ts";

function delays(random: Random, jitter: number, count: number): number[] {
  const backoff = new Backoff(random, { firstMs: 100, maxMs: 1000, jitter });
  return Array.from({ length: count }, () => backoff.next());
}

test("delays double up to the limit and stay there", () => {
  assert.deepEqual(delays(fixedRandom(0.9), 0, 6), [100, 200, 400, 800, 1000, 1000]);
});

test("a reset begins anew", () => {
  const backoff = new Backoff(fixedRandom(), { firstMs: 100, maxMs: 1000, jitter: 0 });
  backoff.next();
  backoff.next();
  backoff.reset();
  assert.deepEqual([backoff.next(), backoff.next()], [100, 200]);
});

for (const [unit, expected] of [
  [0, [50, 100, 200]],
  [0.5, [100, 200, 400]],
  [0.75, [125, 250, 500]],
] as const) {
  test(`a draw of ${unit} moves each delay within its share and never adds up`, () => {
    assert.deepEqual(delays(fixedRandom(unit), 0.5, 3), expected);
  });
}
