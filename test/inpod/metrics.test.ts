import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import { createInpodMetrics } from "../../src/inpod/metrics.ts";

test("the four families appear with the original's names, help texts and values", async () => {
  const registry = new Registry();
  const metrics = createInpodMetrics(registry);
  metrics.started();
  metrics.started();
  metrics.stopped();
  metrics.counts(1, 3);
  assert.equal(
    await registry.metrics(),
    `# HELP workload_manager_active_proxy_count The total number current workloads with active proxies (unstable).
# TYPE workload_manager_active_proxy_count gauge
workload_manager_active_proxy_count 1

# HELP workload_manager_pending_proxy_count The total number current workloads with pending proxies (unstable).
# TYPE workload_manager_pending_proxy_count gauge
workload_manager_pending_proxy_count 3

# HELP workload_manager_proxies_started_total The total number of proxies that were started (unstable).
# TYPE workload_manager_proxies_started_total counter
workload_manager_proxies_started_total 2

# HELP workload_manager_proxies_stopped_total The total number of proxies that were stopped (unstable).
# TYPE workload_manager_proxies_stopped_total counter
workload_manager_proxies_stopped_total 1
`,
  );
});
