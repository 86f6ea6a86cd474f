import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { DnsMetrics } from "../../src/dns/dns-metrics.ts";
import { makeDnsFamilies, mergeDns } from "../../src/dns/metrics.ts";
import { makeRegistry, renderMetrics } from "../../src/telemetry/registry.ts";
import { ip } from "../support/mesh-fixture.ts";

const LABELS = ["a", "udp", "client1", "v1"];

test("families without samples are left out", async () => {
  const registry = makeRegistry();
  makeDnsFamilies(registry);
  assert.equal(await renderMetrics(registry), "# EOF\n");
});

test("differences of threads and scrapes add up", async () => {
  const registry = makeRegistry();
  const families = makeDnsFamilies(registry);
  const threads = [new DnsMetrics(), new DnsMetrics()];
  for (const scrape of [0, 1]) {
    for (const thread of threads) {
      thread.requested(LABELS);
      thread.resolverAsked(ip("192.0.2.53"), scrape === 1 ? "timeout" : "answered");
      thread.forwarded(LABELS, [0.5, 7000][scrape] as number, scrape === 1);
      mergeDns(families, thread.collect());
      assert.deepEqual(thread.collect(), { series: [], resolvers: [] });
    }
  }
  const labels =
    'request_query_type="a",request_protocol="udp",source_canonical_service="client1",source_canonical_revision="v1"';
  const text = await renderMetrics(registry);
  const value = (name: string, le?: string): string | undefined =>
    text
      .split("\n")
      .find((line) => line.startsWith(`${name}{${le === undefined ? "" : `le="${le}",`}${labels}}`))
      ?.split(" ")[1];
  assert.match(
    text,
    /^ztunnel_dns_resolver_queries_total\{resolver="192\.0\.2\.53",outcome="timeout"\} 2$/m,
  );
  assert.equal(value("istio_dns_requests_total"), "4");
  assert.equal(value("istio_dns_upstream_requests_total"), "4");
  assert.equal(value("istio_dns_upstream_failures_total"), "2");
  const duration = "istio_dns_upstream_request_duration_seconds";
  assert.equal(value(`${duration}_count`), "4");
  assert.equal(Number(value(`${duration}_sum`)).toFixed(6), "14.001000");
  for (const bound of ["0.0005", "0.001", "0.01", "0.1", "1", "5"]) {
    assert.equal(value(`${duration}_bucket`, bound), "2");
  }
  assert.equal(value(`${duration}_bucket`, "+Inf"), "4");
});

test("names, help and kinds are the original's", async () => {
  const registry = makeRegistry();
  const families = makeDnsFamilies(registry);
  const metrics = new DnsMetrics();
  metrics.requested(LABELS);
  metrics.forwarded(LABELS, 1, true);
  mergeDns(families, metrics.collect());
  const fixture = join(import.meta.dirname, "../fixtures/ztunnel/metrics/dns.a.txt");
  const heads = (text: string): string[] =>
    text.split("\n").filter((line) => /^# (HELP|TYPE) istio_dns/.test(line));
  assert.deepEqual(heads(await renderMetrics(registry)), heads(readFileSync(fixture, "utf8")));
});
