/**
 * 15008: tunnels of peers, each CONNECT in them an {@link InboundCall} of its own.
 *
 * @see spec data-path 4
 */
import type {
  PeerChain,
  ServerTunnel,
  SocketEnd,
  TlsOptions,
  TunnelRequest,
} from "../engine/engine.ts";
import type { EngineError } from "../engine/engine-error.ts";
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Timer } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import { invariant } from "../runtime/invariant.ts";
import { expectTrustDomain, peerIdentities } from "../tls/spiffe-verifier.ts";
import { handshakeError } from "./engine-failure.ts";
import {
  InboundCall,
  type InboundCallDeps,
  type InboundCaller,
  type InboundCallOptions,
} from "./inbound-call.ts";
import { LiveSet, type Stoppable } from "./live-set.ts";
import type { ConnectionOwner, ProxiedConnection } from "./proxied-connection.ts";
import { bugError, malformedRequestError, ProxyError } from "./proxy-error.ts";
import type { ProxyDeps, ProxyOptions } from "./proxy-options.ts";

/** A peer that does not take its GOAWAY by then is cut off; far above a round trip within a mesh. */
const STOPPED_TUNNEL_MS_MAX = 100;

export type InboundDeps = InboundCallDeps &
  Pick<ProxyDeps, "traffic" | "revocations" | "certificateFor">;

export type InboundOptions = InboundCallOptions &
  Pick<
    ProxyOptions,
    "serverTunnel" | "tls12" | "postQuantumOnly" | "trustDomains" | "checkRevocation"
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
  /** Known when the handshake is done. */
  #caller: InboundCaller | undefined;
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
        this.#caller = {
          address: end.peer,
          local: this.#local,
          identity: peerIdentities(peer.leafDer)[0],
          transparent: this.#transparent,
        };
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
    if (error !== undefined && this.#caller === undefined) {
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
    invariant(this.#caller !== undefined, "nobody asks before the handshake is done");
    const call = new InboundCall(this.#deps, this.#options, this.#caller, { request, owner: this });
    this.streams.add(call.connection);
    call.connection.guard(call.serve(), this.#deps.log);
  }
}
