/**
 * 15001: a connection captured on its way out of the workload. Where it goes is decided in
 * {@link file://./outbound-route.ts}; here it is accepted, dialled, relayed and reported.
 *
 * @see spec data-path 2.1, 3.7, 3.8
 */
import type { ClientTunnel, NetnsFd, SocketEnd } from "../engine/engine.ts";
import { EngineError } from "../engine/engine-error.ts";
import { connectHeaders } from "../hbone/connect-request.ts";
import { HbonePool, type HboneTarget } from "../hbone/hbone-pool.ts";
import { isLoopback } from "../mesh/ip-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Logger } from "../telemetry/logger.ts";
import { expectIdentity } from "../tls/spiffe-verifier.ts";
import { makeTraceparent, parseTraceparent } from "../wire/traceparent.ts";
import type { ConnectionReporter } from "./connection-report.ts";
import { resolveRoute } from "./hostname-lookup.ts";
import { LiveSet } from "./live-set.ts";
import type { LocalWorkload } from "./local-workload.ts";
import { chooseOutboundRoute, type ResolvedRoute, type UnresolvedRoute } from "./outbound-route.ts";
import { type ConnectionOwner, ProxiedConnection } from "./proxied-connection.ts";
import {
  httpStatusError,
  identityError,
  outboundConnectError,
  ProxyError,
  selfCallError,
  waypointError,
} from "./proxy-error.ts";
import { ILLEGAL_PORTS, type ProxyDeps, type ProxyOptions } from "./proxy-options.ts";
import { RevocableTunnel } from "./revocable-tunnel.ts";
import { routeNeeds } from "./route-needs.ts";

export interface OutboundDeps extends ProxyDeps {
  /** With the span of the workload's proxy. */
  readonly log: Logger;
  readonly local: LocalWorkload;
  readonly reporter: ConnectionReporter;
}

export class Outbound implements ConnectionOwner {
  readonly live: LiveSet<ProxiedConnection> = new LiveSet();
  readonly #deps: OutboundDeps;
  readonly #options: ProxyOptions & { readonly netns: NetnsFd | undefined };
  readonly #pool: HbonePool;

  constructor(deps: OutboundDeps, options: ProxyOptions & { readonly netns: NetnsFd | undefined }) {
    this.#deps = deps;
    this.#options = options;
    this.#pool = new HbonePool(
      { dial: (target) => this.#dial(target), clock: deps.clock },
      options.pool,
    );
  }

  /** Takes the end. */
  accept(end: SocketEnd): void {
    const connection = new ProxiedConnection(end, this);
    this.live.add(connection);
    this.#deps.traffic.socketOpened("source");
    void this.#serve(connection, end);
  }

  ended(connection: ProxiedConnection): void {
    this.live.delete(connection);
    this.#deps.traffic.socketClosed("source");
  }

  /** Closes pooled tunnels; call when no connection is left. */
  close(): void {
    this.#pool.close();
  }

  async #serve(connection: ProxiedConnection, end: SocketEnd): Promise<void> {
    const { clock, random, mesh } = this.#deps;
    const startedAt = clock.monotonic();
    const traceparent = makeTraceparent(random);
    const target = end.originalDestination;
    const refuse = (error: ProxyError): void => {
      this.#deps.reporter.refused("outbound", end.peer, target, error);
      connection.fail(error);
    };
    if (isLoopback(target.ip) && ILLEGAL_PORTS.has(target.port)) {
      return refuse(selfCallError());
    }
    const source =
      this.#deps.local.find() ??
      (await this.#deps.local.waitFor(() => this.#stateLog(traceparent)));
    if (connection.ended) return;
    if (source instanceof ProxyError) return refuse(source);
    const { network } = this.#options;
    const { learn } = this.#deps;
    if (learn !== undefined) {
      await learnRoute(learn, () => routeNeeds(mesh, { source, target, network }));
      if (connection.ended) return;
    }
    const chosen = chooseOutboundRoute(
      mesh,
      { source, downstream: end.peer.ip, target, network, illegalPorts: ILLEGAL_PORTS },
      random,
    );
    const route =
      chosen.kind === "unresolved" ? await this.#resolve(source, chosen, traceparent) : chosen;
    if (connection.ended) return;
    if (route.kind === "refuse") return refuse(route.error);
    this.#open(connection, end, source, route, startedAt);
    try {
      if (route.kind === "tcp") await this.#relayTcp(connection, end, route);
      else await this.#relayHbone(connection, end, source, route, traceparent);
    } catch (error) {
      connection.fail(upstreamError(error, route));
    }
  }

  #open(
    connection: ProxiedConnection,
    end: SocketEnd,
    source: Workload,
    route: Exclude<ResolvedRoute, { kind: "refuse" }>,
    startedAt: number,
  ): void {
    const hbone = route.kind === "hbone";
    const report = this.#deps.reporter.opened(
      {
        reporter: "source",
        source: end.peer,
        originalDestination: end.originalDestination,
        actualDestination: route.remote,
        sourceWorkload: source,
        sourceBaggage: undefined,
        sourceIdentity: hbone ? this.#deps.local.identity(source) : undefined,
        destination: route.remote,
        hboneAuthority: hbone ? route.authority : undefined,
        destinationService: route.service,
        destinationWorkload: route.workload,
        mutualTls: hbone,
      },
      startedAt,
    );
    connection.opened(report);
  }

  async #relayTcp(
    connection: ProxiedConnection,
    end: SocketEnd,
    route: Extract<ResolvedRoute, { kind: "tcp" }>,
  ): Promise<void> {
    const { mark, connectTimeoutMs, keepAlive } = this.#options;
    const upstream = await this.#deps.engine.connect({
      netns: this.#options.netns,
      remote: route.remote,
      source: undefined,
      mark,
      timeoutMs: connectTimeoutMs,
      keepAlive,
    });
    connection.relay(this.#deps.engine, end, upstream);
  }

  async #relayHbone(
    connection: ProxiedConnection,
    end: SocketEnd,
    source: Workload,
    route: Extract<ResolvedRoute, { kind: "hbone" }>,
    traceparent: string,
  ): Promise<void> {
    const stream = await this.#pool.open(
      {
        source: this.#deps.local.identity(source),
        sourceIp: end.peer.ip,
        expected: route.expected,
        remote: route.remote,
      },
      route.authority,
      connectHeaders({
        source,
        client: end.peer,
        serviceHostname: route.service?.hostname,
        traceparent,
      }),
    );
    if (stream.answer.end === undefined) throw httpStatusError(stream.answer.status);
    const { tunnel } = stream;
    const lease =
      tunnel instanceof RevocableTunnel ? tunnel.join(connection, stream.lease) : stream.lease;
    connection.relay(this.#deps.engine, end, stream.answer.end, lease);
  }

  async #dial(target: HboneTarget): Promise<ClientTunnel> {
    const {
      mark,
      connectTimeoutMs,
      keepAlive,
      clientTunnel,
      tls12,
      postQuantumOnly,
      checkRevocation,
    } = this.#options;
    const certificate = await this.#deps.certificateFor(target.source).catch((error: unknown) => {
      throw identityError(error as Error);
    });
    const { engine, revocations } = this.#deps;
    let chainDer: Uint8Array = new Uint8Array();
    const isRevoked = (shown: Uint8Array): boolean => {
      chainDer = shown;
      return revocations.refuses("source", shown);
    };
    const tunnel = await engine.dialTunnel({
      connect: {
        netns: this.#options.netns,
        remote: target.remote,
        source: undefined,
        mark,
        timeoutMs: connectTimeoutMs,
        keepAlive,
      },
      tls: {
        certificate,
        verifyPeer: expectIdentity(target.expected),
        ...(checkRevocation ? { isRevoked } : {}),
        tls12,
        postQuantumOnly,
      },
      settings: clientTunnel,
    });
    return checkRevocation ? new RevocableTunnel(revocations, tunnel, chainDer) : tunnel;
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

/** @throws anything that neither the pool nor the engine throws: a bug. */
function upstreamError(
  error: unknown,
  route: Exclude<ResolvedRoute, { kind: "refuse" }>,
): ProxyError {
  if (error instanceof ProxyError) return error;
  if (!(error instanceof EngineError)) throw error;
  const failure = outboundConnectError(error, route.kind === "hbone");
  return route.kind === "hbone" && route.hop === "waypoint"
    ? waypointError(failure, route.workload)
    : failure;
}
