/**
 * 15001: a connection captured on its way out of the workload. Where it goes is decided in
 * {@link file://./outbound-route.ts}; here it is accepted, dialled, relayed and reported.
 *
 * @see spec data-path 2.1, 3.7, 3.8
 */
import type { NetnsFd, SocketEnd } from "../engine/engine.ts";
import { isLoopback } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Logger } from "../telemetry/logger.ts";
import { makeTraceparent, parseTraceparent } from "../wire/traceparent.ts";
import type {
  ConnectionDescription,
  ConnectionReport,
  ConnectionReporter,
} from "./connection-report.ts";
import { resolveRoute } from "./hostname-lookup.ts";
import { LiveSet } from "./live-set.ts";
import type { LocalWorkload } from "./local-workload.ts";
import {
  chooseOutboundRoute,
  type OpenRoute,
  type ResolvedRoute,
  type UnresolvedRoute,
} from "./outbound-route.ts";
import { type ConnectionOwner, ProxiedConnection } from "./proxied-connection.ts";
import { isEndpointFailure, ProxyError, selfCallError } from "./proxy-error.ts";
import { illegalPorts, type ProxyDeps, type ProxyOptions } from "./proxy-options.ts";
import { gatewayKey, routeNeeds } from "./route-needs.ts";
import { UpstreamConnector } from "./upstream-connector.ts";

export interface OutboundDeps extends ProxyDeps {
  /** With the span of the workload's proxy. */
  readonly log: Logger;
  readonly local: LocalWorkload;
  readonly reporter: ConnectionReporter;
}

/** How a client tells where it wants to go. */
export interface TargetQuestion {
  readonly ask: () => Promise<SocketAddress | ProxyError>;
  /** The answer was no good; not called for a connection that had ended before. */
  readonly refused: (error: ProxyError) => void;
}

/** A connection and on whose behalf it is. */
interface Call {
  readonly connection: ProxiedConnection;
  readonly end: SocketEnd;
  readonly target: SocketAddress;
  readonly source: Workload;
  readonly traceparent: string;
  /** Monotonic milliseconds of the accept. */
  readonly startedAt: number;
}

export class Outbound implements ConnectionOwner {
  readonly live: LiveSet<ProxiedConnection> = new LiveSet();
  readonly #deps: OutboundDeps;
  readonly #options: ProxyOptions & { readonly netns: NetnsFd | undefined };
  readonly #illegalPorts: ReadonlySet<number>;
  readonly #upstreams: UpstreamConnector;

  constructor(deps: OutboundDeps, options: ProxyOptions & { readonly netns: NetnsFd | undefined }) {
    this.#deps = deps;
    this.#options = options;
    this.#illegalPorts = illegalPorts(options);
    this.#upstreams = new UpstreamConnector(deps, options);
  }

  /** Takes the end. */
  accept(end: SocketEnd): void {
    const connection = this.#begin(end);
    connection.guard(this.#serve(connection, end, end.originalDestination), this.#deps.log);
  }

  /** Takes the end of a client that is asked where it wants to go. */
  acceptAsking(end: SocketEnd, question: TargetQuestion): void {
    const connection = this.#begin(end);
    connection.guard(this.#serveAsked(connection, end, question), this.#deps.log);
  }

  ended(connection: ProxiedConnection): void {
    this.live.delete(connection);
    this.#deps.traffic.socketClosed("source");
  }

  /** Connections go on; pooled tunnels end with their last. Idempotent. */
  drain(): void {
    this.#upstreams.drain();
  }

  /** Closes pooled tunnels; call when no connection is left. */
  close(): void {
    this.#upstreams.close();
  }

  #begin(end: SocketEnd): ProxiedConnection {
    const connection = new ProxiedConnection(end, this);
    this.live.add(connection);
    this.#deps.traffic.socketOpened("source");
    return connection;
  }

  async #serveAsked(
    connection: ProxiedConnection,
    end: SocketEnd,
    { ask, refused }: TargetQuestion,
  ): Promise<void> {
    const target = await ask();
    if (connection.ended) return;
    if (target instanceof ProxyError) {
      refused(target);
      connection.fail(target);
    } else await this.#serve(connection, end, target);
  }

  async #serve(
    connection: ProxiedConnection,
    end: SocketEnd,
    target: SocketAddress,
  ): Promise<void> {
    const { clock, random, mesh, learn } = this.#deps;
    const startedAt = clock.monotonic();
    const traceparent = makeTraceparent(random);
    const refuse = (error: ProxyError): void => {
      this.#deps.reporter.refused("outbound", end.peer, target, error);
      connection.fail(error);
    };
    if (isLoopback(target.ip) && this.#illegalPorts.has(target.port)) {
      return refuse(selfCallError());
    }
    const source =
      this.#deps.local.find() ??
      (await this.#deps.local.waitFor(() => this.#stateLog(traceparent)));
    if (connection.ended) return;
    if (source instanceof ProxyError) return refuse(source);
    const { network } = this.#options;
    if (learn !== undefined) {
      await learnRoute(learn, () => routeNeeds(mesh, { source, target, network }));
      if (connection.ended) return;
    }
    const call: Call = { connection, end, target, source, traceparent, startedAt };
    const route = await this.#choose(call, undefined);
    if (connection.ended) return;
    if (route.kind === "refuse") return refuse(route.error);
    await this.#relay(call, route);
  }

  /** Tries other endpoints while nothing was sent. */
  async #relay(call: Call, first: OpenRoute): Promise<void> {
    const { connection, end, source, traceparent } = call;
    const request = { connection, source, client: end.peer, traceparent };
    let route = first;
    let report: ConnectionReport | undefined;
    let failure: ProxyError | undefined;
    let tried: Set<string> | undefined;
    for (let left = this.#options.connectRetriesMax; ; left--) {
      // Who is behind a network gateway is known when it has answered.
      const isFar = route.kind === "hbone" && route.beyond !== undefined;
      if (!isFar) report = this.#report(call, this.#describe(call, route), report, failure);
      try {
        const upstream = await this.#upstreams.connect(route, request);
        if (route.upstream !== undefined) this.#deps.affinity.keep(route.upstream, end.peer.ip);
        if (isFar) {
          const description = { ...this.#describe(call, route), far: upstream.far };
          this.#report(call, description, report, failure);
        }
        return connection.relay(this.#deps.engine, end, upstream.end, upstream.lease);
      } catch (error) {
        if (!(error instanceof ProxyError)) throw error;
        if (isFar) report = this.#report(call, this.#describe(call, route), report, failure);
        failure = error;
        tried ??= new Set();
        const next = left > 0 ? await this.#chooseAnother(call, route, error, tried) : undefined;
        if (connection.ended) return;
        if (next === undefined) return connection.fail(error);
        route = next;
      }
    }
  }

  /** @param failure of the endpoint that was reported before. */
  #report(
    { connection, startedAt }: Call,
    description: ConnectionDescription,
    before: ConnectionReport | undefined,
    failure: ProxyError | undefined,
  ): ConnectionReport {
    const { reporter } = this.#deps;
    if (before !== undefined && failure !== undefined) {
      if (!connection.ended) reporter.retried(before, description, failure);
      return before;
    }
    const report = reporter.opened(description, startedAt);
    connection.opened(report);
    return report;
  }

  /** @param tried uids of what was tried before this route; it is added. */
  async #chooseAnother(
    call: Call,
    route: OpenRoute,
    error: ProxyError,
    tried: Set<string>,
  ): Promise<OpenRoute | undefined> {
    if (route.workload === undefined || !isEndpointFailure(error)) return undefined;
    if (call.connection.ended) return undefined;
    tried.add(route.workload.uid);
    const next = untried(await this.#choose(call, tried), tried);
    if (next !== undefined || route.kind !== "hbone" || route.beyond === undefined) return next;
    // No other gateway leads there.
    tried.add(route.beyond.workload.uid);
    return untried(await this.#choose(call, tried), tried);
  }

  async #choose(
    { end, target, source, traceparent }: Call,
    tried: ReadonlySet<string> | undefined,
  ): Promise<ResolvedRoute> {
    const { mesh, random, learn, outliers, affinity: sessions } = this.#deps;
    const query = {
      source,
      downstream: end.peer.ip,
      target,
      network: this.#options.network,
      illegalPorts: this.#illegalPorts,
      bias: { tried, outliers, affinity: { sessions, client: end.peer.ip } },
    };
    let chosen = chooseOutboundRoute(mesh, query, random);
    if (learn !== undefined && chosen.kind === "refuse" && chosen.missing !== undefined) {
      // Which endpoint is chosen, and so which gateway is needed, is known only now.
      await learn(gatewayKey(chosen.missing));
      chosen = chooseOutboundRoute(mesh, query, random);
    }
    return chosen.kind === "unresolved" ? this.#resolve(source, chosen, traceparent) : chosen;
  }

  #describe({ end, target, source }: Call, route: OpenRoute): ConnectionDescription {
    const hbone = route.kind === "hbone";
    return {
      reporter: "source",
      source: end.peer,
      originalDestination: target,
      actualDestination: route.remote,
      sourceWorkload: source,
      sourceBaggage: undefined,
      sourceIdentity: hbone ? this.#deps.local.identity(source) : undefined,
      destination: route.remote,
      hboneAuthority: hbone ? route.authority : undefined,
      destinationService: route.service,
      destinationWorkload: route.workload,
      far: undefined,
      mutualTls: hbone,
    };
  }

  #resolve(source: Workload, route: UnresolvedRoute, traceparent: string): Promise<ResolvedRoute> {
    const { addressesOf, traffic, random } = this.#deps;
    const log = this.#stateLog(traceparent);
    return resolveRoute({ addressesOf, traffic, random, log }, source, route);
  }

  #stateLog(traceparent: string): Logger {
    const id = parseTraceparent(traceparent) ?? "";
    return this.#deps.log.target("ztunnel::state").span("outbound", [["id", { bare: id }]]);
  }
}

/** Never one that leads past the mesh, as nobody's address would. */
function untried(route: ResolvedRoute, tried: ReadonlySet<string>): OpenRoute | undefined {
  if (route.kind === "refuse" || route.workload === undefined) return undefined;
  return tried.has(route.workload.uid) ? undefined : route;
}

/** Asks for each key once: what is still missing then does not exist. */
async function learnRoute(
  learn: (key: string) => Promise<void>,
  needs: () => readonly string[],
): Promise<void> {
  const asked = new Set<string>();
  for (;;) {
    const fresh = needs().filter((key) => !asked.has(key));
    if (fresh.length === 0) return;
    for (const key of fresh) asked.add(key);
    await Promise.all(fresh.map(learn));
  }
}
