/** The `workload_manager_*` families; names and help texts are the original's. */
import { Counter, Gauge, type Registry } from "prom-client";
import type { ReconcilerMetrics } from "./workload-reconciler.ts";

/** Registers the four families with zeros. */
export function createInpodMetrics(registry: Registry): ReconcilerMetrics {
  const active = new Gauge({
    name: "workload_manager_active_proxy_count",
    help: "The total number current workloads with active proxies (unstable).",
    registers: [registry],
  });
  const pending = new Gauge({
    name: "workload_manager_pending_proxy_count",
    help: "The total number current workloads with pending proxies (unstable).",
    registers: [registry],
  });
  const started = new Counter({
    name: "workload_manager_proxies_started_total",
    help: "The total number of proxies that were started (unstable).",
    registers: [registry],
  });
  const stopped = new Counter({
    name: "workload_manager_proxies_stopped_total",
    help: "The total number of proxies that were stopped (unstable).",
    registers: [registry],
  });
  return {
    started: () => started.inc(),
    stopped: () => stopped.inc(),
    counts(activeCount, pendingCount) {
      active.set(activeCount);
      pending.set(pendingCount);
    },
  };
}
