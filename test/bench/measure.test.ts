import assert from "node:assert/strict";
import { test } from "node:test";
import { formatBenches, formatMeasures, pairedRatio, Samples } from "../../bench/measure.ts";

const NAME = { name: "bulk", unit: "Gbit/s" };

/** Each sample as value, steal share. */
function measure(system: string, ...values: readonly (readonly [number, number])[]) {
  const samples = new Samples();
  for (const [value, stealShare] of values)
    samples.note({ ...NAME, system }, { value, stealShare });
  const [only] = samples.measures();
  assert.ok(only);
  return only;
}

test("a disturbed sample is left out of the median while others remain, and marked", () => {
  const { value, lowest, highest, isDisturbed } = measure("a", [10, 0], [90, 0.11], [20, 0.1]);
  assert.deepEqual(
    { value, lowest, highest, isDisturbed },
    {
      value: 15,
      lowest: 10,
      highest: 20,
      isDisturbed: true,
    },
  );
  const { value: all, isDisturbed: isMarked } = measure("a", [10, 0.5], [20, 0.5]);
  assert.deepEqual([all, isMarked], [15, true]);
});

test("every sample is kept with its steal share, in its order", () => {
  assert.deepEqual(measure("a", [10, 0], [90, 0.5]).samples, [
    { value: 10, stealShare: 0 },
    { value: 90, stealShare: 0.5 },
  ]);
});

test("a ratio is the median of the ratios of neighbours, so that a slow minute cancels out", () => {
  const ours = measure("a", [10, 0], [2, 0], [8, 0]);
  const theirs = measure("b", [20, 0], [4, 0], [4, 0]);
  assert.equal(pairedRatio(ours, theirs), 0.5);
});

test("a pair with a disturbed half is left out of the ratio while others remain", () => {
  const ours = measure("a", [10, 0], [9, 0.3], [9, 0]);
  assert.equal(pairedRatio(ours, measure("b", [20, 0], [1, 0], [1, 0.3])), 0.5);
});

test("a ratio to nothing is none", () => {
  assert.equal(pairedRatio(measure("a", [1, 0]), measure("b", [0, 0])), undefined);
});

test("the table has a column for each system and our ratio to each peer, but not to no proxy", () => {
  const measures = ["direct", "ztunnel", "Envoy"].map((system, i) => measure(system, [i + 1, 0]));
  assert.equal(
    formatMeasures(measures),
    [
      "|              | direct | ztunnel | Envoy | ÷ Envoy |",
      "| ------------ | -----: | ------: | ----: | ------: |",
      "| bulk, Gbit/s |      1 |       2 |     3 |    0.67 |",
    ].join("\n"),
  );
});

test("all benches share one table, where what belongs to no system is ours", () => {
  const route = { name: "route", unit: "µs", value: 1234.5, lowest: 1, highest: 2000 };
  assert.equal(
    formatBenches([
      { bench: "path/bulk", measures: [measure("direct", [1, 0]), measure("ztunnel", [2, 0.2])] },
      { bench: "proxy/route", measures: [route] },
    ]),
    [
      "|                 | direct |       ztunnel |",
      "| --------------- | -----: | ------------: |",
      "| **path/bulk**   |        |               |",
      "| bulk, Gbit/s    |      1 |            2* |",
      "| **proxy/route** |        |               |",
      "| route, µs       |        | 1235 [1-2000] |",
    ].join("\n"),
  );
});
