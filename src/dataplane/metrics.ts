/** How the data threads are doing, for operators; the mesh's own families are in `proxy/`. */
import { Counter, Gauge, type Registry } from "prom-client";
import type { LoopDelay } from "../runtime/loop-delay.ts";

type DelayFamily = Gauge<"thread" | "quantile">;

/** Makes the family in a registry; it has no sample until one is set. */
export function makeLoopDelayFamily(registry: Registry): DelayFamily {
  return new Gauge({
    name: "data_thread_event_loop_delay_seconds",
    help: "How late each data thread was for its next event since the last scrape",
    labelNames: ["thread", "quantile"],
    registers: [registry],
  });
}

/** Endpoints that a data thread leaves out because connections to them fail. */
export interface OutlierFamilies {
  readonly ejections: Counter<"thread">;
  readonly ejected: Gauge<"thread">;
}

/** Makes the families in a registry; they have no sample until an endpoint is left out. */
export function makeOutlierFamilies(registry: Registry): OutlierFamilies {
  return {
    ejections: new Counter({
      name: "ztunnel_outlier_ejections_total",
      help: "How often a data thread left an endpoint out after connects to it had failed in a row.",
      labelNames: ["thread"],
      registers: [registry],
    }),
    ejected: new Gauge({
      name: "ztunnel_outlier_endpoints_ejected",
      help: "Endpoints that a data thread leaves out now.",
      labelNames: ["thread"],
      registers: [registry],
    }),
  };
}

/** @param delays of each thread, in their order. */
export function setLoopDelays(family: DelayFamily, delays: readonly LoopDelay[]): void {
  for (const [index, { p50Ms, p99Ms, p999Ms, maxMs }] of delays.entries()) {
    const thread = String(index);
    family.set({ thread, quantile: "0.5" }, p50Ms / 1e3);
    family.set({ thread, quantile: "0.99" }, p99Ms / 1e3);
    family.set({ thread, quantile: "0.999" }, p999Ms / 1e3);
    family.set({ thread, quantile: "1" }, maxMs / 1e3);
  }
}
