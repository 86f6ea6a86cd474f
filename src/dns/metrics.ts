/**
 * The `istio_dns_*` families; names, labels and help texts are the original's. Which resolver does not
 * do well is ours to tell.
 *
 * @see spec data-path 8.4
 */
import { Counter, type Metric, type Registry } from "prom-client";
import { DNS_DURATION_BUCKETS, DNS_LABELS, type DnsDelta, type DnsSample } from "./dns-metrics.ts";

const DURATION_NAME = "istio_dns_upstream_request_duration_seconds";

type DnsCounter = Counter<(typeof DNS_LABELS)[number]>;

export interface DnsFamilies {
  readonly requests: DnsCounter;
  readonly upstreamRequests: DnsCounter;
  readonly upstreamFailures: DnsCounter;
  readonly upstreamDuration: DurationFamily;
  readonly resolvers: Counter<"resolver" | "outcome">;
}

/** Makes the families in a registry; they have no sample until something is merged. */
export function makeDnsFamilies(registry: Registry): DnsFamilies {
  const counter = (name: string, help: string): DnsCounter =>
    new Counter({ name, help, labelNames: DNS_LABELS, registers: [registry] });
  const families: DnsFamilies = {
    requests: counter("istio_dns_requests_total", "Total number of DNS requests (unstable)."),
    upstreamRequests: counter(
      "istio_dns_upstream_requests_total",
      "Total number of DNS requests forwarded to upstream (unstable).",
    ),
    upstreamFailures: counter(
      "istio_dns_upstream_failures_total",
      "Total number of DNS requests that failed to forward upstream (unstable).",
    ),
    upstreamDuration: new DurationFamily(),
    resolvers: new Counter({
      name: "ztunnel_dns_resolver_queries_total",
      help: "DNS queries that were put to each resolver, by what came of it: answered, refused, timeout or unreachable.",
      labelNames: ["resolver", "outcome"],
      registers: [registry],
    }),
  };
  // Its type wants prom-client's own classes; what the registry calls is here.
  registry.registerMetric(families.upstreamDuration as unknown as Metric);
  return families;
}

/** Adds what a data thread counted since its last sample. */
export function mergeDns(families: DnsFamilies, sample: DnsSample): void {
  for (const { resolver, outcome, count } of sample.resolvers) {
    families.resolvers.inc({ resolver, outcome }, count);
  }
  for (const delta of sample.series) {
    const { labels, requests, upstreamRequests, upstreamFailures } = delta;
    if (requests > 0) families.requests.labels(...labels).inc(requests);
    if (upstreamRequests === 0) continue;
    families.upstreamRequests.labels(...labels).inc(upstreamRequests);
    if (upstreamFailures > 0) families.upstreamFailures.labels(...labels).inc(upstreamFailures);
    families.upstreamDuration.add(delta);
  }
}

interface Histogram {
  readonly labels: Readonly<Record<string, string>>;
  /** Of each bucket alone. */
  readonly buckets: number[];
  seconds: number;
}

/** prom-client's own histogram takes single observations only, and data threads send sums. */
class DurationFamily {
  readonly name: string = DURATION_NAME;
  readonly help: string =
    "Total time in seconds Istio takes to get DNS response from upstream (unstable).";
  readonly type: string = "histogram";
  readonly aggregator: string = "sum";
  readonly #histograms = new Map<string, Histogram>();

  add({ labels, upstreamBuckets, upstreamSeconds }: DnsDelta): void {
    const key = labels.join("\0");
    let histogram = this.#histograms.get(key);
    if (histogram === undefined) {
      const named = Object.fromEntries(DNS_LABELS.map((name, at) => [name, labels[at] ?? ""]));
      histogram = { labels: named, buckets: upstreamBuckets.map(() => 0), seconds: 0 };
      this.#histograms.set(key, histogram);
    }
    histogram.seconds += upstreamSeconds;
    for (const [at, count] of upstreamBuckets.entries()) {
      histogram.buckets[at] = (histogram.buckets[at] ?? 0) + count;
    }
  }

  /** What the registry asks at each scrape. */
  async get(): Promise<object> {
    const { name, help, type, aggregator } = this;
    return {
      name,
      help,
      type,
      aggregator,
      values: [...this.#histograms.values()].flatMap(samples),
    };
  }
}

function samples({ labels, buckets, seconds }: Histogram): readonly object[] {
  const name = DURATION_NAME;
  let count = 0;
  const values: object[] = [];
  for (const [at, bucket] of buckets.entries()) {
    count += bucket;
    const le = DNS_DURATION_BUCKETS[at]?.toString() ?? "+Inf";
    values.push({ metricName: `${name}_bucket`, labels: { le, ...labels }, value: count });
  }
  const sum = { metricName: `${name}_sum`, labels, value: seconds };
  return [sum, { metricName: `${name}_count`, labels, value: count }, ...values];
}
