import assert from "node:assert/strict";
import { test } from "node:test";
import { readAffinity, readOutliers } from "../../src/config/endpoint-config.ts";
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

test("services with affinity are named with their seconds, or get those of Kubernetes", () => {
  const SESSION_AFFINITY_SERVICES = "shop/web.shop.svc=600, a/b.example ,";
  const reader = new EnvironmentReader({ SESSION_AFFINITY_SERVICES });
  assert.deepEqual(readAffinity(reader), {
    services: { "shop/web.shop.svc": 600, "a/b.example": 10_800 },
    clientsMax: 16_384,
  });
  assert.deepEqual(reader.mistakes, []);
});

for (const [value, reason] of [
  ["web.shop.svc", "web.shop.svc is not NAMESPACE/HOSTNAME or NAMESPACE/HOSTNAME=SECONDS"],
  ["a/b=soon", "a/b=soon is not NAMESPACE/HOSTNAME or NAMESPACE/HOSTNAME=SECONDS"],
  ["a/b=0", "a/b=0 has no seconds of 1 to 86400"],
  ["a/b=86401", "a/b=86401 has no seconds of 1 to 86400"],
] as const) {
  test(`affinity for ${value} is refused`, () => {
    const reader = new EnvironmentReader({ SESSION_AFFINITY_SERVICES: value });
    readAffinity(reader);
    assert.deepEqual(reader.mistakes, [
      `invalid env var SESSION_AFFINITY_SERVICES=${value} (${reason})`,
    ]);
  });
}
