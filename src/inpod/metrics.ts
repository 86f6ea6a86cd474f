/**
 * The `workload_manager_*` families, whose names and help texts are the original's, and what is ours: pods
 * that drain, and what the sockets of pods are like.
 */
import { Counter, Gauge, type Registry } from "prom-client";
import type { SocketSample } from "./socket-sampler.ts";
import type { ReconcilerMetrics } from "./workload-reconciler.ts";

/** Registers the families with zeros. */
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
  const draining = new Gauge({
    name: "ztunnel_draining_pods",
    help: "Pods that have left and whose connections go on until they end.",
    registers: [registry],
  });
  return {
    started: () => started.inc(),
    stopped: () => stopped.inc(),
    counts(count) {
      active.set(count.active);
      pending.set(count.pending);
      draining.set(count.draining);
    },
  };
}

/** By which a pod is told. */
export const POD_LABELS = ["workload", "workload_namespace", "pod"] as const;

/** Registers the `ztunnel_pod_*` families: they are the samples, as of each scrape. */
export function registerSocketMetrics(
  registry: Registry,
  samples: () => readonly SocketSample[],
): void {
  new Gauge({
    name: "ztunnel_pod_tcp_sockets",
    help: "TCP sockets in the network namespace of each pod, by state, and by whether they are the proxy's or the application's.",
    labelNames: [...POD_LABELS, "owner", "state"],
    registers: [registry],
    collect() {
      this.reset();
      for (const sample of samples()) {
        const labels = podLabels(sample);
        for (const { owner, state, count } of sample.census.tcp) {
          this.set({ ...labels, owner, state }, count);
        }
      }
    },
  });
  new Counter({
    name: "ztunnel_pod_udp_bypass_datagrams_total",
    help: "UDP datagrams of each pod that the proxy had no part in, which is all but DNS through the proxy.",
    labelNames: [...POD_LABELS, "direction"],
    registers: [registry],
    collect() {
      this.reset();
      for (const sample of samples()) {
        const labels = podLabels(sample);
        this.inc({ ...labels, direction: "received" }, sample.bypassing.received);
        this.inc({ ...labels, direction: "sent" }, sample.bypassing.sent);
      }
    },
  });
}

function podLabels({
  workload,
  workloadName,
}: SocketSample): Record<(typeof POD_LABELS)[number], string> {
  return {
    workload: workloadName,
    workload_namespace: workload.namespace,
    pod: workload.name,
  };
}
