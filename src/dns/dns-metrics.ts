/**
 * The DNS counters of one data thread. As with traffic, what is handed out is the difference to the
 * last time; the families in {@link file://./metrics.ts} add all threads up.
 */
import type { IpAddress } from "../mesh/ip-address.ts";

/** In the order of every array of label values here. @see spec data-path 8.4 */
export const DNS_LABELS = [
  "request_query_type",
  "request_protocol",
  "source_canonical_service",
  "source_canonical_revision",
] as const;

/** Upper bounds of the histogram of durations, seconds; the last bucket has none. */
export const DNS_DURATION_BUCKETS: readonly number[] = [0.0005, 0.001, 0.01, 0.1, 1, 5];

/** What one label set gained. Survives `structuredClone`. */
export interface DnsDelta {
  /** Values in the order of {@link DNS_LABELS}. */
  readonly labels: readonly string[];
  readonly requests: number;
  readonly upstreamRequests: number;
  readonly upstreamFailures: number;
  readonly upstreamSeconds: number;
  /** Requests that were answered within each bound of {@link DNS_DURATION_BUCKETS} but no smaller one. */
  readonly upstreamBuckets: readonly number[];
}

/** How a resolver did. `refused`: it answered that it can't or won't. */
export type ResolverOutcome = "answered" | "refused" | "timeout" | "unreachable";

/** What changed since the last sample. Survives `structuredClone`. */
export interface DnsSample {
  readonly series: readonly DnsDelta[];
  readonly resolvers: readonly {
    readonly resolver: IpAddress;
    readonly outcome: ResolverOutcome;
    readonly count: number;
  }[];
}

type Series = { -readonly [K in keyof DnsDelta]: DnsDelta[K] } & {
  readonly upstreamBuckets: number[];
};

export class DnsMetrics {
  #series = new Map<string, Series>();
  #resolvers = new Map<IpAddress, Map<ResolverOutcome, number>>();

  /** @param labels as in {@link DNS_LABELS}. */
  requested(labels: readonly string[]): void {
    this.#find(labels).requests++;
  }

  /** A query that was passed on has come to its end. */
  forwarded(labels: readonly string[], durationMs: number, isFailure: boolean): void {
    const series = this.#find(labels);
    const seconds = durationMs / 1000;
    series.upstreamRequests++;
    if (isFailure) series.upstreamFailures++;
    series.upstreamSeconds += seconds;
    const found = DNS_DURATION_BUCKETS.findIndex((bound) => seconds <= bound);
    const bucket = found < 0 ? DNS_DURATION_BUCKETS.length : found;
    series.upstreamBuckets[bucket] = (series.upstreamBuckets[bucket] ?? 0) + 1;
  }

  /** A resolver has been asked, or has not been. */
  resolverAsked(resolver: IpAddress, outcome: ResolverOutcome): void {
    const outcomes = this.#resolvers.get(resolver) ?? new Map<ResolverOutcome, number>();
    this.#resolvers.set(resolver, outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1));
  }

  /** Everything that happened since the last call. */
  collect(): DnsSample {
    const series = [...this.#series.values()];
    const resolvers = [...this.#resolvers].flatMap(([resolver, outcomes]) =>
      Array.from(outcomes, ([outcome, count]) => ({ resolver, outcome, count })),
    );
    this.#series = new Map();
    this.#resolvers = new Map();
    return { series, resolvers };
  }

  #find(labels: readonly string[]): Series {
    const key = labels.join("\0");
    let series = this.#series.get(key);
    if (series === undefined) {
      series = {
        labels,
        requests: 0,
        upstreamRequests: 0,
        upstreamFailures: 0,
        upstreamSeconds: 0,
        upstreamBuckets: new Array<number>(DNS_DURATION_BUCKETS.length + 1).fill(0),
      };
      this.#series.set(key, series);
    }
    return series;
  }
}
