/**
 * From a route to the end of a connection that leads there: a socket, or a stream of a tunnel.
 *
 * @see spec data-path 3.5, 3.7, 3.8
 */
import type { ClientTunnel, ConnectOptions, End, NetnsFd } from "../engine/engine.ts";
import { EngineError } from "../engine/engine-error.ts";
import { connectHeaders } from "../hbone/connect-request.ts";
import { HbonePool, type HboneTarget } from "../hbone/hbone-pool.ts";
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Logger, LogValue } from "../telemetry/logger.ts";
import { expectIdentity } from "../tls/spiffe-verifier.ts";
import type { LocalWorkload } from "./local-workload.ts";
import type { HboneRoute, OpenRoute } from "./outbound-route.ts";
import type { ProxiedConnection, UpstreamLease } from "./proxied-connection.ts";
import {
  httpStatusError,
  identityError,
  outboundConnectError,
  ProxyError,
  waypointError,
} from "./proxy-error.ts";
import type { ProxyDeps, ProxyOptions } from "./proxy-options.ts";
import { RevocableTunnel } from "./revocable-tunnel.ts";

export interface UpstreamConnectorDeps
  extends Pick<ProxyDeps, "engine" | "certificateFor" | "revocations" | "clock"> {
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
}

export class UpstreamConnector {
  readonly #deps: UpstreamConnectorDeps;
  readonly #options: ProxyOptions & { readonly netns: NetnsFd | undefined };
  readonly #pool: HbonePool;

  constructor(
    deps: UpstreamConnectorDeps,
    options: ProxyOptions & { readonly netns: NetnsFd | undefined },
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#pool = new HbonePool(
      {
        dial: (target) => this.#dial(target),
        lost: (target, error) => this.#lost(target, error),
        clock: deps.clock,
      },
      options.pool,
    );
  }

  /** @throws ProxyError in the words of the access log. */
  async connect(route: OpenRoute, request: UpstreamRequest): Promise<ConnectedUpstream> {
    try {
      if (route.kind === "hbone") return await this.#connectHbone(route, request);
      const end = await this.#deps.engine.connect(this.#connectOptions(route.remote));
      return { end, lease: undefined };
    } catch (error) {
      throw upstreamError(error, route);
    }
  }

  /** Closes pooled tunnels; call when no connection is left. */
  close(): void {
    this.#pool.close();
  }

  async #connectHbone(
    route: HboneRoute,
    { connection, source, client, traceparent }: UpstreamRequest,
  ): Promise<ConnectedUpstream> {
    const stream = await this.#pool.open(
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
    const { answer, tunnel, lease } = stream;
    if (answer.end === undefined) throw httpStatusError(answer.status);
    const joined = tunnel instanceof RevocableTunnel ? tunnel.join(connection, lease) : lease;
    return { end: answer.end, lease: joined };
  }

  async #dial(target: HboneTarget): Promise<ClientTunnel> {
    const { clientTunnel, tls12, postQuantumOnly, checkRevocation } = this.#options;
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
      connect: this.#connectOptions(target.remote),
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

  /** The words for pings are the original's, which calls every other end an error of a handshake. */
  #lost({ remote }: HboneTarget, error: EngineError): void {
    const log = this.#deps.log.target("ztunnel::proxy::h2::client");
    const peer: [string, LogValue] = ["peer", { bare: formatSocketAddress(remote) }];
    if (error.code === "ping-timeout") log.write("warn", "HBONE ping timeout/error", [peer]);
    else log.write("debug", `tunnel ended: ${error.message}`, [peer]);
  }

  #connectOptions(remote: SocketAddress): ConnectOptions {
    const { netns, mark, connectTimeoutMs: timeoutMs, keepAlive } = this.#options;
    return { netns, remote, source: undefined, mark, timeoutMs, keepAlive };
  }
}

/** @throws anything that neither the pool nor the engine throws: a bug. */
function upstreamError(error: unknown, route: OpenRoute): ProxyError {
  if (error instanceof ProxyError) return error;
  if (!(error instanceof EngineError)) throw error;
  const failure = outboundConnectError(error, route.kind === "hbone");
  return route.kind === "hbone" && route.hop === "waypoint"
    ? waypointError(failure, route.workload)
    : failure;
}
