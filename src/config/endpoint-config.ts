/** How endpoints of services are chosen, as far as the environment says. */
import type { ProxyOptions } from "../proxy/proxy-options.ts";
import type { OutlierOptions } from "../state/endpoint-outliers.ts";
import type { EnvironmentReader } from "./environment-reader.ts";
import { LIMITS, readLimit } from "./limits.ts";

const FAILURES_MAX = 2 ** 32 - 1;
const EJECTION_PERCENT = 50;
/** The default of Kubernetes, and what it allows. */
const AFFINITY_SECONDS = 10_800;
const AFFINITY_SECONDS_MAX = 86_400;

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

export function readAffinity(reader: EnvironmentReader): ProxyOptions["affinity"] {
  const name = "SESSION_AFFINITY_SERVICES";
  const services: Record<string, number> = {};
  for (const part of (reader.text(name) ?? "").split(",")) {
    const text = part.trim();
    if (text === "") continue;
    const [, service = "", seconds = String(AFFINITY_SECONDS)] =
      /^([^/=\s]+\/[^/=\s]+)(?:=(\d+))?$/.exec(text) ?? [];
    if (service === "") {
      reader.invalid(name, `${text} is not NAMESPACE/HOSTNAME or NAMESPACE/HOSTNAME=SECONDS`);
    } else if (Number(seconds) < 1 || Number(seconds) > AFFINITY_SECONDS_MAX) {
      reader.invalid(name, `${text} has no seconds of 1 to ${AFFINITY_SECONDS_MAX}`);
    } else services[service] = Number(seconds);
  }
  return { services, clientsMax: readLimit(reader, "affinityClients") };
}
