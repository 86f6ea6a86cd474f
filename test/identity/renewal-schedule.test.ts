import assert from "node:assert/strict";
import { test } from "node:test";
import { RetrySchedule, renewalAt } from "../../src/identity/renewal-schedule.ts";
import type { Random } from "../../src/runtime/random.ts";

const renewals: readonly (readonly [
  what: string,
  notBeforeAt: number,
  notAfterAt: number,
  receivedAt: number,
  expected: number,
])[] = [
  ["half of its life", 1000, 3000, 0, 2000],
  ["half of what is left when it comes dated back", -120_000, 120_000, 0, 60_000],
  ["its end when it ends before it begins", 3000, 1000, 0, 1000],
  ["its end when it has ended", 0, 1000, 2000, 1000],
  ["at once without a beginning", Number.NaN, 1000, 0, 0],
  ["at once without an end", 1000, Number.POSITIVE_INFINITY, 0, 0],
];
for (const [what, notBeforeAt, notAfterAt, receivedAt, expected] of renewals) {
  test(`a certificate is renewed at ${what}`, () => {
    assert.equal(renewalAt({ notBeforeAt, notAfterAt }, receivedAt, random(0.5)), expected);
  });
}

test("renewals of one moment are spread over a tenth of the life", () => {
  const validity = { notBeforeAt: 0, notAfterAt: 1000 };
  assert.equal(renewalAt(validity, 0, random(0)), 450);
  assert.ok(Math.abs(renewalAt(validity, 0, random(0.9999)) - 550) < 1);
});

function random(unit: number): Random {
  return { unit: () => unit, hex: () => assert.fail("no bytes are drawn") };
}

test("retries back off from one second to 150", () => {
  const schedule = new RetrySchedule(random(0.5), 0);
  const delays = Array.from({ length: 10 }, () => schedule.next(0));
  assert.deepEqual(
    delays.map((ms) => ms / 1000),
    [1, 2, 4, 8, 16, 32, 64, 128, 150, 150],
  );
});

test("each retry is up to a fifth sooner or later", () => {
  assert.equal(new RetrySchedule(random(0), 0).next(0), 800);
  assert.ok(new RetrySchedule(random(0.999), 0).next(0) > 1199);
});

test("after fifteen minutes retries come at exactly 150 seconds", () => {
  const schedule = new RetrySchedule(random(0), 1000);
  assert.equal(schedule.next(1000 + 900_000), 800);
  assert.equal(schedule.next(1000 + 900_001), 150_000);
});
