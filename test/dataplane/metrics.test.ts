import assert from "node:assert/strict";
import { test } from "node:test";
import { makeLoopDelayFamily, setLoopDelays } from "../../src/dataplane/metrics.ts";
import { makeRegistry, renderMetrics } from "../../src/telemetry/registry.ts";

test("each thread's delay is told in seconds, as of the last scrape", async () => {
  const registry = makeRegistry();
  const family = makeLoopDelayFamily(registry);
  assert.equal(await renderMetrics(registry), "# EOF\n");
  setLoopDelays(family, [
    { p50Ms: 100, p99Ms: 100, p999Ms: 100, maxMs: 100 },
    { p50Ms: 0, p99Ms: 0, p999Ms: 0, maxMs: 0 },
  ]);
  setLoopDelays(family, [
    { p50Ms: 0.5, p99Ms: 1, p999Ms: 2, maxMs: 4 },
    { p50Ms: 0, p99Ms: 0, p999Ms: 0, maxMs: 8 },
  ]);
  const text = await renderMetrics(registry);
  const lines = text.split("\n").filter((line) => /^data_/.test(line));
  const name = "data_thread_event_loop_delay_seconds";
  // The label belongs to this type; readers refuse it with others.
  assert.ok(text.includes(`\n# TYPE ${name} summary\n`), text);
  assert.deepEqual(lines, [
    `${name}{thread="0",quantile="0.5"} 0.0005`,
    `${name}{thread="0",quantile="0.99"} 0.001`,
    `${name}{thread="0",quantile="0.999"} 0.002`,
    `${name}{thread="0",quantile="1"} 0.004`,
    `${name}{thread="1",quantile="0.5"} 0`,
    `${name}{thread="1",quantile="0.99"} 0`,
    `${name}{thread="1",quantile="0.999"} 0`,
    `${name}{thread="1",quantile="1"} 0.008`,
  ]);
});
