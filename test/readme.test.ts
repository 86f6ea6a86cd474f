/** README.md's tables say what the code says. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CONFIG_OPTIONS } from "../src/config/config-option.ts";
import { LIMITS } from "../src/config/limits.ts";
import { makeLoopDelayFamily, makeOutlierFamilies } from "../src/dataplane/metrics.ts";
import { DNS_LABELS } from "../src/dns/dns-metrics.ts";
import { makeDnsFamilies } from "../src/dns/metrics.ts";
import { createCertificateMetrics, registerClockSkew } from "../src/identity/metrics.ts";
import { createInpodMetrics, POD_LABELS, registerSocketMetrics } from "../src/inpod/metrics.ts";
import { makeTrafficFamilies } from "../src/proxy/metrics.ts";
import { TRAFFIC_LABELS } from "../src/proxy/traffic-metrics.ts";
import { registerBuildMetric } from "../src/telemetry/build-info.ts";
import { registerProcessMetrics } from "../src/telemetry/process-metrics.ts";
import { makeRegistry } from "../src/telemetry/registry.ts";
import { createDiscoveryMetrics } from "../src/xds/metrics.ts";
import { FakeClock } from "./support/fake-clock.ts";

const text = readFileSync(join(import.meta.dirname, "../README.md"), "utf8");
const limits = new Set(Object.values(LIMITS).map(({ variable }) => variable));

function table(options: typeof CONFIG_OPTIONS): string {
  const rows = options.map(
    ({ name, type, fallback, unit, why }) =>
      `| \`${name}\` | ${type} | ${fallback}${unit === undefined ? "" : ` ${unit}`} | ${why} |`,
  );
  return ["| variable | type | default | why |", "|---|---|---|---|", ...rows].join("\n");
}

function between(marker: string): string {
  const found = new RegExp(`<!-- ${marker} -->\n([^]*)\n<!-- /${marker} -->`).exec(text);
  assert.ok(found, `README.md has a part marked ${marker}`);
  return found[1] ?? "";
}

test("the table of variables lists every variable with its default and reason", () => {
  const expected = table(CONFIG_OPTIONS.filter(({ name }) => !limits.has(name)));
  assert.equal(between("options"), expected);
});

test("the families of metrics are those that a scrape may have", () => {
  const registry = makeRegistry();
  registerProcessMetrics(registry);
  registerBuildMetric(registry, "unknown");
  registerClockSkew(registry, () => 0);
  createCertificateMetrics(registry, () => ({ Initializing: 0, Available: 0, Unavailable: 0 }));
  createInpodMetrics(registry);
  registerSocketMetrics(registry, () => []);
  createDiscoveryMetrics(
    registry,
    () => ({
      ...{ connected: false, awaySince: 0 },
      ...{ lastAnswerAt: undefined, lastError: undefined, refusal: undefined },
    }),
    new FakeClock(),
  );
  makeTrafficFamilies(registry);
  makeDnsFamilies(registry);
  makeLoopDelayFamily(registry);
  makeOutlierFamilies(registry);
  const [, part] = /\n## Metrics\n([\s\S]*?)\n## /.exec(text) ?? [];
  const labels = new Set<string>([...TRAFFIC_LABELS, ...DNS_LABELS, ...POD_LABELS]);
  const named = [...(part ?? "").matchAll(/`([a-z]+_[a-z_]+)(?:\{[a-z]+\})?`/g)].map(
    ([, name]) => name ?? "",
  );
  assert.deepEqual(
    named.filter((name) => !labels.has(name)).toSorted(),
    registry
      .getMetricsAsArray()
      .map(({ name }) => name)
      .toSorted(),
  );
});

test("the table of limits lists every limit with its default and reason", () => {
  assert.equal(between("limits"), table(CONFIG_OPTIONS.filter(({ name }) => limits.has(name))));
});
