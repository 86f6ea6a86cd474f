import assert from "node:assert/strict";
import { test } from "node:test";
import { ClockSkew } from "../../src/identity/clock-skew.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { silentLogger } from "../support/silent-logger.ts";
import { testIdentity } from "../support/test-ca.ts";

const identity = testIdentity("a");

function fixture() {
  const clock = new FakeClock();
  const lines: string[] = [];
  const log: Logger = {
    ...silentLogger,
    write: (level, message) => lines.push(`${level} ${message}`),
  };
  const skew = new ClockSkew({ clock, log });
  /** A certificate that begins so many seconds before our present. */
  const observe = (ageSeconds: number): void =>
    skew.observe({ identity, notBeforeAt: clock.now() - ageSeconds * 1000 });
  return { lines, skew, observe };
}

const quiet: readonly (readonly [what: string, ageSeconds: number])[] = [
  ["dated from now", 0],
  ["backdated by two minutes, as istiod's", 121],
  ["backdated, with clocks a minute apart", 180],
];
for (const [what, ageSeconds] of quiet) {
  test(`a certificate ${what} shows no skew`, () => {
    const { lines, skew, observe } = fixture();
    observe(ageSeconds);
    assert.equal(skew.seconds, 0);
    assert.deepEqual(lines, []);
  });
}

test("a certificate from the future shows that our clock is behind, in one line", () => {
  const { lines, skew, observe } = fixture();
  observe(-30);
  observe(-31);
  assert.equal(skew.seconds, -31);
  assert.deepEqual(lines, [
    "warn clock skew: a fresh certificate becomes valid in 30s only, so this node's clock is " +
      "behind the certificate authority's by at least that",
  ]);
});

test("a certificate from long ago shows that our clock is ahead", () => {
  const { lines, skew, observe } = fixture();
  observe(420);
  assert.equal(skew.seconds, 300);
  assert.deepEqual(lines, [
    "warn clock skew: a fresh certificate is valid since 420s ago, so this node's clock is ahead " +
      "of the certificate authority's by about 300s, unless the authority backdates more than istiod",
  ]);
});

test("skew is told again when it has changed by a minute, or came back", () => {
  const { lines, skew, observe } = fixture();
  for (const ageSeconds of [420, 450, 500, 120, 420]) observe(ageSeconds);
  assert.equal(lines.length, 3);
  assert.equal(skew.seconds, 300);
});
