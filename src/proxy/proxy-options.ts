/** What the proxies of every workload need from the outside, and the numbers that govern them. */
import type { Engine, KeepAliveOptions, TunnelSettings } from "../engine/engine.ts";
import type { Identity } from "../mesh/identity.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import type { EndpointOutliers, OutlierOptions } from "../state/endpoint-outliers.ts";
import type { MeshState } from "../state/mesh-state.ts";
import type { SessionAffinity } from "../state/session-affinity.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { RevocationGuard } from "./revocation-guard.ts";
import type { TrafficMetrics } from "./traffic-metrics.ts";

export interface ProxyDeps {
  readonly engine: Engine;
  readonly mesh: MeshState;
  /** The same object until it is renewed: engines keep what they build from it. */
  readonly certificateFor: (identity: Identity) => Promise<WorkloadCertificate>;
  readonly traffic: TrafficMetrics;
  readonly revocations: RevocationGuard;
  /** `undefined`: no endpoint is ever left out. */
  readonly outliers: EndpointOutliers | undefined;
  readonly affinity: SessionAffinity;
  /**
   * Where the mesh is learnt piece by piece: asks for a workload or service by `network/ip` or
   * `namespace/hostname`, and settles when the answer is part of the mesh or none came in time.
   * `undefined` where all of it is known.
   */
  readonly learn: ((key: string) => Promise<void>) | undefined;
  /** What the resolver of the daemon's own pod says of a host name. Rejects when it says nothing. */
  readonly addressesOf: AddressesOf;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
}

/** Addresses of a host name, in both families; may be none. */
export type AddressesOf = (hostname: string) => Promise<readonly IpAddress[]>;

export interface ProxyOptions {
  /** Name of the own network; empty is the default network. */
  readonly network: string;
  /** `::` listens on both families, `0.0.0.0` on IPv4 only. */
  readonly listenIp: IpAddress;
  /** SO_MARK of every socket, by which the redirect rules know ours. */
  readonly mark: number | undefined;
  /** SO_REUSEPORT, which also lets several data threads share the ports. */
  readonly reusePort: boolean;
  /**
   * Whether applications see the client's own address: `required` makes a listener fail that can't
   * be transparent, `try` goes on without, `off` never asks.
   */
  readonly originalSource: "required" | "try" | "off";
  /** For sockets to and from applications and for outgoing tunnels; HBONE servers rely on pings. */
  readonly keepAlive: KeepAliveOptions | undefined;
  /** Connections per port and thread that wait to be accepted. */
  readonly acceptQueueMax: number;
  /** How long a connection waits for the mesh to know the workload itself. */
  readonly localWorkloadWaitMs: number;
  /** Further endpoints that are tried before any byte was sent; 0 is what the original does. */
  readonly connectRetriesMax: number;
  /** Endpoints that can't be reached are left out for a while; `undefined`: none is. */
  readonly outliers: OutlierOptions | undefined;
  readonly affinity: {
    /** Services whose clients stay with an endpoint for so many seconds, besides those that say so. */
    readonly services: Readonly<Record<string, number>>;
    /** Clients that are remembered, of all services. */
    readonly clientsMax: number;
  };
  /** Of every TCP connect. */
  readonly connectTimeoutMs: number;
  /** A connection of which one direction has ended is reset when for so long nothing moves. */
  readonly halfClosedIdleMs: number;
  /** Any connection is ended when for so long nothing moves. `undefined`: never. */
  readonly idleMs: number | undefined;
  readonly clientTunnel: TunnelSettings;
  readonly serverTunnel: TunnelSettings;
  readonly pool: {
    readonly streamsPerConnectionMax: number;
    readonly unusedReleaseMs: number;
    readonly dialBackoffMaxMs: number;
    readonly connectionsMax: number;
  };
  /** Also listen for SOCKS5 on the loopback address. */
  readonly socks5: boolean;
  /** Peers of these trust domains are taken in as well as those of the workload's own. */
  readonly trustDomains: readonly string[];
  /** Look peers up in revocation lists, and keep an eye on them. */
  readonly checkRevocation: boolean;
  /** Also allow TLS 1.2. */
  readonly tls12: boolean;
  /** Only X25519MLKEM768 key exchange. */
  readonly postQuantumOnly: boolean;
  /** Send baggage in answers, and let a request's baggage speak for unknown sources. */
  readonly responseBaggage: boolean;
  /** Applications that are told of their clients by the PROXY protocol are reached on loopback. */
  readonly localhostTunnel: boolean;
  /** Log policy matches at info instead of debug. */
  readonly policyInfoLogging: boolean;
  /** What becomes of connections to a workload with a policy that is still unknown after the wait. */
  readonly unknownPolicy: "deny" | "allow";
  /** How long a connection waits for such a policy. */
  readonly unknownPolicyWaitMs: number;
}

export const OUTBOUND_PORT = 15001;
export const INBOUND_PLAINTEXT_PORT = 15006;
export const INBOUND_HBONE_PORT = 15008;

export const SOCKS5_PORT = 15080;

const CAPTURING_PORTS = [OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, INBOUND_HBONE_PORT];
const ILLEGAL_PORTS: ReadonlySet<number> = new Set(CAPTURING_PORTS);
const ILLEGAL_PORTS_WITH_SOCKS5: ReadonlySet<number> = new Set([...CAPTURING_PORTS, SOCKS5_PORT]);

/** A connection to one of these would come back to us. @see spec data-path 1.2 */
export function illegalPorts({ socks5 }: Pick<ProxyOptions, "socks5">): ReadonlySet<number> {
  return socks5 ? ILLEGAL_PORTS_WITH_SOCKS5 : ILLEGAL_PORTS;
}
