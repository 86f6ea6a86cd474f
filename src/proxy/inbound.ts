/**
 * 15008: tunnels of peers. Each CONNECT in them is judged, dialled to the application, answered and
 * relayed on its own.
 *
 * @see spec data-path 4
 */
import type {
  End,
  PeerChain,
  ServerTunnel,
  SocketEnd,
  TlsOptions,
  TunnelRequest,
} from "../engine/engine.ts";
import type { EngineError } from "../engine/engine-error.ts";
import type { RbacConnection } from "../mesh/authorization.ts";
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Timer } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Logger } from "../telemetry/logger.ts";
import { expectTrustDomain, peerIdentities } from "../tls/spiffe-verifier.ts";
import { parseBaggage } from "../wire/baggage.ts";
import { parseForwardedHost } from "../wire/forwarded.ts";
import { encodeProxyHeader } from "../wire/proxy-header.ts";
import { makeTraceparent, parseTraceparent } from "../wire/traceparent.ts";
import type { Application } from "./application.ts";
import type { ConnectionDescription, ConnectionReporter } from "./connection-report.ts";
import { chooseInboundTarget, type InboundTarget } from "./inbound-target.ts";
import { LiveSet, type Stoppable } from "./live-set.ts";
import type { LocalWorkload } from "./local-workload.ts";
import type { PolicyEnforcer } from "./policy-enforcer.ts";
import { type ConnectionOwner, ProxiedConnection } from "./proxied-connection.ts";
import { bugError, handshakeError, malformedRequestError, ProxyError } from "./proxy-error.ts";
import { illegalPorts, type ProxyDeps, type ProxyOptions } from "./proxy-options.ts";

/** A peer that does not take its GOAWAY by then is cut off; far above a round trip within a mesh. */
const STOPPED_TUNNEL_MS_MAX = 100;

export interface InboundDeps
  extends Pick<
    ProxyDeps,
    "engine" | "mesh" | "traffic" | "revocations" | "clock" | "random" | "certificateFor"
  > {
  /** With the span of the workload's proxy. */
  readonly log: Logger;
  readonly local: LocalWorkload;
  readonly reporter: ConnectionReporter;
  readonly enforcer: PolicyEnforcer;
  readonly application: Application;
}

export type InboundOptions = Pick<
  ProxyOptions,
  | "network"
  | "socks5"
  | "serverTunnel"
  | "tls12"
  | "postQuantumOnly"
  | "trustDomains"
  | "checkRevocation"
  | "responseBaggage"
>;

/** How tunnels drain. */
export interface DrainOptions {
  /** A tunnel without streams whose peer has not let go by then is cut off; `undefined`: none is. */
  readonly idleTunnelMs: number | undefined;
}

export class Inbound {
  /** Tunnels, each with its streams. */
  readonly live: LiveSet<InboundTunnel> = new LiveSet();
  readonly #deps: InboundDeps;
  readonly #options: InboundOptions;
  #tls: TlsOptions | undefined;
  #drain: DrainOptions | undefined;

  constructor(deps: InboundDeps, options: InboundOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * Takes the end.
   *
   * @param transparent whether the application may be dialled with the peer's address.
   */
  accept(end: SocketEnd, transparent: boolean): void {
    const tunnel = new InboundTunnel(this.#deps, this.#options, end, transparent, () => {
      this.live.delete(tunnel);
      this.#deps.traffic.socketClosed("destination");
    });
    this.live.add(tunnel);
    this.#deps.traffic.socketOpened("destination");
    this.#open(tunnel, end).catch((thrown: unknown) =>
      tunnel.refuse(bugError(thrown, this.#deps.log)),
    );
  }

  /** Running streams go on; each tunnel ends with its last. */
  drain(options: DrainOptions): void {
    this.#drain = options;
    for (const tunnel of this.live) tunnel.drain(options);
  }

  async #open(tunnel: InboundTunnel, end: SocketEnd): Promise<void> {
    const { local, log } = this.#deps;
    const workload = local.find() ?? (await local.waitFor(() => log.target("ztunnel::state")));
    if (workload instanceof ProxyError) return tunnel.refuse(workload);
    let certificate: WorkloadCertificate;
    try {
      certificate = await this.#deps.certificateFor(local.identity(workload));
    } catch (error) {
      return tunnel.refuse(new ProxyError("identity", `signing error: ${errorText(error)}`, error));
    }
    tunnel.open(this.#deps.engine, end, this.#tlsWith(certificate));
    if (this.#drain !== undefined) tunnel.drain(this.#drain);
  }

  /** Made once for each certificate, not for each peer. */
  #tlsWith(certificate: WorkloadCertificate): TlsOptions {
    if (this.#tls?.certificate !== certificate) {
      const { tls12, postQuantumOnly, trustDomains } = this.#options;
      const verifyPeer = expectTrustDomain(certificate.identity.trustDomain, trustDomains);
      this.#tls = { certificate, verifyPeer, tls12, postQuantumOnly };
    }
    return this.#tls;
  }
}

/** One TLS connection of a peer. */
class InboundTunnel implements Stoppable, ConnectionOwner {
  readonly streams: LiveSet<ProxiedConnection> = new LiveSet();
  readonly #deps: InboundDeps;
  readonly #options: InboundOptions;
  readonly #end: SocketEnd;
  /** Outlasts the end. */
  readonly #local: SocketAddress;
  readonly #transparent: boolean;
  readonly #ended: () => void;
  #tunnel: ServerTunnel | undefined;
  #sourceIdentity: Identity | undefined;
  #handshakeDone = false;
  #cutOff: Timer | undefined;
  #idle: Timer | undefined;
  #unguard: (() => void) | undefined;
  #isEnded = false;

  constructor(
    deps: InboundDeps,
    options: InboundOptions,
    end: SocketEnd,
    transparent: boolean,
    ended: () => void,
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#end = end;
    this.#local = end.local;
    this.#transparent = transparent;
    this.#ended = ended;
  }

  refuse(error: ProxyError): void {
    if (this.#isEnded) return;
    this.#deps.reporter.refused("inbound", this.#end.peer, this.#local, error);
    this.#end.close();
    this.#finish();
  }

  open(engine: InboundDeps["engine"], end: SocketEnd, tls: TlsOptions): void {
    if (this.#isEnded) return;
    const { checkRevocation } = this.#options;
    const { revocations } = this.#deps;
    let chainDer: Uint8Array = new Uint8Array();
    const isRevoked = (shown: Uint8Array): boolean => {
      chainDer = shown;
      return revocations.refuses("destination", shown);
    };
    this.#tunnel = engine.acceptTunnel(end, {
      tls: checkRevocation ? { ...tls, isRevoked } : tls,
      settings: this.#options.serverTunnel,
      opened: (peer: PeerChain) => {
        this.#handshakeDone = true;
        this.#sourceIdentity = peerIdentities(peer.leafDer)[0];
        if (!checkRevocation) return;
        this.#unguard = revocations.watch({
          reporter: "destination",
          chainDer,
          end: (cause) => this.stop("reset", cause),
        });
      },
      requested: (request) => this.#take(request),
      malformed: (reason) =>
        this.#deps.reporter.refused(
          "inbound",
          this.#end.peer,
          this.#local,
          malformedRequestError(reason),
        ),
      closed: (error) => this.#closed(error),
    });
  }

  drain({ idleTunnelMs }: DrainOptions): void {
    this.#tunnel?.drain();
    if (idleTunnelMs === undefined) return;
    this.#idle ??= this.#deps.clock.after(
      idleTunnelMs,
      () => {
        if (this.streams.isEmpty) this.#tunnel?.destroy();
      },
      true,
    );
  }

  stop(how: "close" | "reset", cause: ProxyError): void {
    if (this.#isEnded) return;
    const tunnel = this.#tunnel;
    if (tunnel === undefined) {
      this.#end.close();
      this.#finish();
      return;
    }
    this.streams.stopAll(how, cause);
    tunnel.drain();
    this.#cutOff ??= this.#deps.clock.after(STOPPED_TUNNEL_MS_MAX, () => tunnel.destroy(), true);
  }

  ended(connection: ProxiedConnection): void {
    this.#deps.enforcer.release(connection);
    this.streams.delete(connection);
  }

  #closed(error: EngineError | undefined): void {
    if (error !== undefined && !this.#handshakeDone) {
      const { peer } = this.#end;
      this.#deps.reporter.refused("inbound", peer, this.#local, handshakeError(error));
    } else if (error !== undefined) {
      this.#deps.log
        .target("ztunnel::proxy::inbound")
        .write("debug", `tunnel ended: ${error.message}`, [
          ["peer", { bare: formatSocketAddress(this.#end.peer) }],
        ]);
    }
    // Applications may still be reading what the peer sent before it left.
    void this.streams.whenEmpty().then(() => this.#finish());
  }

  #finish(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#cutOff?.cancel();
    this.#idle?.cancel();
    this.#unguard?.();
    this.#ended();
  }

  #take(request: TunnelRequest): void {
    const unanswered = new UnansweredRequest(request);
    const connection = new ProxiedConnection(unanswered, this);
    this.streams.add(connection);
    connection.guard(this.#serve(request, unanswered, connection), this.#deps.log);
  }

  async #serve(
    request: TunnelRequest,
    unanswered: UnansweredRequest,
    connection: ProxiedConnection,
  ): Promise<void> {
    const { mesh, local, reporter, enforcer, engine, clock } = this.#deps;
    const startedAt = clock.monotonic();
    request.onAborted(() => {
      unanswered.abandon();
      connection.stop(
        "reset",
        new ProxyError("connect", "client disconnected before its request was answered"),
      );
    });
    const refuse = (status: number, error: ProxyError): void => {
      if (connection.ended) return;
      reporter.refused("inbound", this.#end.peer, this.#local, error);
      unanswered.status = status;
      connection.fail(error);
    };

    const span = (log: Logger): Logger => this.#span(log, request);
    const workload =
      local.find() ?? (await local.waitFor(() => span(this.#deps.log.target("ztunnel::state"))));
    if (connection.ended) return;
    if (workload instanceof ProxyError) return refuse(503, workload);
    const host = parseForwardedHost(request.headers.get("forwarded") ?? "");
    const target = chooseInboundTarget(mesh, {
      workload,
      local: this.#local,
      method: request.method,
      authority: request.authority,
      forwardedHost: host,
      network: this.#options.network,
      illegalPorts: illegalPorts(this.#options),
    });
    if (target.kind === "refuse") return refuse(target.status, target.error);

    const description = this.#describe(request, workload, target, host);
    connection.opened(reporter.opened(description, startedAt));
    const rbac: RbacConnection = {
      source: this.#end.peer,
      sourceIdentity: this.#sourceIdentity,
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
      const client = this.#transparent ? this.#end.peer.ip : undefined;
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

  #connect(
    { target, announced }: Extract<InboundTarget, { kind: "accept" }>,
    client: IpAddress | undefined,
  ): Promise<SocketEnd> {
    const { application } = this.#deps;
    if (announced === undefined) return application.connect(target, client);
    const header = encodeProxyHeader({
      source: this.#end.peer,
      destination: announced,
      identity: this.#sourceIdentity && formatSpiffeId(this.#sourceIdentity),
    });
    return application.connectTunnel(target, client, header);
  }

  #describe(
    request: TunnelRequest,
    workload: Workload,
    target: Extract<InboundTarget, { kind: "accept" }>,
    host: string | undefined,
  ): ConnectionDescription {
    const { network, responseBaggage } = this.#options;
    const { peer } = this.#end;
    const peerNetwork = request.headers.get("x-forwarded-network");
    // What came through a network gateway has the gateway's address, which says nothing.
    const isNear = peerNetwork === undefined || peerNetwork.toLowerCase() === network.toLowerCase();
    const sourceWorkload = isNear
      ? this.#deps.mesh.findWorkloadByAddress(network, peer.ip)
      : undefined;
    const baggage = request.headers.get("baggage");
    return {
      reporter: "destination",
      source: peer,
      originalDestination: host,
      actualDestination: target.target,
      sourceWorkload,
      sourceBaggage:
        sourceWorkload === undefined && responseBaggage && baggage !== undefined
          ? parseBaggage(baggage)
          : undefined,
      sourceIdentity: this.#sourceIdentity,
      destination: this.#local,
      hboneAuthority: target.authority,
      destinationService: target.service,
      destinationWorkload: workload,
      far: undefined,
      mutualTls: true,
    };
  }

  #span(log: Logger, request: TunnelRequest): Logger {
    const traceparent = request.headers.get("traceparent") ?? "";
    const id =
      parseTraceparent(traceparent) ?? parseTraceparent(makeTraceparent(this.#deps.random));
    return log.span("inbound", [
      ["id", { bare: id ?? "" }],
      ["peer", { bare: formatSocketAddress(this.#end.peer) }],
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
