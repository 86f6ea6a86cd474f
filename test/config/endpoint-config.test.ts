import assert from "node:assert/strict";
import { test } from "node:test";
import { readOutliers } from "../../src/config/endpoint-config.ts";
import { type Environment, EnvironmentReader } from "../../src/config/environment-reader.ts";

function read(environment: Environment) {
  const reader = new EnvironmentReader(environment);
  return { outliers: readOutliers(reader), mistakes: reader.mistakes };
}

test("endpoints are left out only where the number of failures is given", () => {
  assert.deepEqual(read({ OUTLIER_BASE_EJECTION_TIME: "1s" }), {
    outliers: undefined,
    mistakes: [],
  });
  assert.deepEqual(
    read({
      OUTLIER_CONSECUTIVE_FAILURES: "5",
      OUTLIER_FAILURE_WINDOW: "10s",
      OUTLIER_MAX_EJECTION_TIME: "1m",
      OUTLIER_MAX_EJECTION_PERCENT: "100",
    }).outliers,
    {
      consecutiveFailures: 5,
      windowMs: 10_000,
      baseEjectionMs: 30_000,
      ejectionMaxMs: 60_000,
      ejectionMaxPercent: 100,
    },
  );
});

test("numbers of ejection that make no sense are refused by name", () => {
  assert.deepEqual(
    read({ OUTLIER_BASE_EJECTION_TIME: "10m", OUTLIER_MAX_EJECTION_PERCENT: "101" }).mistakes,
    [
      "invalid env var OUTLIER_MAX_EJECTION_PERCENT=101 (must be 1 to 100)",
      "OUTLIER_MAX_EJECTION_TIME (300000 ms) must not be less than OUTLIER_BASE_EJECTION_TIME (600000 ms)",
    ],
  );
});
