/** What an operator may change, and the numbers that nobody has to: all in one value. */
import type { HttpLimits } from "../admin/http-listener.ts";
import type { ProxyOptions } from "../proxy/proxy-options.ts";

export interface Config {
  readonly mesh: MeshConfig;
  readonly identity: IdentityConfig;
  /** Of every workload's proxy. */
  readonly proxy: ProxyOptions;
  readonly inpod: InpodConfig;
  readonly admin: AdminConfig;
  readonly logging: LoggingConfig;
  /** 0: everything runs on the main thread. */
  readonly dataThreadCount: number;
  /** How long connections may live on after the signal to stop, milliseconds. */
  readonly drainMs: number;
  /** What operators take this to be a part of, for the build metric and the version line. */
  readonly istioVersion: string;
}

export interface MeshConfig {
  readonly source:
    | { readonly kind: "file"; readonly path: string }
    | { readonly kind: "text"; readonly text: string };
  /** `undefined`: every workload counts as local. */
  readonly localNode: string | undefined;
}

export interface IdentityConfig {
  readonly authority: {
    readonly host: string;
    readonly port: number;
    /** Also accepted as the server's name. */
    readonly alternativeHost: string | undefined;
    readonly roots: RootSource;
  };
  /** Proves to the authority who we are; `undefined` goes without. */
  readonly token: TokenSource | undefined;
  readonly clusterId: string;
  /** Further request headers: lower-case names, printable ASCII values. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** Asked for; the authority may give less. Milliseconds. */
  readonly certificateTtlMs: number;
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

export interface InpodConfig {
  /** Path of the node agent's ZDS socket. */
  readonly socketPath: string;
}

export interface AdminConfig {
  /** On the loopback addresses only. */
  readonly adminPort: number;
  readonly statsPort: number;
  readonly readinessPort: number;
  /** Listen on IPv6 too. */
  readonly ipv6: boolean;
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

/** A number that only the source sets, for the README's table of limits. */
export interface Limit {
  readonly value: number;
  readonly unit: string;
  readonly why: string;
}

export type LimitName =
  | "connectTimeout"
  | "handshakeTimeout"
  | "pingInterval"
  | "pingTimeout"
  | "poolConnections"
  | "clientHeaderList"
  | "serverHeaderList"
  | "serverStreams"
  | "httpHeaderTimeout"
  | "httpHeader"
  | "httpConnections"
  | "logBuffer";

/** Limits and times that no variable changes, with their reasons. */
export const LIMITS: Readonly<Record<LimitName, Limit>> = {
  connectTimeout: {
    value: 10_000,
    unit: "ms",
    why: "three lost SYNs (1, 3 and 7 s) still get through; the original's number",
  },
  handshakeTimeout: {
    value: 10_000,
    unit: "ms",
    why: "a peer that connects and stays silent must not hold a connection; as long as a connect",
  },
  pingInterval: {
    value: 10_000,
    unit: "ms",
    why: "an idle tunnel notices a dead peer before people do; the original's number",
  },
  pingTimeout: {
    value: 20_000,
    unit: "ms",
    why: "survives a lost packet and its retransmissions; the original's number",
  },
  poolConnections: {
    value: 500,
    unit: "tunnels per workload and thread",
    why: "far more peers than a pod talks to at a time, yet a bound; the original's number",
  },
  clientHeaderList: {
    value: 16_384,
    unit: "bytes",
    why: "a peer's answer to CONNECT is a few hundred bytes; the original's number",
  },
  serverHeaderList: {
    value: 65_536,
    unit: "bytes",
    why: "leaves room for headers that waypoints add; the original's number",
  },
  serverStreams: {
    value: 200,
    unit: "streams per tunnel",
    why: "twice what our own clients put on one tunnel; the original's number",
  },
  httpHeaderTimeout: {
    value: 2000,
    unit: "ms",
    why: "probes and scrapers are near and quick; the original's number",
  },
  httpHeader: {
    value: 8192,
    unit: "bytes",
    why: "a scrape's request has a few hundred; the original's number",
  },
  httpConnections: {
    value: 128,
    unit: "connections per operator port",
    why: "probes, scrapers and people are few; the ports must not eat the descriptors of traffic",
  },
  logBuffer: {
    value: 16_777_216,
    unit: "bytes",
    why: "a minute of access lines at 500 connections per second; a reader that stalls longer loses lines, not connections",
  },
};
