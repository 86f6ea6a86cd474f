/**
 * The `istio_tcp_*` families that operators see. Names, labels, order and texts follow the mesh to
 * the letter.
 *
 * @see spec data-path 10.3
 */
import { Counter, Gauge, type Registry } from "prom-client";
import { LOOKUP_LABELS, TRAFFIC_LABELS, type TrafficSample } from "./traffic-metrics.ts";

type TrafficLabel = (typeof TRAFFIC_LABELS)[number];

export interface TrafficFamilies {
  readonly opened: Counter<TrafficLabel>;
  readonly closed: Counter<TrafficLabel>;
  readonly receivedBytes: Counter<TrafficLabel>;
  readonly sentBytes: Counter<TrafficLabel>;
  readonly failed: Counter<TrafficLabel>;
  readonly socketsOpen: Gauge<"reporter">;
  readonly revocationRejections: Counter<"reporter">;
  readonly revocationUntracked: Counter<"reporter">;
  readonly unknownPolicies: Counter<"decision">;
  readonly retries: Counter;
  readonly lookups: Counter<(typeof LOOKUP_LABELS)[number]>;
}

/** Makes the families in a registry; they have no sample until traffic is merged. */
export function makeTrafficFamilies(registry: Registry): TrafficFamilies {
  const counter = (name: string, help: string): Counter<TrafficLabel> =>
    new Counter({ name, help, labelNames: TRAFFIC_LABELS, registers: [registry] });
  return {
    opened: counter(
      "istio_tcp_connections_opened_total",
      "The total number of TCP connections opened.",
    ),
    closed: counter(
      "istio_tcp_connections_closed_total",
      "The total number of TCP connections closed.",
    ),
    receivedBytes: counter(
      "istio_tcp_received_bytes_total",
      "The size of total bytes received during request in case of a TCP connection.",
    ),
    sentBytes: counter(
      "istio_tcp_sent_bytes_total",
      "The size of total bytes sent during response in case of a TCP connection.",
    ),
    failed: counter(
      "istio_tcp_connections_failed_total",
      "The total number of TCP connections that failed to establish (unstable).",
    ),
    socketsOpen: new Gauge({
      name: "istio_tcp_sockets_open",
      help: "The current number of open TCP sockets (unstable).",
      labelNames: ["reporter"],
      registers: [registry],
    }),
    revocationRejections: new Counter({
      name: "istio_crl_policy_rejections_total",
      help: "The total number of peers refused or cut off because their certificate is revoked.",
      labelNames: ["reporter"],
      registers: [registry],
    }),
    revocationUntracked: new Counter({
      name: "istio_crl_untracked_connections_total",
      help: "The total number of tunnels that no later revocation list can cut off.",
      labelNames: ["reporter"],
      registers: [registry],
    }),
    unknownPolicies: new Counter({
      name: "ztunnel_unknown_policy_connections_total",
      help: "Connections decided by UNKNOWN_POLICY because a policy of their workload was unknown.",
      labelNames: ["decision"],
      registers: [registry],
    }),
    lookups: new Counter({
      name: "istio_on_demand_dns_total",
      help: "The total number of requests that used on-demand DNS (unstable).",
      labelNames: LOOKUP_LABELS,
      registers: [registry],
    }),
    retries: new Counter({
      name: "ztunnel_connect_retries_total",
      help: "Further endpoints tried for a connection, after one that could not be reached.",
      registers: [registry],
    }),
  };
}

/**
 * Adds what the data threads counted since their last samples.
 *
 * An open connection has byte counters from its first moment, if only of 0.
 */
export function mergeTraffic(families: TrafficFamilies, samples: readonly TrafficSample[]): void {
  for (const { series, socketsOpen, unknownPolicies, revocations, lookups, retries } of samples) {
    for (const delta of series) {
      const { labels } = delta;
      if (delta.opened + delta.receivedBytes + delta.sentBytes > 0) {
        families.opened.labels(...labels).inc(delta.opened);
        families.receivedBytes.labels(...labels).inc(delta.receivedBytes);
        families.sentBytes.labels(...labels).inc(delta.sentBytes);
      }
      if (delta.closed > 0) families.closed.labels(...labels).inc(delta.closed);
      if (delta.failed > 0) families.failed.labels(...labels).inc(delta.failed);
    }
    for (const { reporter, change } of socketsOpen) families.socketsOpen.inc({ reporter }, change);
    for (const reporter of ["source", "destination"] as const) {
      const { rejected, untracked } = revocations[reporter];
      if (rejected > 0) families.revocationRejections.inc({ reporter }, rejected);
      if (untracked > 0) families.revocationUntracked.inc({ reporter }, untracked);
    }
    if (retries > 0) families.retries.inc(retries);
    for (const { labels, count } of lookups) families.lookups.labels(...labels).inc(count);
    for (const decision of ["deny", "allow"] as const) {
      const count = unknownPolicies[decision];
      if (count > 0) families.unknownPolicies.inc({ decision }, count);
    }
  }
}
