/** What an operator may change, and the numbers that nobody has to: all in one value. */
import type { HttpLimits } from "../admin/http-listener.ts";
import type { DnsOptions } from "../dns/dns-options.ts";
import type { HostAddressesOptions } from "../dns/host-addresses.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { ProxyOptions } from "../proxy/proxy-options.ts";
import type { NodeDescription } from "../xds/delta-client.ts";
import type { StateKeeperOptions } from "../xds/state-keeper.ts";

export interface Config {
  readonly mesh: MeshConfig;
  readonly identity: IdentityConfig;
  /** Of every workload's proxy. */
  readonly proxy: ProxyOptions;
  /** False: connections are left alone (`ENABLE_PROXY`). */
  readonly proxyEnabled: boolean;
  /** Of every workload's DNS server; `undefined`: none is run. */
  readonly dns: DnsOptions | undefined;
  /** Of workloads that are known by their host name only. */
  readonly hosts: HostsConfig;
  /** Whose connections are carried. */
  readonly mode: SharedModeConfig | DedicatedModeConfig;
  readonly admin: AdminConfig;
  readonly logging: LoggingConfig;
  /** 0: everything runs on the main thread. */
  readonly dataThreadCount: number;
  /** From one look at the sockets of a pod to the next, milliseconds; 0: nobody looks. */
  readonly podSocketsMs: number;
  /** How long connections may live on after the signal to stop, milliseconds. */
  readonly drainMs: number;
  /** What operators take this to be a part of, for the build metric and the version line. */
  readonly istioVersion: string;
}

export interface HostsConfig extends HostAddressesOptions {
  /** Whether they are looked up in IPv6, too. */
  readonly ipv6: boolean;
}

export interface MeshConfig {
  /** Read once, before the control plane says anything. */
  readonly file:
    | { readonly kind: "file"; readonly path: string }
    | { readonly kind: "text"; readonly text: string }
    | undefined;
  /** Not both are `undefined`. */
  readonly discovery: DiscoveryConfig | undefined;
  /** `undefined`: every workload counts as local. */
  readonly localNode: string | undefined;
}

export interface DiscoveryConfig {
  readonly server: ServerConfig;
  /** Further request headers: lower-case names, printable ASCII values. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** What the control plane is told of us, beside the limits that are below. */
  readonly node: NodeDescription;
  /** Ask for single workloads and services when they are needed, instead of for all. */
  readonly onDemand: boolean;
  readonly connectMs: number;
  readonly firstAnswerMs: number;
  readonly receivedBytesMax: number;
  readonly demandMs: number;
  /** Where the mesh is kept for a restart; `undefined`: nowhere. */
  readonly state: StateKeeperOptions | undefined;
  readonly offeredBytesMax: number;
}

/** A control plane's server. */
export interface ServerConfig {
  readonly host: string;
  readonly port: number;
  /** Also accepted as the server's name. */
  readonly alternativeHost: string | undefined;
  readonly roots: RootSource;
}

export interface IdentityConfig {
  readonly authority: ServerConfig;
  /** Proves to control planes who we are; `undefined` goes without. */
  readonly token: TokenSource | undefined;
  readonly clusterId: string;
  /** Further request headers: lower-case names, printable ASCII values. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** Asked for; the authority may give less. Milliseconds. */
  readonly certificateTtlMs: number;
  /** How long a connection waits for a first certificate. */
  readonly certificateWaitMs: number;
  /** How long a request to the authority may take. */
  readonly answerMs: number;
  /** File of revocation lists, read anew when it changes. */
  readonly revocationPath: string | undefined;
}

/** Roots that a server must chain to. Files are read anew for each connection. */
export type RootSource =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "pem"; readonly pem: string }
  | { readonly kind: "system" };

/** Files are read anew for each request: the kubelet renews the token. */
export type TokenSource =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "literal"; readonly token: string };

/** All pods of the node that the node agent hands over. */
export interface SharedModeConfig {
  readonly kind: "shared";
  /** Path of the node agent's ZDS socket. */
  readonly socketPath: string;
  /** The daemon's own pod, to which peers may tunnel (a scrape of 15020, say). */
  readonly self: EnrolledWorkload | undefined;
  /** How long connections of a pod that the agent took back may live on, milliseconds; 0: not at all. */
  readonly podDrainMs: number;
}

/** One workload, in whose network namespace the daemon runs. */
export interface DedicatedModeConfig {
  readonly kind: "dedicated";
  readonly workload: EnrolledWorkload;
}

export interface AdminConfig {
  /** On the loopback addresses only. */
  readonly adminPort: number;
  readonly statsPort: number;
  readonly readinessPort: number;
  /** Listen on IPv6 too. */
  readonly ipv6: boolean;
  /** A port that is taken is waited for: a predecessor on the same machine will let it go. */
  readonly waitsForPorts: boolean;
  /** Of each of the three ports. */
  readonly http: HttpLimits;
}

export interface LoggingConfig {
  readonly format: "plain" | "json";
  /** Grammar of telemetry/log-filter.ts, checked. */
  readonly filter: string;
  /** Unwritten bytes of log lines beyond which lines are dropped. */
  readonly bufferBytesMax: number;
}
