/** A scrape: takes what a data thread counted since the last one, adds it up and writes it all out. */
import assert from "node:assert/strict";
import { makeTrafficFamilies, mergeTraffic } from "../../src/proxy/metrics.ts";
import { TRAFFIC_LABELS, TrafficMetrics } from "../../src/proxy/traffic-metrics.ts";
import { makeRegistry, renderMetrics } from "../../src/telemetry/registry.ts";
import { report } from "../measure.ts";
import { timeCases } from "../timed-cases.ts";

const COUNT = 1000;

const registry = makeRegistry();
const families = makeTrafficFamilies(registry);
const traffic = new TrafficMetrics();
const pairs = Array.from({ length: COUNT }, (_, i) =>
  TRAFFIC_LABELS.map((name) => (name === "response_flags" ? "-" : `${name} of pair ${i}`)),
);

/** A connection of each pair comes and goes. */
function connectAll(): void {
  for (const labels of pairs) traffic.closed(traffic.opened(labels), "-");
}

async function scrape(): Promise<string> {
  mergeTraffic(families, [traffic.collect()]);
  return renderMetrics(registry);
}

connectAll();
const samples = (await scrape()).match(/^istio_tcp_connections_closed_total\{.*\} 1$/gm);
assert.equal(samples?.length, COUNT);
report(
  await timeCases({
    "scrape of 1,000 pairs of workloads, none changed": async () => {
      await scrape();
    },
    "scrape of 1,000 pairs of workloads after a connection of each": async () => {
      connectAll();
      await scrape();
    },
  }),
);
