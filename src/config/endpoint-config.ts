/** How endpoints of services are chosen, as far as the environment says. */
import type { OutlierOptions } from "../state/endpoint-outliers.ts";
import type { EnvironmentReader } from "./environment-reader.ts";
import { LIMITS, readLimit } from "./limits.ts";

const FAILURES_MAX = 2 ** 32 - 1;
const EJECTION_PERCENT = 50;

/** @returns `undefined`: endpoints are never left out. */
export function readOutliers(reader: EnvironmentReader): OutlierOptions | undefined {
  const consecutiveFailures = reader.integer("OUTLIER_CONSECUTIVE_FAILURES", 0, {
    min: 0,
    max: FAILURES_MAX,
  });
  const options: OutlierOptions = {
    consecutiveFailures,
    windowMs: readLimit(reader, "outlierWindow"),
    baseEjectionMs: readLimit(reader, "outlierBaseEjection"),
    ejectionMaxMs: readLimit(reader, "outlierMaxEjection"),
    ejectionMaxPercent: reader.integer("OUTLIER_MAX_EJECTION_PERCENT", EJECTION_PERCENT, {
      min: 1,
      max: 100,
    }),
  };
  if (options.ejectionMaxMs < options.baseEjectionMs) {
    const { variable } = LIMITS.outlierBaseEjection;
    reader.mistake(
      `${LIMITS.outlierMaxEjection.variable} (${options.ejectionMaxMs} ms) must not be less than ${variable} (${options.baseEjectionMs} ms)`,
    );
  }
  return consecutiveFailures === 0 ? undefined : options;
}
