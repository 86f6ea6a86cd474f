/**
 * What is said about a connection: its access log lines and its traffic counters, from one record.
 *
 * @see spec data-path 10.2 for the lines, 10.3 and 4.8 for the labels.
 */
import type { Relay } from "../engine/engine.ts";
import { formatSpiffeId, type Identity, sameIdentity } from "../mesh/identity.ts";
import type { Service } from "../mesh/service.ts";
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import { type Workload, workloadIdentity } from "../mesh/workload.ts";
import type { Clock } from "../runtime/clock.ts";
import { type LogField, LogFieldGroup, type Logger } from "../telemetry/logger.ts";
import type { Baggage } from "../wire/baggage.ts";
import { type ProxyError, responseFlag } from "./proxy-error.ts";
import type { CountedConnection, Reporter, TrafficMetrics } from "./traffic-metrics.ts";

/** A connection as operators list it. */
export interface ConnectionSummary {
  readonly source: SocketAddress;
  /** Outbound: the address dialled. Inbound: the host name asked for, when one was named. */
  readonly originalDestination: SocketAddress | string | undefined;
  readonly actualDestination: SocketAddress;
  readonly protocol: "HBONE" | "TCP" | "DOUBLEHBONE";
}

/** The connections of one workload. */
export interface LiveConnections {
  readonly inbound: readonly ConnectionSummary[];
  readonly outbound: readonly ConnectionSummary[];
}

/** Who answered from behind a network gateway, where the mesh of this network does not reach. */
export interface FarDestination {
  /** What it says of itself. */
  readonly baggage: Baggage | undefined;
  /** What it proved to be. */
  readonly identity: Identity | undefined;
}

/** Who talks to whom, as known when a connection is opened. */
export interface ConnectionDescription extends Omit<ConnectionSummary, "protocol"> {
  /** `source` reports outbound connections, `destination` inbound ones. */
  readonly reporter: Reporter;
  readonly sourceWorkload: Workload | undefined;
  /** Speaks for the source where no workload was found. */
  readonly sourceBaggage: Baggage | undefined;
  /** Proved in a handshake; `undefined` for plaintext. */
  readonly sourceIdentity: Identity | undefined;
  /** The peer dialled (outbound), the own tunnel address (HBONE) or the original destination. */
  readonly destination: SocketAddress;
  /** `:authority` of the CONNECT. */
  readonly hboneAuthority: string | undefined;
  readonly destinationService: Service | undefined;
  readonly destinationWorkload: Workload | undefined;
  /** Takes the place of the workload, which is the network gateway then. */
  readonly far: FarDestination | undefined;
  readonly mutualTls: boolean;
}

/** What the lines and counters of all connections between two workloads say alike. */
interface Parties
  extends Pick<
    ConnectionDescription,
    "reporter" | "sourceIdentity" | "destinationService" | "mutualTls"
  > {
  readonly labels: readonly string[];
  readonly source: LogFieldGroup | undefined;
  readonly destination: LogFieldGroup;
}

export interface ConnectionReporterDeps {
  readonly log: Logger;
  readonly traffic: TrafficMetrics;
  readonly clock: Clock;
}

/** Writes the reports of one workload's connections. */
export class ConnectionReporter {
  readonly #deps: ConnectionReporterDeps;
  /** Source → destination → what was said of the last connection between them. */
  readonly #parties = new WeakMap<Workload, WeakMap<Workload, Parties>>();

  constructor({ log, traffic, clock }: ConnectionReporterDeps) {
    this.#deps = { log: log.target("access"), traffic, clock };
  }

  /** @param startedAt monotonic milliseconds of the accept or the request. */
  opened(description: ConnectionDescription, startedAt: number): ConnectionReport {
    const { log, traffic } = this.#deps;
    const parties = this.#partiesOf(description);
    if (log.enabled("debug")) {
      log.write("debug", "connection opened", describe(description, parties));
    }
    const counted = traffic.opened(parties.labels);
    return new ConnectionReport(this.#deps, description, parties, startedAt, counted);
  }

  /**
   * The connection goes to another endpoint.
   *
   * @param error why not to the one before.
   */
  retried(report: ConnectionReport, description: ConnectionDescription, error: ProxyError): void {
    const { log } = this.#deps;
    const parties = this.#partiesOf(description);
    report.retried(description, parties, error);
    if (log.enabled("debug")) {
      log.write("debug", "connection opened", describe(description, parties));
    }
  }

  #partiesOf(connection: ConnectionDescription): Parties {
    const { sourceWorkload, destinationWorkload, far } = connection;
    if (sourceWorkload === undefined || destinationWorkload === undefined || far !== undefined) {
      return describeParties(connection);
    }
    let bySource = this.#parties.get(sourceWorkload);
    if (bySource === undefined) {
      bySource = new WeakMap();
      this.#parties.set(sourceWorkload, bySource);
    }
    const known = bySource.get(destinationWorkload);
    if (known !== undefined && isBetween(known, connection)) return known;
    const parties = describeParties(connection);
    bySource.set(destinationWorkload, parties);
    return parties;
  }

  /** Refused before anything was known about it: one line, no metrics. */
  refused(
    direction: "inbound" | "outbound",
    source: SocketAddress,
    destination: SocketAddress,
    error: ProxyError,
  ): void {
    const { log } = this.#deps;
    if (!log.enabled("warn")) return;
    log.write("warn", "connection failed", [
      ["src.addr", { bare: formatSocketAddress(source) }],
      ["dst.addr", { bare: formatSocketAddress(destination) }],
      ["direction", direction],
      ["error", error.message],
    ]);
  }
}

/** One open connection. Made by {@link ConnectionReporter.opened}. */
export class ConnectionReport {
  readonly #deps: ConnectionReporterDeps;
  readonly #startedAt: number;
  #description: ConnectionDescription;
  #parties: Parties;
  #counted: CountedConnection;
  #retries = 0;
  /** Of the last endpoint that could not be reached. */
  #retryError = "";

  constructor(
    deps: ConnectionReporterDeps,
    description: ConnectionDescription,
    parties: Parties,
    startedAt: number,
    counted: CountedConnection,
  ) {
    this.#deps = deps;
    this.#description = description;
    this.#parties = parties;
    this.#startedAt = startedAt;
    this.#counted = counted;
  }

  get summary(): ConnectionSummary {
    const { source, originalDestination, actualDestination, hboneAuthority, far } =
      this.#description;
    const tunnel = far === undefined ? "HBONE" : "DOUBLEHBONE";
    const protocol = hboneAuthority === undefined ? "TCP" : tunnel;
    return { source, originalDestination, actualDestination, protocol };
  }

  /** The counters of each endpoint balance: the failure counts there, the rest at the new one. */
  retried(description: ConnectionDescription, parties: Parties, error: ProxyError): void {
    const { traffic } = this.#deps;
    this.#retries++;
    this.#retryError = `${formatSocketAddress(this.#description.destination)}: ${error.message}`;
    this.#counted = traffic.retried(this.#counted, responseFlag(error), parties.labels);
    this.#description = description;
    this.#parties = parties;
  }

  /** From now on the relay's bytes count. */
  relaying(relay: Relay): void {
    this.#counted.relay = relay;
  }

  /** Call once, at the end. */
  finished(error: ProxyError | undefined): void {
    const { log, traffic, clock } = this.#deps;
    traffic.closed(this.#counted, error === undefined ? "-" : responseFlag(error));
    const level = error === undefined ? "info" : "error";
    if (!log.enabled(level)) return;
    const relay = this.#counted.relay;
    const upstreamBytes = relay?.bytesSent ?? 0;
    const downstreamBytes = relay?.bytesReceived ?? 0;
    const outbound = this.#description.reporter === "source";
    const fields = describe(this.#description, this.#parties);
    fields.push(
      ["bytes_sent", outbound ? upstreamBytes : downstreamBytes],
      ["bytes_recv", outbound ? downstreamBytes : upstreamBytes],
      ["duration", `${Math.trunc(clock.monotonic() - this.#startedAt)}ms`],
    );
    if (this.#retries > 0) {
      fields.push(["retries", this.#retries], ["retry_error", this.#retryError]);
    }
    if (error !== undefined) fields.push(["error", error.message]);
    log.write(level, "connection complete", fields);
  }
}

/** The fields that are known from the start; what is not known is left out. */
function describe(
  connection: ConnectionDescription,
  parties: Parties,
): (LogField | LogFieldGroup)[] {
  const fields: (LogField | LogFieldGroup)[] = [];
  fields.push(["src.addr", { bare: formatSocketAddress(connection.source) }]);
  if (parties.source !== undefined) fields.push(parties.source);
  fields.push(["dst.addr", { bare: formatSocketAddress(connection.destination) }]);
  if (connection.hboneAuthority !== undefined) {
    fields.push(["dst.hbone_addr", { bare: connection.hboneAuthority }]);
  }
  fields.push(parties.destination);
  return fields;
}

function isBetween(parties: Parties, connection: ConnectionDescription): boolean {
  const { sourceIdentity } = parties;
  const isSameSource =
    sourceIdentity === connection.sourceIdentity ||
    (sourceIdentity !== undefined &&
      connection.sourceIdentity !== undefined &&
      sameIdentity(sourceIdentity, connection.sourceIdentity));
  return (
    isSameSource &&
    parties.reporter === connection.reporter &&
    parties.destinationService === connection.destinationService &&
    parties.mutualTls === connection.mutualTls
  );
}

function describeParties(connection: ConnectionDescription): Parties {
  const { reporter, sourceIdentity, destinationService, mutualTls } = connection;
  const { sourceWorkload, sourceBaggage, destinationWorkload, far } = connection;
  const source = fieldsOf([
    ["src.workload", sourceWorkload?.name ?? baggageName(sourceBaggage)],
    ["src.namespace", sourceWorkload?.namespace ?? sourceBaggage?.namespace],
    ["src.identity", mutualTls ? spiffe(sourceIdentity) : undefined],
    ["src.cluster", sourceWorkload?.clusterId ?? sourceBaggage?.clusterId],
  ]);
  const owner = far === undefined ? destinationWorkload : far.baggage;
  const destination = fieldsOf([
    ["dst.service", destinationService?.hostname],
    ["dst.workload", far === undefined ? destinationWorkload?.name : baggageName(far.baggage)],
    ["dst.namespace", owner?.namespace],
    ["dst.identity", mutualTls ? destinationPrincipal(connection) : undefined],
    ["dst.cluster", owner?.clusterId],
    ["direction", reporter === "source" ? "outbound" : "inbound"],
  ]);
  return {
    reporter,
    sourceIdentity,
    destinationService,
    mutualTls,
    labels: trafficLabels(connection),
    source: source.length === 0 ? undefined : new LogFieldGroup(source),
    destination: new LogFieldGroup(destination),
  };
}

/** Without those that are not known. */
function fieldsOf(
  pairs: readonly (readonly [name: string, value: string | undefined])[],
): readonly LogField[] {
  const fields: LogField[] = [];
  for (const [name, value] of pairs) {
    if (value !== undefined && value !== "") fields.push([name, value]);
  }
  return fields;
}

/** In the order of {@link TRAFFIC_LABELS}; missing or empty is `unknown`. */
function trafficLabels(connection: ConnectionDescription): readonly string[] {
  const { sourceWorkload, destinationWorkload, destinationService: service, far } = connection;
  const destination = far === undefined ? destinationWorkload : far.baggage;
  const destinationLocality = far === undefined ? destinationWorkload?.locality : far.baggage;
  const source = sourceWorkload ?? connection.sourceBaggage;
  const locality = sourceWorkload?.locality ?? connection.sourceBaggage;
  const labels = [
    connection.reporter,
    source?.workloadName,
    source?.canonicalName,
    source?.canonicalRevision,
    source?.namespace,
    connection.mutualTls ? spiffe(connection.sourceIdentity) : undefined,
    // An app is known by its workload where only baggage speaks for it.
    sourceWorkload === undefined ? source?.workloadName : sourceWorkload.canonicalName,
    source?.canonicalRevision,
    source?.clusterId,
    service?.hostname,
    service?.namespace,
    service?.name,
    destination?.workloadName,
    destination?.canonicalName,
    destination?.canonicalRevision,
    destination?.namespace,
    destinationPrincipal(connection),
    far === undefined ? destination?.canonicalName : destination?.workloadName,
    destination?.canonicalRevision,
    destination?.clusterId,
    "tcp",
    "-",
    connection.mutualTls ? "mutual_tls" : undefined,
    locality?.region,
    locality?.zone,
    destinationLocality?.region,
    destinationLocality?.zone,
  ];
  return labels.map((value) => value || "unknown");
}

function destinationPrincipal(connection: ConnectionDescription): string | undefined {
  const { destinationWorkload, far } = connection;
  if (far !== undefined) return spiffe(far.identity);
  return destinationWorkload && formatSpiffeId(workloadIdentity(destinationWorkload));
}

function baggageName(baggage: Baggage | undefined): string | undefined {
  return baggage?.canonicalName || baggage?.workloadName;
}

function spiffe(identity: Identity | undefined): string | undefined {
  return identity && formatSpiffeId(identity);
}
