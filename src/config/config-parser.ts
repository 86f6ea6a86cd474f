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
import type { ProxyOptions } from "../proxy/proxy-options.ts";
import { errorText } from "../runtime/error-text.ts";
import { invariant } from "../runtime/invariant.ts";
import { LogFilter } from "../telemetry/log-filter.ts";
import { parseSearchRules } from "../wire/resolver-file.ts";
import type { Config } from "./config.ts";
import { ConfigError } from "./config-error.ts";
import { RESOLV_CONF_PATH, readDns } from "./dns-config.ts";
import { DURATION_MS_MAX } from "./duration.ts";
import { readAffinity, readOutliers } from "./endpoint-config.ts";
import { type Environment, EnvironmentReader, type Host } from "./environment-reader.ts";
import { refuseIdleOptions } from "./idle-options.ts";
import { readIdentity, readMesh } from "./istiod-config.ts";
import { readLimit } from "./limits.ts";
import { type ProxyConfig, readProxyConfig } from "./proxy-config.ts";
import { chooseThreadCount } from "./thread-count.ts";

/** The only one of its prefix. */
const SOCKS5_SWITCH = "UNSTABLE_ENABLE_SOCKS5";
const READINESS_PORT = 15021;

/** As long as connections live on after SIGTERM, where nobody says otherwise. */
const POD_DRAIN_MS = 5000;

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
/** 0 is never. */
const IDLE_MS = { min: 0, max: DURATION_MS_MAX };

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
    podSocketsMs: reader.duration("POD_SOCKETS_INTERVAL", 30_000, { min: 0, max: DURATION_MS_MAX }),
    drainMs: readDrain(reader),
    istioVersion: reader.text("ISTIO_META_ISTIO_VERSION") ?? "unknown",
  };
  if (!config.proxyEnabled && config.dns === undefined) {
    reader.mistake("error parsing proxy config: ztunnel run without any servers enabled");
  }
  if (config.dns !== undefined && config.mesh.discovery?.onDemand === true) {
    reader.mistake(
      "error parsing proxy config: DNS proxy does not currently support on-demand mode",
    );
  }
  refuseIdleOptions(reader, config);
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
  const podDrainMs = reader.duration("POD_TERMINATION_DEADLINE", POD_DRAIN_MS, {
    min: 0,
    max: DURATION_MS_MAX,
  });
  return { kind, socketPath, self: readSelf(reader), podDrainMs };
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

/** What the numbers of the proxies depend on. */
interface ProxyStage {
  readonly mode: Config["mode"]["kind"];
  readonly ipv6: boolean;
  readonly dataThreadCount: number;
}

function readProxy(reader: EnvironmentReader, stage: ProxyStage): ProxyOptions {
  const { mode, ipv6 } = stage;
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
    reusePort: readPortReuse(reader, stage),
    originalSource: readOriginalSource(reader),
    keepAlive: readKeepAlive(reader),
    acceptQueueMax: readLimit(reader, "acceptQueue"),
    localWorkloadWaitMs: readLimit(reader, "localWorkloadWait"),
    connectRetriesMax: reader.integer("CONNECT_RETRIES", 2, { min: 0, max: U32_MAX }),
    outliers: readOutliers(reader),
    affinity: readAffinity(reader),
    connectTimeoutMs: readLimit(reader, "connectTimeout"),
    halfClosedIdleMs: readLimit(reader, "halfClosedIdle"),
    idleMs: reader.duration("CONNECTION_IDLE_TIMEOUT", 0, IDLE_MS) || undefined,
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

/** In pods a successor shares the ports; in the daemon's own namespace only who asks for it has that. */
function readPortReuse(reader: EnvironmentReader, { mode, dataThreadCount }: ProxyStage): boolean {
  const reuses = reader.flag("INPOD_PORT_REUSE", mode === "shared" || dataThreadCount > 1);
  if (!reuses && dataThreadCount > 1) {
    const reason = `${dataThreadCount} data threads share ports, needs ZTUNNEL_WORKER_THREADS=1`;
    reader.invalid("INPOD_PORT_REUSE", reason);
  }
  return reuses;
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
  const intervalMs = reader.duration("KEEPALIVE_INTERVAL", 15_000, KEEPALIVE_MS);
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
