/**
 * One CONNECT in a tunnel of 15008: judged, dialled to the application, answered and relayed on its
 * own.
 *
 * @see spec data-path 4
 */
import type { End, SocketEnd, TunnelRequest } from "../engine/engine.ts";
import type { RbacConnection } from "../mesh/authorization.ts";
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Logger } from "../telemetry/logger.ts";
import { parseBaggage } from "../wire/baggage.ts";
import { parseForwardedHost } from "../wire/forwarded.ts";
import { encodeProxyHeader } from "../wire/proxy-header.ts";
import { makeTraceparent, parseTraceparent } from "../wire/traceparent.ts";
import type { Application } from "./application.ts";
import type { ConnectionDescription, ConnectionReporter } from "./connection-report.ts";
import { chooseInboundTarget, type InboundTarget } from "./inbound-target.ts";
import type { LocalWorkload } from "./local-workload.ts";
import type { PolicyEnforcer } from "./policy-enforcer.ts";
import { type ConnectionOwner, ProxiedConnection } from "./proxied-connection.ts";
import { ProxyError } from "./proxy-error.ts";
import { illegalPorts, type ProxyDeps, type ProxyOptions } from "./proxy-options.ts";

export interface InboundCallDeps extends Pick<ProxyDeps, "engine" | "mesh" | "clock" | "random"> {
  /** With the span of the workload's proxy. */
  readonly log: Logger;
  readonly local: LocalWorkload;
  readonly reporter: ConnectionReporter;
  readonly enforcer: PolicyEnforcer;
  readonly application: Application;
}

export type InboundCallOptions = Pick<ProxyOptions, "network" | "socks5" | "responseBaggage">;

/** The peer whose tunnel it is. */
export interface InboundCaller {
  readonly address: SocketAddress;
  /** What it dialled. */
  readonly local: SocketAddress;
  /** Of its certificate. */
  readonly identity: Identity | undefined;
  /** Whether the application may be dialled with its address. */
  readonly transparent: boolean;
}

export class InboundCall {
  readonly connection: ProxiedConnection;
  readonly #deps: InboundCallDeps;
  readonly #options: InboundCallOptions;
  readonly #caller: InboundCaller;
  readonly #request: TunnelRequest;
  readonly #unanswered: UnansweredRequest;

  constructor(
    deps: InboundCallDeps,
    options: InboundCallOptions,
    caller: InboundCaller,
    { request, owner }: { readonly request: TunnelRequest; readonly owner: ConnectionOwner },
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#caller = caller;
    this.#request = request;
    this.#unanswered = new UnansweredRequest(request);
    this.connection = new ProxiedConnection(this.#unanswered, owner);
  }

  /** Never waits for the relay to end. Rejects for nothing but bugs. */
  async serve(): Promise<void> {
    const { connection } = this;
    const request = this.#request;
    const unanswered = this.#unanswered;
    const { mesh, local, reporter, enforcer, engine, clock } = this.#deps;
    const startedAt = clock.monotonic();
    request.onAborted(() => this.#abort());

    const span = (log: Logger): Logger => this.#span(log);
    const workload =
      local.find() ?? (await local.waitFor(() => span(this.#deps.log.target("ztunnel::state"))));
    if (connection.ended) return;
    if (workload instanceof ProxyError) return this.#refuse(503, workload);
    const host = parseForwardedHost(request.headers.get("forwarded") ?? "");
    const target = chooseInboundTarget(mesh, {
      workload,
      local: this.#caller.local,
      method: request.method,
      authority: request.authority,
      forwardedHost: host,
      network: this.#options.network,
      illegalPorts: illegalPorts(this.#options),
    });
    if (target.kind === "refuse") return this.#refuse(target.status, target.error);

    const description = this.#describe(workload, target, host);
    connection.opened(reporter.opened(description, startedAt));
    const rbac: RbacConnection = {
      source: this.#caller.address,
      sourceIdentity: this.#caller.identity,
      destination: target.target,
      destinationNetwork: this.#options.network,
    };
    const denied = await enforcer.admit(connection, rbac, workload, host, span);
    if (connection.ended) return;
    if (denied !== undefined) {
      unanswered.status = 401;
      return connection.fail(denied);
    }
    try {
      const client = this.#caller.transparent ? this.#caller.address.ip : undefined;
      const upstream = await this.#connect(target, client);
      if (connection.ended) return upstream.close();
      const baggage = this.#options.responseBaggage
        ? ([["baggage", local.baggage(workload)]] as const)
        : [];
      connection.relay(engine, request.accept(baggage), upstream);
    } catch (error) {
      if (!(error instanceof ProxyError)) throw error;
      connection.fail(error);
    }
  }

  #abort(): void {
    this.#unanswered.abandon();
    this.connection.stop(
      "reset",
      new ProxyError("connect", "client disconnected before its request was answered"),
    );
  }

  /** Of a call that is not reported yet. */
  #refuse(status: number, error: ProxyError): void {
    if (this.connection.ended) return;
    const { address, local } = this.#caller;
    this.#deps.reporter.refused("inbound", address, local, error);
    this.#unanswered.status = status;
    this.connection.fail(error);
  }

  #connect(
    { target, announced }: Extract<InboundTarget, { kind: "accept" }>,
    client: IpAddress | undefined,
  ): Promise<SocketEnd> {
    const { application } = this.#deps;
    if (announced === undefined) return application.connect(target, client);
    const { address, identity } = this.#caller;
    const header = encodeProxyHeader({
      source: address,
      destination: announced,
      identity: identity && formatSpiffeId(identity),
    });
    return application.connectTunnel(target, client, header);
  }

  #describe(
    workload: Workload,
    target: Extract<InboundTarget, { kind: "accept" }>,
    host: string | undefined,
  ): ConnectionDescription {
    const { network, responseBaggage } = this.#options;
    const { headers } = this.#request;
    const { address, local, identity } = this.#caller;
    const peerNetwork = headers.get("x-forwarded-network");
    // What came through a network gateway has the gateway's address, which says nothing.
    const isNear = peerNetwork === undefined || peerNetwork.toLowerCase() === network.toLowerCase();
    const sourceWorkload = isNear
      ? this.#deps.mesh.findWorkloadByAddress(network, address.ip)
      : undefined;
    const baggage = headers.get("baggage");
    return {
      reporter: "destination",
      source: address,
      originalDestination: host,
      actualDestination: target.target,
      sourceWorkload,
      sourceBaggage:
        sourceWorkload === undefined && responseBaggage && baggage !== undefined
          ? parseBaggage(baggage)
          : undefined,
      sourceIdentity: identity,
      destination: local,
      hboneAuthority: target.authority,
      destinationService: target.service,
      destinationWorkload: workload,
      far: undefined,
      mutualTls: true,
    };
  }

  #span(log: Logger): Logger {
    const traceparent = this.#request.headers.get("traceparent") ?? "";
    const id =
      parseTraceparent(traceparent) ?? parseTraceparent(makeTraceparent(this.#deps.random));
    return log.span("inbound", [
      ["id", { bare: id ?? "" }],
      ["peer", { bare: formatSocketAddress(this.#caller.address) }],
    ]);
  }
}

/** A request as the downstream side of a connection, until it is accepted. */
class UnansweredRequest implements End {
  /** What ending it early answers. */
  status = 503;
  readonly #request: TunnelRequest;
  #answered = false;

  constructor(request: TunnelRequest) {
    this.#request = request;
  }

  close(): void {
    if (this.#answered) return;
    this.#answered = true;
    this.#request.refuse(this.status);
  }

  /** The peer does not wait any more. */
  abandon(): void {
    this.#answered = true;
  }

  /** Only policies reset a connection that is not relayed yet. */
  reset(): void {
    this.status = 401;
    this.close();
  }
}
