import assert from "node:assert/strict";
import { test } from "node:test";
import { compareRuns } from "../../bench/compare.ts";
import type { BenchMeasures } from "../../bench/measure.ts";
import { judge, type Target } from "../../bench/targets.ts";

const KEY = { bench: "path/x", name: "cost", unit: "s", system: "ztunnel" };
const RATIO: Target = {
  what: "cost ÷ Envoy's",
  figures: [KEY],
  per: { ...KEY, system: "Envoy" },
  bound: { atMost: 0.7 },
  stretch: 0.5,
};

function run(costs: Readonly<Record<string, number>>): readonly BenchMeasures[] {
  const measures = Object.entries(costs).map(([system, value]) => ({
    name: "cost",
    unit: "s",
    system,
    value,
    lowest: value,
    highest: value,
  }));
  return [{ bench: "path/x", measures }];
}

for (const { ours, verdict } of [
  { ours: 5, verdict: "stretch met" },
  { ours: 7, verdict: "met" },
  { ours: 7.001, verdict: "not met" },
]) {
  test(`${ours} of 10 where 0.7 is allowed and 0.5 hoped for: ${verdict}`, () => {
    const [one] = judge(run({ ztunnel: ours, Envoy: 10 }), [RATIO]);
    assert.deepEqual(one, { what: RATIO.what, bound: "≤ 0.7 (0.5)", value: ours / 10, verdict });
  });
}

test("a lower bound is met from above", () => {
  const target: Target = { what: "rate", figures: [KEY], bound: { atLeast: 3 } };
  const verdicts = [2.9, 3].map((rate) => judge(run({ ztunnel: rate }), [target])[0]?.verdict);
  assert.deepEqual(verdicts, ["not met", "met"]);
});

test("of several figures the worst counts, and none may be missing", () => {
  const figures = ["ztunnel", "Envoy"].map((system) => ({ ...KEY, system }));
  const [one] = judge(run({ ztunnel: 2, Envoy: 4 }), [{ what: "", figures, bound: { atMost: 3 } }]);
  assert.deepEqual([one?.value, one?.verdict], [4, "not met"]);
  const [other] = judge(run({ ztunnel: 2 }), [{ what: "", figures, bound: { atMost: 3 } }]);
  assert.equal(other?.verdict, "not measured");
});

test("a target is named as not measured when the figure or its peer is missing", () => {
  for (const costs of [{ ztunnel: 5 }, { Envoy: 5 }]) {
    const [one] = judge(run(costs), [RATIO]);
    assert.deepEqual(one, { what: RATIO.what, bound: "≤ 0.7 (0.5)", verdict: "not measured" });
  }
});

test("two runs are compared figure by figure, with an arrow beyond the noise", () => {
  const text = compareRuns(
    run({ ztunnel: 10, Envoy: 10 }),
    run({ ztunnel: 9, Envoy: 10.4, new: 1 }),
  );
  assert.deepEqual(
    text
      .split("\n")
      .slice(2)
      .map((line) => line.replaceAll(/ +/g, " ")),
    [
      "| path/x, ztunnel: cost, s | 10 | 9 | 0.90 ↓ |",
      "| path/x, Envoy: cost, s | 10 | 10.4 | 1.04 |",
      "| path/x, new: cost, s | | 1 | |",
    ],
  );
});
