import assert from "node:assert/strict";
import { test } from "node:test";
import { timestampFormatter } from "../../src/runtime/timestamp.ts";

const cases: readonly (readonly [at: number, text: string])[] = [
  [0, "1970-01-01T00:00:00.000000Z"],
  [1_795_398_711_046.648, "2026-11-23T01:51:51.046648Z"],
  [1_795_398_711_999.9998, "2026-11-23T01:51:51.999999Z"],
  [1_795_398_711_046.649, "2026-11-23T01:51:51.046649Z"],
  [1_795_398_712_000, "2026-11-23T01:51:52.000000Z"],
  [1_795_398_711_000.001, "2026-11-23T01:51:51.000001Z"],
];

test("instants are written with microseconds, whatever second came before", () => {
  const format = timestampFormatter();
  for (const [at, text] of cases) assert.equal(format(at), text);
});
