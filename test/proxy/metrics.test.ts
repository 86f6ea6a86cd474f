import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import { makeTrafficFamilies, mergeTraffic } from "../../src/proxy/metrics.ts";
import { TRAFFIC_LABELS, type TrafficDelta } from "../../src/proxy/traffic-metrics.ts";

const LABELS = TRAFFIC_LABELS.map((name) => (name === "response_flags" ? "-" : "x"));

const NOTHING: TrafficDelta = {
  labels: LABELS,
  opened: 0,
  closed: 0,
  failed: 0,
  receivedBytes: 0,
  sentBytes: 0,
};

const NO_REVOCATIONS = {
  source: { rejected: 0, untracked: 0 },
  destination: { rejected: 0, untracked: 0 },
};

async function samples(registry: Registry): Promise<readonly string[]> {
  const text = await registry.metrics();
  return text
    .split("\n")
    .filter((line) => line.startsWith("istio"))
    .map((line) => line.replace(/\{.*\}/, ""));
}

test("families have the original's names and words, ours come last", async () => {
  const registry = new Registry();
  makeTrafficFamilies(registry);
  const help = (await registry.metrics()).split("\n").filter((line) => line.startsWith("# HELP"));
  assert.deepEqual(help, [
    "# HELP istio_tcp_connections_opened_total The total number of TCP connections opened.",
    "# HELP istio_tcp_connections_closed_total The total number of TCP connections closed.",
    "# HELP istio_tcp_received_bytes_total The size of total bytes received during request in case of a TCP connection.",
    "# HELP istio_tcp_sent_bytes_total The size of total bytes sent during response in case of a TCP connection.",
    "# HELP istio_tcp_connections_failed_total The total number of TCP connections that failed to establish (unstable).",
    "# HELP istio_tcp_sockets_open The current number of open TCP sockets (unstable).",
    "# HELP istio_crl_policy_rejections_total The total number of peers refused or cut off because their certificate is revoked.",
    "# HELP istio_crl_untracked_connections_total The total number of tunnels that no later revocation list can cut off.",
    "# HELP ztunnel_unknown_policy_connections_total Connections decided by UNKNOWN_POLICY because a policy of their workload was unknown.",
    "# HELP istio_on_demand_dns_total The total number of requests that used on-demand DNS (unstable).",
    "# HELP ztunnel_connect_retries_total Further endpoints tried for a connection, after one that could not be reached.",
  ]);
});

test("an open connection has byte counters of 0 and none that close it", async () => {
  const registry = new Registry();
  mergeTraffic(makeTrafficFamilies(registry), [
    {
      series: [{ ...NOTHING, opened: 1 }],
      socketsOpen: [],
      revocations: NO_REVOCATIONS,
      unknownPolicies: { deny: 0, allow: 0 },
      lookups: [],
      retries: 0,
    },
  ]);
  assert.deepEqual(await samples(registry), [
    "istio_tcp_connections_opened_total 1",
    "istio_tcp_received_bytes_total 0",
    "istio_tcp_sent_bytes_total 0",
  ]);
});

test("samples of several threads add up, label by label in order", async () => {
  const registry = new Registry();
  const families = makeTrafficFamilies(registry);
  const failed = {
    ...NOTHING,
    labels: LABELS.map((value, i) => (TRAFFIC_LABELS[i] === "response_flags" ? "DENY" : value)),
    closed: 1,
    failed: 1,
  };
  const open = { ...NOTHING, opened: 2, receivedBytes: 5, sentBytes: 7 };
  for (let scrape = 0; scrape < 2; scrape++) {
    mergeTraffic(families, [
      {
        series: [open, failed],
        socketsOpen: [{ reporter: "source", change: 3 }],
        revocations: NO_REVOCATIONS,
        unknownPolicies: { deny: 0, allow: 0 },
        lookups: [],
        retries: 0,
      },
      {
        series: [open],
        socketsOpen: [{ reporter: "source", change: -1 }],
        revocations: NO_REVOCATIONS,
        unknownPolicies: { deny: 0, allow: 0 },
        lookups: [],
        retries: 0,
      },
    ]);
  }
  assert.deepEqual(await samples(registry), [
    "istio_tcp_connections_opened_total 8",
    "istio_tcp_connections_closed_total 2",
    "istio_tcp_received_bytes_total 20",
    "istio_tcp_sent_bytes_total 28",
    "istio_tcp_connections_failed_total 2",
    "istio_tcp_sockets_open 4",
  ]);
  mergeTraffic(families, [
    {
      series: [],
      socketsOpen: [],
      revocations: {
        source: { rejected: 2, untracked: 0 },
        destination: { rejected: 0, untracked: 1 },
      },
      unknownPolicies: { deny: 0, allow: 0 },
      lookups: [],
      retries: 3,
    },
  ]);
  assert.deepEqual((await samples(registry)).slice(-2), [
    "istio_crl_policy_rejections_total 2",
    "istio_crl_untracked_connections_total 1",
  ]);
  assert.match(await registry.metrics(), /^ztunnel_connect_retries_total 3$/m);
  const line = (await registry.metrics()).split("\n").find((one) => one.includes("failed_total{"));
  assert.deepEqual(
    [...(line ?? "").matchAll(/(\w+)="/g)].map((match) => match[1]),
    [...TRAFFIC_LABELS],
  );
});
