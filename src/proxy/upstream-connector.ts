/**
 * From a route to the end of a connection that leads there: a socket, a stream of a tunnel, or of a
 * tunnel inside of a tunnel.
 *
 * @see spec data-path 3.5, 3.7, 3.8
 */
import type {
  ClientTunnel,
  ConnectOptions,
  End,
  NetnsFd,
  TunnelOptions,
  VerifyPeer,
} from "../engine/engine.ts";
import { EngineError } from "../engine/engine-error.ts";
import { connectHeaders } from "../hbone/connect-request.ts";
import { HbonePool, type PooledStream } from "../hbone/hbone-pool.ts";
import type { HboneTarget } from "../hbone/shared-tunnel.ts";
import type { Identity } from "../mesh/identity.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Upstream } from "../state/upstream.ts";
import type { Logger } from "../telemetry/logger.ts";
import { expectIdentity, peerIdentities } from "../tls/spiffe-verifier.ts";
import { parseBaggage } from "../wire/baggage.ts";
import type { FarDestination } from "./connection-report.ts";
import { httpStatusError, outboundConnectError } from "./engine-failure.ts";
import type { LocalWorkload } from "./local-workload.ts";
import type { BeyondGateway, HboneRoute, OpenRoute } from "./outbound-route.ts";
import type { ProxiedConnection, UpstreamLease } from "./proxied-connection.ts";
import { hopError, identityError, isEndpointFailure, ProxyError } from "./proxy-error.ts";
import type { ProxyDeps, ProxyOptions } from "./proxy-options.ts";
import { type Retell, RevocableTunnel } from "./revocable-tunnel.ts";
import { TunnelLosses } from "./tunnel-losses.ts";

export interface UpstreamConnectorDeps
  extends Pick<ProxyDeps, "engine" | "certificateFor" | "revocations" | "outliers" | "clock"> {
  /** With the span of the workload's proxy. */
  readonly log: Logger;
  readonly local: LocalWorkload;
}

/** On whose behalf. */
export interface UpstreamRequest {
  /** Ended when the peer's certificate is revoked. */
  readonly connection: ProxiedConnection;
  readonly source: Workload;
  readonly client: SocketAddress;
  readonly traceparent: string;
}

export interface ConnectedUpstream {
  readonly end: End;
  /** To release when the end is no longer used. */
  readonly lease: UpstreamLease | undefined;
  /** Who answered from behind a network gateway. */
  readonly far: FarDestination | undefined;
}

export class UpstreamConnector {
  readonly #deps: UpstreamConnectorDeps;
  readonly #options: ProxyOptions & { readonly netns: NetnsFd | undefined };
  readonly #losses: TunnelLosses;
  readonly #pool: HbonePool;

  constructor(
    deps: UpstreamConnectorDeps,
    options: ProxyOptions & { readonly netns: NetnsFd | undefined },
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#losses = new TunnelLosses(deps);
    this.#pool = new HbonePool(
      {
        dial: (target) => this.#dial(target),
        lost: ({ remote }, error, streamCount) => this.#losses.report(remote, error, streamCount),
        clock: deps.clock,
      },
      options.pool,
    );
  }

  /** @throws ProxyError in the words of the access log. */
  connect(route: OpenRoute, request: UpstreamRequest): Promise<ConnectedUpstream> {
    return route.kind === "hbone" && route.beyond !== undefined
      ? this.#connectBeyond(route, route.beyond, request)
      : this.#connectNear(route, request);
  }

  /** Tunnels end with their last connection, idle ones now. Idempotent. */
  drain(): void {
    this.#pool.drain();
  }

  /** Closes pooled tunnels; call when no connection is left. */
  close(): void {
    this.#pool.close();
    this.#losses.close();
  }

  async #connectNear(route: OpenRoute, request: UpstreamRequest): Promise<ConnectedUpstream> {
    try {
      const connected =
        route.kind === "hbone"
          ? this.#joined(await this.#openStream(route, request), route, request.connection)
          : {
              end: await this.#deps.engine.connect(this.#connectOptions(route.remote)),
              lease: undefined,
              far: undefined,
            };
      this.#came(route.upstream);
      return connected;
    } catch (error) {
      const isHbone = route.kind === "hbone";
      const failure = upstreamError(error, isHbone, (cause) => atHop(cause, route));
      // Waypoints and gateways also say that of what is behind them.
      const isOthers =
        failure.code === "unavailable" && route.kind === "hbone" && route.hop !== "destination";
      if (!isOthers) this.#failed(route.upstream, failure);
      throw failure;
    }
  }

  /** Through a tunnel of its own, inside of a stream to the gateway. */
  async #connectBeyond(
    route: HboneRoute,
    beyond: BeyondGateway,
    request: UpstreamRequest,
  ): Promise<ConnectedUpstream> {
    const gateway = await this.#connectNear(route, request);
    try {
      const connected = await this.#connectInside(gateway, route, beyond, request);
      this.#came(beyond.upstream);
      return connected;
    } catch (error) {
      const failure = upstreamError(error, true, (cause) => beyondGateway(cause, route));
      this.#failed(beyond.upstream, failure);
      throw failure;
    }
  }

  #came(upstream: Upstream | undefined): void {
    if (upstream !== undefined) this.#deps.outliers?.succeeded(upstream);
  }

  #failed(upstream: Upstream | undefined, failure: ProxyError): void {
    if (upstream !== undefined && isEndpointFailure(failure)) {
      this.#deps.outliers?.failed(upstream);
    }
  }

  #openStream(
    route: HboneRoute,
    { source, client, traceparent }: UpstreamRequest,
  ): Promise<PooledStream> {
    return this.#pool.open(
      {
        source: this.#deps.local.identity(source),
        sourceIp: client.ip,
        expected: route.expected,
        destinationUid: route.workload.uid,
        remote: route.remote,
      },
      route.authority,
      connectHeaders({
        baggage: this.#deps.local.baggage(source),
        client,
        serviceHostname: route.service?.hostname,
        traceparent,
      }),
    );
  }

  #joined(
    { answer, tunnel, lease }: PooledStream,
    route: HboneRoute,
    connection: ProxiedConnection,
  ): ConnectedUpstream {
    if (answer.end === undefined) throw httpStatusError(answer.status);
    const joined =
      tunnel instanceof RevocableTunnel
        ? tunnel.join(connection, lease, (cause) => atHop(cause, route))
        : lease;
    return { end: answer.end, lease: joined, far: undefined };
  }

  async #connectInside(
    { end, lease }: ConnectedUpstream,
    route: HboneRoute,
    { expected }: BeyondGateway,
    { connection, source, client, traceparent }: UpstreamRequest,
  ): Promise<ConnectedUpstream> {
    const { authority, service, remote } = route;
    let identity: Identity | undefined;
    let isTaken = false;
    const tunnel = await this.#secure(
      this.#deps.local.identity(source),
      (peer) => {
        identity = peerIdentities(peer.leafDer)[0];
        return expectIdentity(expected)(peer);
      },
      (options) => {
        isTaken = true;
        return this.#deps.engine.nestTunnel(end, options, () => lease?.release());
      },
    ).catch((error: unknown) => {
      if (!isTaken) {
        end.close();
        lease?.release();
      }
      throw error;
    });
    tunnel.onClosed((error, lostStreams) => {
      if (error !== undefined) this.#losses.report(remote, error, lostStreams);
    });
    // It carries this connection only.
    const own: UpstreamLease = { release: () => tunnel.close() };
    try {
      const answer = await tunnel.open(authority, [
        ...connectHeaders({
          baggage: this.#deps.local.baggage(source),
          client,
          serviceHostname: service?.hostname,
          traceparent,
        }),
        ["x-forwarded-network", this.#options.network],
      ]);
      if (answer.end === undefined) throw httpStatusError(answer.status);
      const joined =
        tunnel instanceof RevocableTunnel
          ? tunnel.join(connection, own, (cause) => beyondGateway(cause, route))
          : own;
      const baggage = answer.headers.get("baggage");
      const far = { identity, baggage: baggage === undefined ? undefined : parseBaggage(baggage) };
      return { end: answer.end, lease: joined, far };
    } catch (error) {
      tunnel.destroy();
      throw error;
    }
  }

  #dial(target: HboneTarget): Promise<ClientTunnel> {
    const connect = this.#connectOptions(target.remote);
    return this.#secure(target.source, expectIdentity(target.expected), (options) =>
      this.#deps.engine.dialTunnel({ ...options, connect }),
    );
  }

  /** @param open makes the tunnel, however it is carried. */
  async #secure(
    source: Identity,
    verifyPeer: VerifyPeer,
    open: (options: TunnelOptions) => Promise<ClientTunnel>,
  ): Promise<ClientTunnel> {
    const { clientTunnel, tls12, postQuantumOnly, checkRevocation } = this.#options;
    const certificate = await this.#deps.certificateFor(source).catch((error: unknown) => {
      throw identityError(error);
    });
    const { revocations } = this.#deps;
    let chainDer: Uint8Array = new Uint8Array();
    const isRevoked = (shown: Uint8Array): boolean => {
      chainDer = shown;
      return revocations.refuses("source", shown);
    };
    const tunnel = await open({
      tls: {
        certificate,
        verifyPeer,
        ...(checkRevocation ? { isRevoked } : {}),
        tls12,
        postQuantumOnly,
      },
      settings: clientTunnel,
    });
    return checkRevocation ? new RevocableTunnel(revocations, tunnel, chainDer) : tunnel;
  }

  #connectOptions(remote: SocketAddress): ConnectOptions {
    const { netns, mark, connectTimeoutMs: timeoutMs, keepAlive } = this.#options;
    return { netns, remote, source: undefined, mark, timeoutMs, keepAlive };
  }
}

/**
 * @param retell says at whom it was.
 * @throws anything that neither the pool nor the engine throws: a bug.
 */
function upstreamError(error: unknown, isHbone: boolean, retell: Retell): ProxyError {
  if (error instanceof EngineError) return retell(outboundConnectError(error, isHbone));
  if (!(error instanceof ProxyError)) throw error;
  // Of a tunnel whose peer had not answered yet.
  return error.code === "revoked" ? retell(error) : error;
}

/** Says at whom it was, unless that is the destination. */
function atHop(error: ProxyError, route: OpenRoute): ProxyError {
  return route.kind === "hbone" && route.hop !== "destination"
    ? hopError(error, `at ${route.hop}`, route.workload)
    : error;
}

/** Says behind whom it was. */
function beyondGateway(error: ProxyError, { workload }: HboneRoute): ProxyError {
  return hopError(error, "beyond network gateway", workload);
}
