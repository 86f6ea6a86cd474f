import assert from "node:assert/strict";
import { test } from "node:test";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { buildInfo, registerBuildMetric } from "../../src/telemetry/build-info.ts";
import { registerProcessMetrics } from "../../src/telemetry/process-metrics.ts";
import { renderMetrics } from "../../src/telemetry/registry.ts";

test("families are printed as the original does: no _total in HELP and TYPE, EOF at the end", async () => {
  const registry = new Registry();
  registerBuildMetric(registry, "unknown");
  const opened = new Counter({
    name: "istio_tcp_connections_opened_total",
    help: "The total number of TCP connections opened.",
    labelNames: ["reporter", "source_workload"],
    registers: [registry],
  });
  opened.labels("source", "client1").inc(3);
  new Counter({
    name: "workload_manager_proxies_stopped_total",
    help: "The total number of proxies that were stopped (unstable).",
    registers: [registry],
  });
  assert.equal(
    await renderMetrics(registry),
    `# HELP istio_build Istio component build info.
# TYPE istio_build gauge
istio_build{component="ztunnel",tag="unknown"} 1
# HELP istio_tcp_connections_opened The total number of TCP connections opened.
# TYPE istio_tcp_connections_opened counter
istio_tcp_connections_opened_total{reporter="source",source_workload="client1"} 3
# HELP workload_manager_proxies_stopped The total number of proxies that were stopped (unstable).
# TYPE workload_manager_proxies_stopped counter
workload_manager_proxies_stopped_total 0
# EOF
`,
  );
});

test("a family without samples is left out", async () => {
  const registry = new Registry();
  new Gauge({
    name: "istio_tcp_sockets_open",
    help: "The current number of open TCP sockets (unstable).",
    labelNames: ["reporter"],
    registers: [registry],
  });
  assert.equal(await renderMetrics(registry), "# EOF\n");
});

test("label values can't leave their quotes or their line", async () => {
  const registry = new Registry();
  new Gauge({ name: "odd", help: "a \\ b", labelNames: ["value"], registers: [registry] })
    .labels('"quoted" \\ \n{x="y"}')
    .set(0.5);
  assert.equal(
    await renderMetrics(registry),
    '# HELP odd a \\\\ b\n# TYPE odd gauge\nodd{value="\\"quoted\\" \\\\ \\n{x=\\"y\\"}"} 0.5\n# EOF\n',
  );
});

test("a histogram has its buckets up to +Inf, its sum and its count", async () => {
  const registry = new Registry();
  new Histogram({
    name: "took_seconds",
    help: "h",
    buckets: [0.01],
    registers: [registry],
  }).observe(1);
  assert.deepEqual((await renderMetrics(registry)).split("\n").slice(2, -2), [
    'took_seconds_bucket{le="0.01"} 0',
    'took_seconds_bucket{le="+Inf"} 1',
    "took_seconds_sum 1",
    "took_seconds_count 1",
  ]);
});

test("the process reports descriptors, memory and CPU time", async () => {
  const registry = new Registry();
  registerProcessMetrics(registry);
  const first = await renderMetrics(registry);
  for (const name of [
    "process_open_fds",
    "process_max_fds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
  ]) {
    assert.match(first, new RegExp(`^${name} [1-9\\d.]`, "m"));
  }
  assert.match(first, /^# TYPE process_cpu_seconds counter$/m);
});

test("the version line has the original's shape", () => {
  assert.match(
    buildInfo("1.99.0"),
    /^version\.BuildInfo\{Version:"\d+\.\d+\.\d+", NodeVersion:"26\.[\d.]+", IstioVersion:"1\.99\.0", CryptoProvider:"openssl-[^"]+"\}$/,
  );
  assert.match(buildInfo(undefined), /IstioVersion:"unknown"/);
});
