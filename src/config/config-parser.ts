/**
 * Environment and mesh configuration → {@link Config}, or everything that is wrong with them.
 *
 * @see spec control-plane 6; config-option.ts lists what is read.
 */
import { existsSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import type { KeepAliveOptions } from "../engine/engine.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import { type IpAddress, parseIpAddress } from "../mesh/ip-address.ts";
import { parsePort } from "../mesh/socket-address.ts";
import type { ProxyOptions } from "../proxy/proxy-options.ts";
import { errorText } from "../runtime/error-text.ts";
import { invariant } from "../runtime/invariant.ts";
import { LogFilter } from "../telemetry/log-filter.ts";
import { parseSearchRules } from "../wire/resolver-file.ts";
import type { NodeDescription } from "../xds/delta-client.ts";
import type {
  Config,
  DiscoveryConfig,
  IdentityConfig,
  MeshConfig,
  RootSource,
  TokenSource,
} from "./config.ts";
import { ConfigError } from "./config-error.ts";
import { RESOLV_CONF_PATH, readDns } from "./dns-config.ts";
import { type Environment, EnvironmentReader } from "./environment-reader.ts";
import { readLimit } from "./limits.ts";
import { type ProxyConfig, readProxyConfig } from "./proxy-config.ts";
import { chooseThreadCount } from "./thread-count.ts";

/** The only one of its prefix. */
const SOCKS5_SWITCH = "UNSTABLE_ENABLE_SOCKS5";
const DEFAULT_ROOT_PATH = "./var/run/secrets/istio/root-cert.pem";
const DEFAULT_TOKEN_PATH = "./var/run/secrets/tokens/istio-token";
const ISTIOD_PORT = 15012;
const READINESS_PORT = 15021;

/** By which istio-cni's rules know packets of the proxy. */
const SHARED_MARK = 1337;
/** Largest unsigned 32-bit number. */
const U32_MAX = 2 ** 32 - 1;
/** RFC 9113, section 6.9.1. */
const HTTP2_WINDOW_MAX = 2 ** 31 - 1;
/** RFC 9113, section 4.2. */
const HTTP2_FRAME = { min: 16_384, max: 2 ** 24 - 1 };
/** What Linux takes for TCP_KEEPIDLE and TCP_KEEPINTVL, and for TCP_KEEPCNT. */
const KEEPALIVE_MS = { min: 1000, max: 32_767_000 };
const KEEPALIVE_PROBES = { min: 1, max: 127 };
const DAY_MS = 86_400_000;
/** Longer than any process lives. */
const DURATION_MS_MAX = 3650 * DAY_MS;

/** What configuration asks of the machine. */
export interface Host {
  readonly cpuCount: number;
  fileExists(path: string): boolean;
  /** @throws what the system says. */
  readText(path: string): string;
}

const machine: Host = {
  get cpuCount() {
    return availableParallelism();
  },
  fileExists: existsSync,
  readText: (path) => readFileSync(path, "utf8"),
};

/**
 * @param meshConfig text of `./etc/istio/config/mesh`, `undefined` when there is none.
 * @throws ConfigError with all mistakes.
 */
export function parseConfig(
  environment: Environment,
  meshConfig: string | undefined,
  host: Host = machine,
): Config {
  const reader = new EnvironmentReader(environment);
  const proxyConfig = readProxyConfig(meshConfig, reader);
  const mode = readMode(reader);
  const ipv6 = reader.flag("IPV6_ENABLED", true);
  const dataThreadCount = chooseThreadCount(reader, proxyConfig.concurrency, host.cpuCount);
  const proxy = readProxy(reader, { mode: mode.kind, ipv6, dataThreadCount });
  const config: Config = {
    mesh: readMesh(reader, proxyConfig),
    identity: readIdentity(reader, host),
    proxy,
    proxyEnabled: reader.flag("ENABLE_PROXY", true),
    dns: readDns(reader, {
      ...proxy,
      proxyConfig,
      mode: mode.kind,
      ipv6,
      searchDomains: readSearchDomains(host),
    }),
    hosts: {
      namesMax: readLimit(reader, "hostAnswers"),
      timeoutMs: readLimit(reader, "hostLookup"),
      ipv6,
    },
    mode,
    admin: readAdmin(reader, proxyConfig, ipv6),
    logging: {
      format: reader.oneOf("LOG_FORMAT", ["plain", "json"], "plain"),
      filter: readLogFilter(reader),
      bufferBytesMax: readLimit(reader, "logBuffer"),
    },
    dataThreadCount,
    drainMs: readDrain(reader),
    istioVersion: reader.text("ISTIO_META_ISTIO_VERSION") ?? "unknown",
  };
  if (!config.proxy.reusePort && dataThreadCount > 1) {
    const reason = `${dataThreadCount} data threads share ports, needs ZTUNNEL_WORKER_THREADS=1`;
    reader.invalid("INPOD_PORT_REUSE", reason);
  }
  if (!config.proxyEnabled && config.dns === undefined) {
    reader.mistake("error parsing proxy config: ztunnel run without any servers enabled");
  }
  if (config.dns !== undefined && config.mesh.discovery?.onDemand === true) {
    reader.mistake(
      "error parsing proxy config: DNS proxy does not currently support on-demand mode",
    );
  }
  if (reader.mistakes.length > 0) throw new ConfigError(reader.mistakes);
  return config;
}

/** Where there is no such file, nobody searches. */
function readSearchDomains(host: Host): readonly string[] {
  try {
    return parseSearchRules(host.readText(RESOLV_CONF_PATH)).search;
  } catch {
    return [];
  }
}

function readMode(reader: EnvironmentReader): Config["mode"] {
  const kind = reader.oneOf("PROXY_MODE", ["dedicated", "shared"], "shared");
  if (kind === "dedicated") return { kind, workload: readOnlyWorkload(reader) };
  const socketPath = reader.filled("INPOD_UDS") ?? "/var/run/ztunnel/ztunnel.sock";
  return { kind, socketPath, self: readSelf(reader) };
}

/** The one that the dedicated mode is for. */
function readOnlyWorkload(reader: EnvironmentReader): EnrolledWorkload {
  const text = reader.text("PROXY_WORKLOAD_INFO");
  const parts = text?.split("/") ?? [];
  const [namespace = "", name = "", serviceAccount = ""] = parts;
  if (text === undefined) {
    reader.mistake(
      "invalid configuration: PROXY_MODE=dedicated requires PROXY_WORKLOAD_INFO to be set",
    );
  } else if (parts.length !== 3 || parts.includes("")) {
    const got = parts.map((part) => JSON.stringify(part)).join(", ");
    reader.mistake(
      `invalid configuration: PROXY_WORKLOAD_INFO must match the format 'namespace/name/service-account' (got [${got}])`,
    );
  }
  return { uid: "dedicated", name, namespace, serviceAccount };
}

/** Only where all three are known, as the chart sets them. */
function readSelf(reader: EnvironmentReader): EnrolledWorkload | undefined {
  const name = reader.text("POD_NAME");
  const namespace = reader.text("POD_NAMESPACE");
  const serviceAccount = reader.text("SERVICE_ACCOUNT");
  const trustDomain = reader.text("TRUST_DOMAIN");
  if (name === undefined || namespace === undefined || serviceAccount === undefined) {
    return undefined;
  }
  return {
    ...{ uid: "self", name, namespace, serviceAccount },
    ...(trustDomain === undefined ? {} : { trustDomain }),
  };
}

function readMesh(reader: EnvironmentReader, proxyConfig: ProxyConfig): MeshConfig {
  const path = reader.text("LOCAL_XDS_PATH");
  const text = reader.text("LOCAL_XDS");
  if (path !== undefined && text !== undefined) {
    reader.mistake("invalid configuration: only one of LOCAL_XDS_PATH or LOCAL_XDS may be set");
  }
  const hasFile = path !== undefined || text !== undefined;
  const discovery = readDiscovery(reader, proxyConfig, hasFile);
  if (!hasFile && discovery === undefined) {
    // Without any mesh every connection would pass as plain text, unnoticed.
    reader.mistake(
      "invalid configuration: XDS_ADDRESS is empty and neither LOCAL_XDS_PATH nor LOCAL_XDS is set",
    );
  }
  return {
    file:
      path === undefined
        ? text === undefined
          ? undefined
          : { kind: "text", text }
        : { kind: "file", path },
    discovery,
    localNode: reader.text("NODE_NAME"),
  };
}

/** A mesh file alone asks no control plane, unless one is named: nobody runs one beside a file. */
function readDiscovery(
  reader: EnvironmentReader,
  proxyConfig: ProxyConfig,
  hasFile: boolean,
): DiscoveryConfig | undefined {
  const text = reader.text("XDS_ADDRESS") ?? proxyConfig.discoveryAddress;
  // All are read even where none is asked, so that all mistakes come at once.
  const discovery: DiscoveryConfig = {
    server: {
      ...readServerAddress(reader, "XDS_ADDRESS", text === "" ? undefined : text),
      alternativeHost: reader.text("ALT_XDS_HOSTNAME"),
      roots: readRoots(reader.filled("XDS_ROOT_CA") ?? DEFAULT_ROOT_PATH),
    },
    headers: readHeaders(reader, "XDS_HEADER_"),
    node: readNode(reader, proxyConfig),
    onDemand: reader.flag("XDS_ON_DEMAND", false),
    connectMs: readLimit(reader, "discoveryConnect"),
    firstAnswerMs: readLimit(reader, "discoveryFirstAnswer"),
    demandMs: readLimit(reader, "discoveryDemand"),
    state: readState(reader),
    offeredBytesMax: readLimit(reader, "discoveryOffer"),
  };
  return text === "" || (text === undefined && hasFile) ? undefined : discovery;
}

function readState(reader: EnvironmentReader): DiscoveryConfig["state"] {
  const folder = reader.text("STATE_DIR");
  const everyMs = readLimit(reader, "stateSave");
  const ageMsMax = readLimit(reader, "stateAge");
  return folder === undefined || folder === "" ? undefined : { folder, everyMs, ageMsMax };
}

/** @see spec control-plane 1.2 */
function readNode(reader: EnvironmentReader, proxyConfig: ProxyConfig): NodeDescription {
  const ip = reader.text("INSTANCE_IP") ?? "1.1.1.1";
  const pod = reader.text("POD_NAME") ?? "";
  const namespace = reader.text("POD_NAMESPACE") ?? "";
  const metadata: Record<string, unknown> = {
    NAME: pod,
    NAMESPACE: namespace,
    INSTANCE_IPS: ip,
    NODE_NAME: reader.text("NODE_NAME") ?? "",
    ...Object.fromEntries(proxyConfig.metadata),
    ...Object.fromEntries(reader.withPrefix("ISTIO_META_")),
  };
  for (const [name, json] of reader.withPrefix("ISTIO_METAJSON_")) {
    try {
      metadata[name] = JSON.parse(json);
    } catch {
      reader.invalid(`ISTIO_METAJSON_${name}`, "is not JSON");
    }
  }
  return { id: `ztunnel~${ip}~${pod}.${namespace}~${namespace}.svc.cluster.local`, metadata };
}

function readIdentity(reader: EnvironmentReader, host: Host): IdentityConfig {
  if (reader.flag("FAKE_CA", false)) {
    reader.invalid("FAKE_CA", "the daemon signs no certificates, ztunnel embedded-mesh does");
  }
  return {
    authority: {
      ...readServerAddress(reader, "CA_ADDRESS", reader.text("CA_ADDRESS")),
      alternativeHost: reader.text("ALT_CA_HOSTNAME"),
      roots: readRoots(reader.filled("CA_ROOT_CA") ?? DEFAULT_ROOT_PATH),
    },
    token: readToken(reader, host),
    clusterId: reader.text("ISTIO_META_CLUSTER_ID") ?? reader.text("CLUSTER_ID") ?? "Kubernetes",
    headers: readHeaders(reader, "CA_HEADER_"),
    certificateTtlMs: reader.duration("SECRET_TTL", DAY_MS, { min: 1000, max: DURATION_MS_MAX }),
    certificateWaitMs: readLimit(reader, "certificateWait"),
    revocationPath: reader.text("CRL_PATH") || undefined,
  };
}

/** @param text of the variable, or of what stands in for it. */
function readServerAddress(
  reader: EnvironmentReader,
  variable: string,
  text: string | undefined,
): { host: string; port: number } {
  const inCluster = reader.text("KUBERNETES_SERVICE_HOST") !== undefined;
  const fallback = inCluster ? "istiod.istio-system.svc" : "localhost";
  if (text === undefined) return { host: fallback, port: ISTIOD_PORT };
  const [, scheme = "https", authority = ""] = /^(?:([^:/]+):\/\/)?([^/]*)\/?$/.exec(text) ?? [];
  const [, host = "", portText = "443"] =
    /^(\[[\d:a-f.]+\]|[^:[\]@\s]+)(?::(.*))?$/i.exec(authority) ?? [];
  const port = parsePort(portText);
  if (text === "") reader.invalid(variable, "must not be empty");
  else if (scheme !== "https") reader.invalid(variable, "the scheme must be https");
  else if (host === "" || port === undefined || port === 0) {
    reader.invalid(variable, "expected host:port or https://host:port");
  } else return { host: host.replace(/^\[|\]$/g, ""), port };
  return { host: fallback, port: ISTIOD_PORT };
}

/**
 * A path that does not exist yet stays a path: the file may be mounted later. (The original takes
 * its name for a certificate then and never recovers.)
 */
function readRoots(text: string): RootSource {
  if (text === "SYSTEM") return { kind: "system" };
  return text.includes("-----BEGIN") ? { kind: "pem", pem: text } : { kind: "file", path: text };
}

function readToken(reader: EnvironmentReader, host: Host): TokenSource | undefined {
  const text = reader.text("AUTH_TOKEN");
  const path = text ?? DEFAULT_TOKEN_PATH;
  if (host.fileExists(path)) return { kind: "file", path };
  return text === undefined ? undefined : { kind: "literal", token: text };
}

function readHeaders(
  reader: EnvironmentReader,
  prefix: string,
): readonly (readonly [string, string])[] {
  return reader.withPrefix(prefix).map(([name, value]) => {
    if (!/^[!#$%&'*+\-.^_`|~\dA-Za-z]+$/.test(name)) {
      reader.invalid(prefix + name, "the rest of the name is no header name");
    }
    if (!/^[\x20-\x7e]*$/.test(value)) {
      reader.invalid(prefix + name, "a header value is printable ASCII");
    }
    return [name.toLowerCase(), value];
  });
}

/** What the numbers of the proxies depend on. */
interface ProxyStage {
  readonly mode: Config["mode"]["kind"];
  readonly ipv6: boolean;
  readonly dataThreadCount: number;
}

function readProxy(reader: EnvironmentReader, stage: ProxyStage): ProxyOptions {
  const { mode, ipv6, dataThreadCount } = stage;
  const window = { min: 65_535, max: HTTP2_WINDOW_MAX };
  const tunnel = {
    streamWindowBytes: reader.integer("HTTP2_STREAM_WINDOW_SIZE", 4 * 2 ** 20, window),
    connectionWindowBytes: reader.integer("HTTP2_CONNECTION_WINDOW_SIZE", 16 * 2 ** 20, window),
    frameBytesMax: reader.integer("HTTP2_FRAME_SIZE", 2 ** 20, HTTP2_FRAME),
    floodPercent: readLimit(reader, "floodAllowance"),
    pingIntervalMs: readLimit(reader, "pingInterval"),
    pingTimeoutMs: readLimit(reader, "pingTimeout"),
    handshakeTimeoutMs: readLimit(reader, "handshakeTimeout"),
  };
  const streamsPerConnectionMax = reader.integer("POOL_MAX_STREAMS_PER_CONNECTION", 100, {
    min: 1,
    max: 65_535,
  });
  return {
    network: reader.text("NETWORK") ?? "",
    listenIp: wildcard(ipv6),
    mark:
      mode === "dedicated" && reader.text("PACKET_MARK") === undefined
        ? undefined
        : reader.integer("PACKET_MARK", SHARED_MARK, { min: 0, max: U32_MAX }),
    reusePort: mode === "dedicated" ? dataThreadCount > 1 : reader.flag("INPOD_PORT_REUSE", true),
    originalSource: readOriginalSource(reader),
    keepAlive: readKeepAlive(reader),
    acceptQueueMax: readLimit(reader, "acceptQueue"),
    localWorkloadWaitMs: readLimit(reader, "localWorkloadWait"),
    connectRetriesMax: reader.integer("CONNECT_RETRIES", 2, { min: 0, max: U32_MAX }),
    connectTimeoutMs: readLimit(reader, "connectTimeout"),
    halfClosedIdleMs: readLimit(reader, "halfClosedIdle"),
    clientTunnel: {
      ...tunnel,
      headerListBytesMax: readLimit(reader, "clientHeaderList"),
      streamsMax: streamsPerConnectionMax,
    },
    serverTunnel: {
      ...tunnel,
      headerListBytesMax: readLimit(reader, "serverHeaderList"),
      streamsMax: readLimit(reader, "serverStreams"),
    },
    pool: {
      streamsPerConnectionMax,
      unusedReleaseMs: reader.duration("POOL_UNUSED_RELEASE_TIMEOUT", 300_000, {
        min: 0,
        max: DURATION_MS_MAX,
      }),
      dialBackoffMaxMs: readLimit(reader, "dialBackoff"),
      connectionsMax: readLimit(reader, "poolConnections"),
    },
    socks5: readSocks5(reader),
    tls12: reader.flag("TLS12_ENABLED", false),
    trustDomains: readList(reader, "TRUST_DOMAINS"),
    checkRevocation: Boolean(reader.text("CRL_PATH")),
    postQuantumOnly: reader.oneOf("COMPLIANCE_POLICY", ["pqc"], undefined) !== undefined,
    responseBaggage: reader.flag("ENABLE_RESPONSE_BAGGAGE", true),
    localhostTunnel: reader.flag("LOCALHOST_APP_TUNNEL", true),
    policyInfoLogging: reader.flag("AUTHZ_POLICY_INFO_LOGGING", false),
    unknownPolicy: reader.oneOf("UNKNOWN_POLICY", ["deny", "allow"], "deny"),
    unknownPolicyWaitMs: readLimit(reader, "unknownPolicyWait"),
  };
}

/** Whoever asks for something unstable that is not here would not notice that it is missing. */
function readSocks5(reader: EnvironmentReader): boolean {
  for (const [name] of reader.withPrefix("UNSTABLE_")) {
    if (`UNSTABLE_${name}` === SOCKS5_SWITCH) continue;
    reader.invalid(`UNSTABLE_${name}`, `there is no such option, only ${SOCKS5_SWITCH}`);
  }
  return reader.flag(SOCKS5_SWITCH, false);
}

/** What stands between commas. */
function readList(reader: EnvironmentReader, name: string): readonly string[] {
  const parts = (reader.text(name) ?? "").split(",").map((part) => part.trim());
  return parts.filter((part) => part !== "");
}

function wildcard(ipv6: boolean): IpAddress {
  const ip = parseIpAddress(ipv6 ? "::" : "0.0.0.0");
  invariant(ip !== undefined, "the wildcard addresses are addresses");
  return ip;
}

function readOriginalSource(reader: EnvironmentReader): ProxyOptions["originalSource"] {
  const wanted = reader.flag("ENABLE_ORIG_SRC", undefined);
  if (wanted === undefined) return "try";
  return wanted ? "required" : "off";
}

function readKeepAlive(reader: EnvironmentReader): KeepAliveOptions | undefined {
  const enabled = reader.flag("KEEPALIVE_ENABLED", true);
  const idleMs = reader.duration("KEEPALIVE_TIME", 180_000, KEEPALIVE_MS);
  const intervalMs = reader.duration("KEEPALIVE_INTERVAL", 180_000, KEEPALIVE_MS);
  const probes = reader.integer("KEEPALIVE_RETRIES", 9, KEEPALIVE_PROBES);
  const withUserTimeout = reader.flag("USER_TIMEOUT_ENABLED", false);
  if (withUserTimeout && !enabled) {
    reader.invalid("USER_TIMEOUT_ENABLED", "needs KEEPALIVE_ENABLED=true");
  }
  const userTimeoutMs = withUserTimeout ? idleMs + probes * intervalMs : undefined;
  return enabled ? { idleMs, intervalMs, probes, userTimeoutMs } : undefined;
}

function readAdmin(
  reader: EnvironmentReader,
  proxyConfig: ProxyConfig,
  ipv6: boolean,
): Config["admin"] {
  return {
    adminPort: proxyConfig.adminPort ?? 15_000,
    statsPort: proxyConfig.statsPort ?? 15_020,
    readinessPort: READINESS_PORT,
    ipv6,
    waitsForPorts: reader.flag("WAIT_FOR_OPERATOR_PORTS", false),
    http: {
      headerTimeoutMs: readLimit(reader, "httpHeaderTimeout"),
      headerBytesMax: readLimit(reader, "httpHeader"),
      connectionsMax: readLimit(reader, "httpConnections"),
    },
  };
}

function readLogFilter(reader: EnvironmentReader): string {
  const text = reader.text("RUST_LOG") ?? "info";
  try {
    return LogFilter.parse(text).format();
  } catch (error) {
    reader.invalid("RUST_LOG", errorText(error));
    return "info";
  }
}

/** Leaves the kubelet's grace period some seconds, so that it never has to kill. */
function readDrain(reader: EnvironmentReader): number {
  const graceSeconds = reader.integer("TERMINATION_GRACE_PERIOD_SECONDS", 10, {
    min: 0,
    max: DURATION_MS_MAX / 1000,
  });
  const drainSeconds = graceSeconds > 10 ? graceSeconds - 5 : graceSeconds - 1;
  const isGraceSet = reader.text("TERMINATION_GRACE_PERIOD_SECONDS") !== undefined;
  const fallbackMs = isGraceSet ? Math.max(drainSeconds, 1) * 1000 : 5000;
  return reader.duration("CONNECTION_TERMINATION_DEADLINE", fallbackMs, {
    min: 0,
    max: DURATION_MS_MAX,
  });
}
