/**
 * The limits and times that the original has no variable for, each with a variable of ours.
 * For `--help` and the README's table.
 */
import type { EnvironmentReader } from "./environment-reader.ts";

/** A whole number from 1 on; times are written as durations. */
export interface Limit {
  readonly variable: string;
  readonly value: number;
  readonly unit: string;
  readonly why: string;
}

export type LimitName =
  | "localWorkloadWait"
  | "hostLookup"
  | "hostAnswers"
  | "certificateWait"
  | "authorityAnswer"
  | "acceptQueue"
  | "connectTimeout"
  | "outlierWindow"
  | "outlierBaseEjection"
  | "outlierMaxEjection"
  | "affinityClients"
  | "halfClosedIdle"
  | "handshakeTimeout"
  | "pingInterval"
  | "pingTimeout"
  | "poolConnections"
  | "dialBackoff"
  | "clientHeaderList"
  | "serverHeaderList"
  | "serverStreams"
  | "floodAllowance"
  | "httpHeaderTimeout"
  | "httpHeader"
  | "httpConnections"
  | "logBuffer"
  | "unknownPolicyWait"
  | "discoveryConnect"
  | "discoveryFirstAnswer"
  | "discoveryMessage"
  | "discoveryDemand"
  | "discoveryOffer"
  | "stateSave"
  | "stateAge"
  | "dnsQueries"
  | "dnsConnections"
  | "dnsResolverTimeout"
  | "dnsIdleTimeout";

/** Defaults with their reasons. */
export const LIMITS: Readonly<Record<LimitName, Limit>> = {
  localWorkloadWait: {
    variable: "LOCAL_WORKLOAD_TIMEOUT",
    value: 5000,
    unit: "ms",
    why: "a pod's first connection may come before the mesh knows the pod; the original's number",
  },
  hostLookup: {
    variable: "ON_DEMAND_DNS_TIMEOUT",
    value: 10_000,
    unit: "ms",
    why: "a connection to a workload that is known by its host name waits for DNS; two tries of 5 s are what resolvers do",
  },
  hostAnswers: {
    variable: "ON_DEMAND_DNS_CACHE_SIZE",
    value: 4096,
    unit: "host names",
    why: "whose addresses are kept as long as DNS allows; the original's number",
  },
  certificateWait: {
    variable: "CERTIFICATE_TIMEOUT",
    value: 10_000,
    unit: "ms",
    why: "a connection that needs a first certificate waits for the authority; peers give up a handshake after as long",
  },
  authorityAnswer: {
    variable: "CA_ANSWER_TIMEOUT",
    value: 30_000,
    unit: "ms",
    why: "from a request for a certificate to its answer, the way there included: an authority behind istiod may take its time, but of eight requests that are on their way at once none must hang",
  },
  acceptQueue: {
    variable: "ACCEPT_QUEUE_SIZE",
    value: 4096,
    unit: "connections per port and thread",
    why: "bursts wait in the kernel as long as they would at most applications; the kernel's net.core.somaxconn bounds it, the original's 128 overflow in a burst of 1,000 and cost seconds",
  },
  connectTimeout: {
    variable: "CONNECT_TIMEOUT",
    value: 10_000,
    unit: "ms",
    why: "three lost SYNs (1, 3 and 7 s) still get through; the original's number",
  },
  outlierWindow: {
    variable: "OUTLIER_FAILURE_WINDOW",
    value: 60_000,
    unit: "ms",
    why: "failed connects to an endpoint that are further apart are not in a row; some connect time-outs fit in",
  },
  outlierBaseEjection: {
    variable: "OUTLIER_BASE_EJECTION_TIME",
    value: 30_000,
    unit: "ms",
    why: "an endpoint that can't be reached is left out for so long, each further time as much longer, until it stayed for as long as it was last left out; Envoy's number",
  },
  outlierMaxEjection: {
    variable: "OUTLIER_MAX_EJECTION_TIME",
    value: 300_000,
    unit: "ms",
    why: "what that time grows to; Envoy's number",
  },
  affinityClients: {
    variable: "SESSION_AFFINITY_MAX_CLIENTS",
    value: 16_384,
    unit: "clients of services",
    why: "whose endpoint is remembered, 20 bytes each; more than a node's pods have. One that is forgotten goes where its address leads, mostly the same endpoint",
  },
  halfClosedIdle: {
    variable: "HALF_CLOSED_IDLE_TIMEOUT",
    value: 45_000,
    unit: "ms",
    why: "one direction has ended and nothing moves in the other; noticed up to a quarter later, so before the 60 s after which conntrack forgets redirected connections in CLOSE_WAIT and no reset reaches the application any more; the original waits for ever",
  },
  handshakeTimeout: {
    variable: "HANDSHAKE_TIMEOUT",
    value: 10_000,
    unit: "ms",
    why: "a peer that connects and stays silent must not hold a connection; as long as a connect",
  },
  pingInterval: {
    variable: "HBONE_PING_INTERVAL",
    value: 10_000,
    unit: "ms",
    why: "an idle tunnel notices a dead peer before people do; the original's number",
  },
  pingTimeout: {
    variable: "HBONE_PING_TIMEOUT",
    value: 20_000,
    unit: "ms",
    why: "survives a lost packet and its retransmissions; the original's number",
  },
  poolConnections: {
    variable: "POOL_MAX_CONNECTIONS",
    value: 500,
    unit: "tunnels per workload and thread",
    why: "far more peers than a pod talks to at a time, yet a bound; the original's number",
  },
  dialBackoff: {
    variable: "POOL_DIAL_BACKOFF_MAX",
    value: 100,
    unit: "ms",
    why: "a peer that refuses is dialled ten times a second at most (10 ms after the first failure, doubling), however many connections want to go there; they share that dial, and go on to another endpoint soon; the original dials for each",
  },
  clientHeaderList: {
    variable: "HTTP2_CLIENT_HEADER_LIST_SIZE",
    value: 16_384,
    unit: "bytes",
    why: "a peer's answer to CONNECT is a few hundred bytes; the original's number",
  },
  serverHeaderList: {
    variable: "HTTP2_SERVER_HEADER_LIST_SIZE",
    value: 65_536,
    unit: "bytes",
    why: "leaves room for headers that waypoints add; the original's number",
  },
  serverStreams: {
    variable: "HTTP2_SERVER_MAX_STREAMS",
    value: 200,
    unit: "streams per tunnel",
    why: "twice what our own clients put on one tunnel; the original's number",
  },
  floodAllowance: {
    variable: "HTTP2_FLOOD_ALLOWANCE",
    value: 100,
    unit: "% of what good peers send at most",
    why: "far above what a peer in good faith needs; raise it when a log line names an attack where there is none",
  },
  httpHeaderTimeout: {
    variable: "ADMIN_HEADER_TIMEOUT",
    value: 2000,
    unit: "ms",
    why: "probes and scrapers are near and quick; the original's number",
  },
  httpHeader: {
    variable: "ADMIN_HEADER_SIZE",
    value: 8192,
    unit: "bytes",
    why: "a scrape's request has a few hundred; the original's number",
  },
  httpConnections: {
    variable: "ADMIN_MAX_CONNECTIONS",
    value: 128,
    unit: "connections per operator port",
    why: "probes, scrapers and people are few; the ports must not eat the descriptors of traffic",
  },
  logBuffer: {
    variable: "LOG_BUFFER_SIZE",
    value: 16_777_216,
    unit: "bytes",
    why: "a minute of access lines at 500 connections per second; a reader that stalls longer loses lines, not connections",
  },
  unknownPolicyWait: {
    variable: "UNKNOWN_POLICY_TIMEOUT",
    value: 1000,
    unit: "ms",
    why: "a control plane sends a workload some milliseconds before its policies, a busy one later; then UNKNOWN_POLICY decides",
  },
  discoveryConnect: {
    variable: "XDS_CONNECT_TIMEOUT",
    value: 5000,
    unit: "ms",
    why: "name, TCP and TLS of the control plane's server; the original's number",
  },
  discoveryFirstAnswer: {
    variable: "XDS_FIRST_ANSWER_TIMEOUT",
    value: 60_000,
    unit: "ms",
    why: "a server that takes the stream and says nothing is given up; istiod answers at once, a busy one within seconds",
  },
  discoveryMessage: {
    variable: "XDS_MESSAGE_SIZE",
    value: 209_715_200,
    unit: "bytes",
    why: "a full push of a big mesh is one message: one of 55,000 workloads has 28 MB; a bigger message ends the conversation; the original's number",
  },
  discoveryDemand: {
    variable: "XDS_ON_DEMAND_TIMEOUT",
    value: 5000,
    unit: "ms",
    why: "a connection waits for what XDS_ON_DEMAND asks, then goes on with what is known; the original waits for ever",
  },
  stateSave: {
    variable: "STATE_SAVE_INTERVAL",
    value: 10_000,
    unit: "ms",
    why: "from a change of the mesh until STATE_DIR has it; a busy mesh changes many times a second",
  },
  stateAge: {
    variable: "STATE_MAX_AGE",
    value: 86_400_000,
    unit: "ms",
    why: "a kept mesh that is older is not served: its addresses belong to other pods by then",
  },
  dnsQueries: {
    variable: "DNS_MAX_QUERIES",
    value: 1000,
    unit: "queries per workload",
    why: "that wait for an answer, each forwarded one with a socket; more are answered SERVFAIL at once",
  },
  dnsConnections: {
    variable: "DNS_MAX_CONNECTIONS",
    value: 256,
    unit: "connections per workload and IP family",
    why: "DNS over TCP, which clients use for single long answers",
  },
  dnsResolverTimeout: {
    variable: "DNS_RESOLVER_TIMEOUT",
    value: 5000,
    unit: "ms",
    why: "one resolver's answer; options of /etc/resolv.conf may say less; the original's number",
  },
  dnsIdleTimeout: {
    variable: "DNS_IDLE_TIMEOUT",
    value: 5000,
    unit: "ms",
    why: "a client's TCP connection without queries; the original's number",
  },
  discoveryOffer: {
    variable: "XDS_OFFERED_VERSIONS_SIZE",
    value: 3_670_016,
    unit: "bytes",
    why: "names and versions offered to a new stream; the rest is sent again. istiod refuses requests over 4 MiB for ever (some 50,000 names), which the original runs into",
  },
};

const INTEGER_MAX = 2 ** 32 - 1;
/** As long as a timer of Node can be. */
const DURATION_MS_MAX = 2 ** 31 - 1;

/** The operator's value, or the default. Notes a mistake in the reader. */
export function readLimit(reader: EnvironmentReader, name: LimitName): number {
  const { variable, value, unit } = LIMITS[name];
  return unit === "ms"
    ? reader.duration(variable, value, { min: 1, max: DURATION_MS_MAX })
    : reader.integer(variable, value, { min: 1, max: INTEGER_MAX });
}
