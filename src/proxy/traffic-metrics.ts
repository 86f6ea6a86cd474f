/**
 * The traffic counters of one data thread. Connections register once and are never touched per
 * byte: what they carry is read from their relays when somebody asks, so bytes count while
 * connections live. What is handed out is only the difference to the last time, as plain data; the
 * families in {@link file://./metrics.ts} add the differences of all threads up.
 */
import type { Relay } from "../engine/engine.ts";
import { formatSpiffeId } from "../mesh/identity.ts";
import { type Workload, workloadIdentity } from "../mesh/workload.ts";

/** Label names in the order of every array of label values here. @see spec data-path 10.3 */
export const TRAFFIC_LABELS = [
  "reporter",
  "source_workload",
  "source_canonical_service",
  "source_canonical_revision",
  "source_workload_namespace",
  "source_principal",
  "source_app",
  "source_version",
  "source_cluster",
  "destination_service",
  "destination_service_namespace",
  "destination_service_name",
  "destination_workload",
  "destination_canonical_service",
  "destination_canonical_revision",
  "destination_workload_namespace",
  "destination_principal",
  "destination_app",
  "destination_version",
  "destination_cluster",
  "request_protocol",
  "response_flags",
  "connection_security_policy",
  "source_region",
  "source_zone",
  "destination_region",
  "destination_zone",
] as const;

/** Labels of lookups of host names, in the order of {@link lookupLabels}. @see spec data-path 10.3 */
export const LOOKUP_LABELS = [
  "source_workload",
  "source_canonical_service",
  "source_canonical_revision",
  "source_workload_namespace",
  "source_principal",
  "source_app",
  "source_version",
  "source_cluster",
  "hostname",
] as const;

export type Reporter = "source" | "destination";

/** What one label set gained. Labels may repeat between deltas; all numbers are ≥ 0. */
export interface TrafficDelta {
  /** Values in the order of {@link TRAFFIC_LABELS}. */
  readonly labels: readonly string[];
  readonly opened: number;
  readonly closed: number;
  readonly failed: number;
  /** Downstream → upstream. */
  readonly receivedBytes: number;
  /** Upstream → downstream. */
  readonly sentBytes: number;
}

/** How often a host name was looked up for one workload. */
export interface LookupDelta {
  /** Values in the order of {@link LOOKUP_LABELS}. */
  readonly labels: readonly string[];
  readonly count: number;
}

/** Of the peers that one reporter met. */
export interface RevocationCounts {
  /** Refused, or cut off. */
  rejected: number;
  /** Let in, but no later list can cut them off. */
  untracked: number;
}

/** What changed since the last sample; survives `structuredClone`. */
export interface TrafficSample {
  readonly series: readonly TrafficDelta[];
  /** Only reporters that saw a socket come or go; the change may be 0 or negative. */
  readonly revocations: Readonly<Record<Reporter, Readonly<RevocationCounts>>>;
  readonly socketsOpen: readonly { readonly reporter: Reporter; readonly change: number }[];
  /** Connections for which a policy was still unknown when they were decided. */
  readonly unknownPolicies: Readonly<Record<UnknownPolicyDecision, number>>;
  readonly lookups: readonly LookupDelta[];
  /** Further endpoints that were tried after one that could not be reached. */
  readonly retries: number;
}

export type UnknownPolicyDecision = "deny" | "allow";

/** A connection that is being counted. */
export interface CountedConnection {
  /** Set once, when bytes begin to move. */
  relay: Relay | undefined;
}

const FLAGS_INDEX = TRAFFIC_LABELS.indexOf("response_flags");

type Series = { -readonly [K in keyof TrafficDelta]: TrafficDelta[K] } & { changed: boolean };

/** How far the relay of a connection has been counted. */
interface Counted extends CountedConnection {
  readonly series: Series;
  receivedBytes: number;
  sentBytes: number;
}

export class TrafficMetrics {
  /** Label sets seen since the last sample. */
  readonly #series = new Map<string, Series>();
  /** The same by the arrays that they came in, which callers may use again. */
  #seriesOf = new WeakMap<readonly string[], Series>();
  #changed: Series[] = [];
  readonly #live = new Set<Counted>();
  readonly #sockets = new Map<Reporter, number>();
  #unknownPolicies = { deny: 0, allow: 0 };
  #retries = 0;
  #revocations = noRevocations();
  /** Key is the labels' text. */
  #lookups = new Map<string, { readonly labels: readonly string[]; count: number }>();

  /** @param labels as in {@link TRAFFIC_LABELS}, with `-` for `response_flags`. */
  opened(labels: readonly string[]): CountedConnection {
    const series = this.#find(labels);
    this.#touch(series).opened++;
    const counted = { relay: undefined, series, receivedBytes: 0, sentBytes: 0 };
    this.#live.add(counted);
    return counted;
  }

  /**
   * Call once.
   *
   * @param responseFlags `-` for an orderly end; anything else also counts as failed.
   */
  closed(connection: CountedConnection, responseFlags: string): void {
    const counted = connection as Counted;
    this.#read(counted);
    this.#live.delete(counted);
    if (responseFlags === "-") {
      this.#touch(counted.series).closed++;
      return;
    }
    const series = this.#touch(this.#find(counted.series.labels.with(FLAGS_INDEX, responseFlags)));
    series.closed++;
    series.failed++;
  }

  /**
   * The connection goes to another endpoint, because the first could not be reached.
   *
   * @param responseFlags of that failure.
   * @param labels of the other.
   */
  retried(
    connection: CountedConnection,
    responseFlags: string,
    labels: readonly string[],
  ): CountedConnection {
    this.closed(connection, responseFlags);
    this.#retries++;
    return this.opened(labels);
  }

  socketOpened(reporter: Reporter): void {
    this.#sockets.set(reporter, (this.#sockets.get(reporter) ?? 0) + 1);
  }

  socketClosed(reporter: Reporter): void {
    this.#sockets.set(reporter, (this.#sockets.get(reporter) ?? 0) - 1);
  }

  revocationRejected(reporter: Reporter): void {
    this.#revocations[reporter].rejected++;
  }

  revocationUntracked(reporter: Reporter): void {
    this.#revocations[reporter].untracked++;
  }

  /** @param labels see {@link lookupLabels}. */
  hostnameLookedUp(labels: readonly string[]): void {
    const key = labels.join("\0");
    const known = this.#lookups.get(key);
    if (known === undefined) this.#lookups.set(key, { labels, count: 1 });
    else known.count++;
  }

  unknownPolicy(decision: UnknownPolicyDecision): void {
    this.#unknownPolicies[decision]++;
  }

  /** Everything that happened since the last call. */
  collect(): TrafficSample {
    for (const counted of this.#live) this.#read(counted);
    const series = this.#changed.map((one) => {
      const { labels, opened, closed, failed, receivedBytes, sentBytes } = one;
      one.opened = one.closed = one.failed = one.receivedBytes = one.sentBytes = 0;
      one.changed = false;
      return { labels, opened, closed, failed, receivedBytes, sentBytes };
    });
    const socketsOpen = [...this.#sockets].map(([reporter, change]) => ({ reporter, change }));
    this.#changed = [];
    // Live connections keep their own series; label sets that nobody uses any more are forgotten.
    this.#series.clear();
    this.#seriesOf = new WeakMap();
    this.#sockets.clear();
    const unknownPolicies = this.#unknownPolicies;
    this.#unknownPolicies = { deny: 0, allow: 0 };
    const revocations = this.#revocations;
    this.#revocations = noRevocations();
    const lookups = [...this.#lookups.values()];
    this.#lookups.clear();
    const retries = this.#retries;
    this.#retries = 0;
    return { series, socketsOpen, unknownPolicies, revocations, lookups, retries };
  }

  #read(counted: Counted): void {
    const { relay } = counted;
    if (relay === undefined) return;
    const { bytesSent, bytesReceived } = relay;
    if (bytesSent === counted.receivedBytes && bytesReceived === counted.sentBytes) return;
    const series = this.#touch(counted.series);
    series.receivedBytes += bytesSent - counted.receivedBytes;
    series.sentBytes += bytesReceived - counted.sentBytes;
    counted.receivedBytes = bytesSent;
    counted.sentBytes = bytesReceived;
  }

  #find(labels: readonly string[]): Series {
    const known = this.#seriesOf.get(labels);
    if (known !== undefined) return known;
    const key = labels.join("\0");
    let series = this.#series.get(key);
    if (series === undefined) {
      series = {
        labels,
        opened: 0,
        closed: 0,
        failed: 0,
        receivedBytes: 0,
        sentBytes: 0,
        changed: false,
      };
      this.#series.set(key, series);
    }
    this.#seriesOf.set(labels, series);
    return series;
  }

  #touch(series: Series): Series {
    if (!series.changed) {
      series.changed = true;
      this.#changed.push(series);
    }
    return series;
  }
}

/** In the order of {@link LOOKUP_LABELS}; empty is `unknown`. */
export function lookupLabels(source: Workload, hostname: string): readonly string[] {
  const labels = [
    source.workloadName,
    source.canonicalName,
    source.canonicalRevision,
    source.namespace,
    formatSpiffeId(workloadIdentity(source)),
    source.canonicalName,
    source.canonicalRevision,
    source.clusterId,
    hostname,
  ];
  return labels.map((value) => value || "unknown");
}

function noRevocations(): Record<Reporter, RevocationCounts> {
  return { source: { rejected: 0, untracked: 0 }, destination: { rejected: 0, untracked: 0 } };
}
