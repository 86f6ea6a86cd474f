/** What operators see of certificates; the name is ours. */
import { Gauge, type Registry } from "prom-client";

/** @param seconds by how much our clock is ahead of the authority's; asked at each scrape. */
export function registerClockSkew(registry: Registry, seconds: () => number): void {
  const skew: Gauge = new Gauge({
    name: "ztunnel_clock_skew_seconds",
    help: "By how much this node's clock is ahead of the certificate authority's, as its fresh certificates show; 0 within a minute.",
    registers: [registry],
    collect() {
      skew.set(seconds());
    },
  });
}
