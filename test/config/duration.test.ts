import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseDuration } from "../../src/config/duration.ts";

const cases: readonly (readonly [text: string, ms: number | undefined])[] = [
  ["30", 30_000],
  ["0", 0],
  ["24h", 86_400_000],
  ["90s", 90_000],
  ["250ms", 250],
  ["1500us", 1.5],
  ["1500µs", 1.5],
  ["2000000ns", 2],
  ["1m30s", 90_000],
  ["1m 30s", 90_000],
  ["1m30", 90_000],
  ["1m+30", 90_000],
  ["1m + 30s + 5", 95_000],
  ["1m*10", 600_000],
  ["1m*1m", 3_600_000],
  ["2 hours", 7_200_000],
  ["1hr", 3_600_000],
  ["3min", 180_000],
  ["1d", 86_400_000],
  ["2w", 1_209_600_000],
  ["1mon", 2_592_000_000],
  ["1year", 31_536_000_000],
  ["5M", 300_000],
  ["", undefined],
  [" ", undefined],
  ["soon", undefined],
  ["s", undefined],
  ["-1s", undefined],
  ["1.5s", undefined],
  ["1x", undefined],
  ["30 1m", undefined],
  ["1m+", undefined],
  ["*1m", undefined],
  ["1m+1m*2", undefined],
  ["99999999999999999999y", undefined],
];

for (const [text, ms] of cases) {
  test(`the duration '${text}' is ${ms === undefined ? "refused" : `${ms} ms`}`, () => {
    assert.equal(parseDuration(text), ms);
  });
}

test("no text makes the duration parser throw or answer something odd", () => {
  const text = fc.oneof(
    fc.string(),
    fc.string({ unit: fc.constantFrom(..."0129smhdwyonu+* .-µ") }),
  );
  fc.assert(
    fc.property(text, (candidate) => {
      const ms = parseDuration(candidate);
      assert.ok(ms === undefined || (Number.isFinite(ms) && ms >= 0));
    }),
  );
});
