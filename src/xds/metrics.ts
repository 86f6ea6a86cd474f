/** The `istio_xds_*` families; names, labels and help texts are the original's; those of `ztunnel_xds_*` are ours. */
import { Counter, Gauge, type Registry } from "prom-client";
import type { Clock } from "../runtime/clock.ts";
import type { DiscoveryMetrics, DiscoveryStatus } from "./discovery-client.ts";

/** @param status asked at each scrape. */
export function createDiscoveryMetrics(
  registry: Registry,
  status: () => DiscoveryStatus,
  clock: Pick<Clock, "now" | "monotonic">,
): DiscoveryMetrics {
  const registers = [registry];
  const terminations = new Counter({
    name: "istio_xds_connection_terminations_total",
    help: "The total number of completed connections to xds server (unstable).",
    labelNames: ["reason"],
    registers,
  });
  const messages = new Counter({
    name: "istio_xds_message_total",
    help: "Total number of messages received (unstable).",
    labelNames: ["url"],
    registers,
  });
  const bytes = new Counter({
    name: "istio_xds_message_bytes_total",
    help: "Total number of bytes received (unstable).",
    labelNames: ["url"],
    registers,
  });
  const connected: Gauge = new Gauge({
    name: "ztunnel_xds_connected",
    help: "1 while the control plane answers, 0 while what it said last is served.",
    registers,
    collect() {
      connected.set(status().connected ? 1 : 0);
    },
  });
  const age: Gauge = new Gauge({
    name: "ztunnel_xds_last_answer_age_seconds",
    help: "How long ago the control plane's last answer was taken in; absent before the first.",
    registers,
    collect() {
      const { lastAnswerAt } = status();
      if (lastAnswerAt === undefined) age.reset();
      else age.set((clock.now() - lastAnswerAt) / 1000);
    },
  });
  const away: Gauge = new Gauge({
    name: "ztunnel_xds_disconnected_seconds",
    help: "How long the control plane has not answered; 0 while it does.",
    registers,
    collect() {
      const { awaySince } = status();
      away.set(awaySince === undefined ? 0 : (clock.monotonic() - awaySince) / 1000);
    },
  });
  return {
    received(url, byteCount) {
      messages.inc({ url });
      bytes.inc({ url }, byteCount);
    },
    terminated: (reason) => terminations.inc({ reason }),
  };
}
