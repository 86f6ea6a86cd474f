import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import { createInpodMetrics, registerSocketMetrics } from "../../src/inpod/metrics.ts";
import type { SocketSample } from "../../src/inpod/socket-sampler.ts";

test("the original's four families appear with its names, help texts and values, and ours", async () => {
  const registry = new Registry();
  const metrics = createInpodMetrics(registry);
  metrics.started();
  metrics.started();
  metrics.stopped();
  metrics.counts({ active: 1, pending: 3, draining: 2 });
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

# HELP ztunnel_draining_pods Pods that have left and whose connections go on until they end.
# TYPE ztunnel_draining_pods gauge
ztunnel_draining_pods 2
`,
  );
});

test("the samples of pods appear as they are at each scrape", async () => {
  const registry = new Registry();
  const sample = (name: string, count: number): SocketSample => ({
    workload: { uid: name, name, namespace: "shop", serviceAccount: "web" },
    workloadName: "web",
    at: 0,
    census: {
      tcp: [{ owner: "application", state: "close_wait", count }],
      udp: {
        ipv4: { received: 9, sent: 9, unwanted: 9, errors: 9 },
        ipv6: { received: 9, sent: 9, unwanted: 9, errors: 9 },
      },
      connected: { count: 0, peers: [] },
    },
    bypassing: { received: count, sent: 2 * count },
  });
  let samples: readonly SocketSample[] = [sample("web-1", 3), sample("web-2", 4)];
  registerSocketMetrics(registry, () => samples);
  const scrape = async (): Promise<string[]> =>
    (await registry.metrics()).split("\n").filter((line) => line.startsWith("ztunnel_pod"));
  const series = (pod: string, count: number): string[] => {
    const labels = `workload="web",workload_namespace="shop",pod="${pod}"`;
    return [
      `ztunnel_pod_tcp_sockets{${labels},owner="application",state="close_wait"} ${count}`,
      `ztunnel_pod_udp_bypass_datagrams_total{${labels},direction="received"} ${count}`,
      `ztunnel_pod_udp_bypass_datagrams_total{${labels},direction="sent"} ${2 * count}`,
    ];
  };
  const both = [...series("web-1", 3), ...series("web-2", 4)];
  assert.deepEqual((await scrape()).sort(), both.sort());
  samples = [sample("web-2", 5)];
  assert.deepEqual(await scrape(), series("web-2", 5));
});
