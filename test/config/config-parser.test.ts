import assert from "node:assert/strict";
import { test } from "node:test";
import type { Config } from "../../src/config/config.ts";
import { ConfigError } from "../../src/config/config-error.ts";
import { CONFIG_OPTIONS } from "../../src/config/config-option.ts";
import { parseConfig } from "../../src/config/config-parser.ts";
import type { Host } from "../../src/config/environment-reader.ts";

const MESH = { LOCAL_XDS_PATH: "mesh.yaml" };

function host(cpuCount = 8, files: readonly string[] = [], resolvConf = ""): Host {
  return { cpuCount, fileExists: (path) => files.includes(path), readText: () => resolvConf };
}

function parse(environment: Record<string, string>, machine = host()): Config {
  return parseConfig({ ...MESH, ...environment }, undefined, machine);
}

function mistakesOf(environment: Record<string, string>, meshConfig?: string): readonly string[] {
  try {
    parseConfig({ ...MESH, ...environment }, meshConfig, host());
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.message, error.mistakes.join("\n"));
    return error.mistakes;
  }
  return [];
}

test("an empty environment but for the mesh gives the documented defaults", () => {
  const config = parse({});
  assert.deepEqual(config.mesh, {
    file: { kind: "file", path: "mesh.yaml" },
    discovery: undefined,
    localNode: undefined,
  });
  assert.deepEqual(config.identity, {
    authority: {
      host: "localhost",
      port: 15012,
      alternativeHost: undefined,
      roots: { kind: "file", path: "./var/run/secrets/istio/root-cert.pem" },
    },
    token: undefined,
    clusterId: "Kubernetes",
    headers: [],
    certificateTtlMs: 86_400_000,
    certificateWaitMs: 10_000,
    answerMs: 30_000,
    revocationPath: undefined,
  });
  const tunnel = {
    streamWindowBytes: 4_194_304,
    connectionWindowBytes: 16_777_216,
    frameBytesMax: 1_048_576,
    floodPercent: 100,
    pingIntervalMs: 10_000,
    pingTimeoutMs: 20_000,
    handshakeTimeoutMs: 10_000,
  };
  assert.deepEqual(config.proxy, {
    network: "",
    listenIp: "::",
    mark: 1337,
    reusePort: true,
    originalSource: "try",
    keepAlive: { idleMs: 180_000, intervalMs: 15_000, probes: 9, userTimeoutMs: undefined },
    acceptQueueMax: 4096,
    localWorkloadWaitMs: 5000,
    connectTimeoutMs: 10_000,
    halfClosedIdleMs: 45_000,
    idleMs: undefined,
    clientTunnel: { ...tunnel, headerListBytesMax: 16_384, streamsMax: 100 },
    serverTunnel: { ...tunnel, headerListBytesMax: 65_536, streamsMax: 200 },
    pool: {
      streamsPerConnectionMax: 100,
      unusedReleaseMs: 300_000,
      dialBackoffMaxMs: 100,
      connectionsMax: 500,
    },
    socks5: false,
    tls12: false,
    trustDomains: [],
    checkRevocation: false,
    postQuantumOnly: false,
    responseBaggage: true,
    localhostTunnel: true,
    connectRetriesMax: 2,
    outliers: undefined,
    affinity: { services: {}, clientsMax: 16_384 },
    policyInfoLogging: false,
    unknownPolicy: "deny",
    unknownPolicyWaitMs: 1000,
  });
  assert.deepEqual(config.mode, {
    kind: "shared",
    socketPath: "/var/run/ztunnel/ztunnel.sock",
    self: undefined,
    podDrainMs: 5000,
  });
  assert.deepEqual(config.admin, {
    adminPort: 15_000,
    statsPort: 15_020,
    readinessPort: 15_021,
    waitsForPorts: false,
    ipv6: true,
    http: { headerTimeoutMs: 2000, headerBytesMax: 8192, connectionsMax: 128 },
  });
  assert.deepEqual(config.logging, {
    format: "plain",
    filter: "info",
    bufferBytesMax: 16_777_216,
  });
  assert.equal(config.dataThreadCount, 2);
  assert.equal(config.drainMs, 5000);
  assert.equal(config.istioVersion, "unknown");
});

const settings: readonly {
  readonly environment: Record<string, string>;
  readonly read: (config: Config) => unknown;
  readonly value: unknown;
}[] = [
  {
    environment: { WAIT_FOR_OPERATOR_PORTS: "true" },
    read: (c) => c.admin.waitsForPorts,
    value: true,
  },
  { environment: { CONNECTION_IDLE_TIMEOUT: "0" }, read: (c) => c.proxy.idleMs, value: undefined },
  { environment: { CONNECTION_IDLE_TIMEOUT: "1h" }, read: (c) => c.proxy.idleMs, value: 3_600_000 },
  {
    environment: { POD_TERMINATION_DEADLINE: "0" },
    read: (c) => c.mode.kind === "shared" && c.mode.podDrainMs,
    value: 0,
  },
  { environment: { CA_ANSWER_TIMEOUT: "5s" }, read: (c) => c.identity.answerMs, value: 5000 },
  {
    environment: { XDS_ADDRESS: "istiod:1", XDS_MESSAGE_SIZE: "4194304" },
    read: (c) => c.mesh.discovery?.receivedBytesMax,
    value: 4_194_304,
  },
  { environment: { CONNECT_RETRIES: "0" }, read: (c) => c.proxy.connectRetriesMax, value: 0 },
  {
    environment: { TRUST_DOMAINS: "old.example, older.example,," },
    read: (c) => c.proxy.trustDomains,
    value: ["old.example", "older.example"],
  },
  {
    environment: { CRL_PATH: "" },
    read: (c) => [c.identity.revocationPath, c.proxy.checkRevocation],
    value: [undefined, false],
  },
  {
    environment: { CA_ROOT_CA: "-----BEGIN CERTIFICATE-----\n" },
    read: (c) => c.identity.authority.roots,
    value: { kind: "pem", pem: "-----BEGIN CERTIFICATE-----\n" },
  },
  { environment: { TERMINATION_GRACE_PERIOD_SECONDS: "10" }, read: (c) => c.drainMs, value: 9000 },
  { environment: { TERMINATION_GRACE_PERIOD_SECONDS: "0" }, read: (c) => c.drainMs, value: 1000 },
  {
    environment: { TERMINATION_GRACE_PERIOD_SECONDS: "30", CONNECTION_TERMINATION_DEADLINE: "1s" },
    read: (c) => c.drainMs,
    value: 1000,
  },
  { environment: { PROXY_CONFIG: "" }, read: (c) => c.admin.adminPort, value: 15_000 },
];

for (const { environment, read, value } of settings) {
  const text = Object.entries(environment).map(([name, set]) => `${name}=${JSON.stringify(set)}`);
  test(`${text.join(" ")} gives ${JSON.stringify(value)}`, () => {
    assert.deepEqual(read(parse(environment)), value);
  });
}

const addresses: readonly (readonly [text: string, host: string, port: number])[] = [
  ["istiod.istio-system.svc:15012", "istiod.istio-system.svc", 15012],
  ["https://istiod.istio-system.svc:15012", "istiod.istio-system.svc", 15012],
  ["https://ca.example/", "ca.example", 443],
  ["127.0.0.1:15012", "127.0.0.1", 15012],
  ["[::1]:15012", "::1", 15012],
];

for (const [text, authorityHost, port] of addresses) {
  test(`CA_ADDRESS=${text} names the authority`, () => {
    const { authority } = parse({ CA_ADDRESS: text }).identity;
    assert.deepEqual([authority.host, authority.port], [authorityHost, port]);
  });
}

test("inside a cluster the authority is istiod", () => {
  const { authority } = parse({ KUBERNETES_SERVICE_HOST: "10.96.0.1" }).identity;
  assert.equal(authority.host, "istiod.istio-system.svc");
});

test("the mounted token is used when it exists, and a path that exists is a file", () => {
  const mounted = "./var/run/secrets/tokens/istio-token";
  assert.deepEqual(parse({}, host(8, [mounted])).identity.token, { kind: "file", path: mounted });
  assert.deepEqual(parse({ AUTH_TOKEN: "token" }, host(8, ["token"])).identity.token, {
    kind: "file",
    path: "token",
  });
});

test("the mesh may come as text", () => {
  const config = parseConfig({ LOCAL_XDS: "workloads: []" }, undefined, host());
  assert.deepEqual(config.mesh.file, { kind: "text", text: "workloads: []" });
});

const threads: readonly {
  readonly environment: Record<string, string>;
  readonly cpuCount: number;
  readonly count: number;
}[] = [
  { environment: {}, cpuCount: 1, count: 1 },
  { environment: {}, cpuCount: 4, count: 1 },
  { environment: {}, cpuCount: 9, count: 3 },
  { environment: { ZTUNNEL_CPU_LIMIT: "16" }, cpuCount: 2, count: 4 },
  { environment: { ZTUNNEL_RESOURCE_CPU_LIMIT: "2500m" }, cpuCount: 64, count: 3 },
  {
    environment: { ZTUNNEL_RESOURCE_CPU_LIMIT: "1", ZTUNNEL_RESOURCE_CPU_REQUEST: "1.5" },
    cpuCount: 64,
    count: 2,
  },
  { environment: { ZTUNNEL_RESOURCE_CPU_REQUEST: "3" }, cpuCount: 4, count: 3 },
  { environment: { ZTUNNEL_RESOURCE_CPU_REQUEST: "200m" }, cpuCount: 8, count: 2 },
  { environment: { ZTUNNEL_WORKER_THREADS: "0" }, cpuCount: 8, count: 0 },
  { environment: { ZTUNNEL_WORKER_THREADS: "5" }, cpuCount: 2, count: 5 },
  { environment: { ZTUNNEL_WORKER_THREADS: "100%" }, cpuCount: 6, count: 6 },
  { environment: { ZTUNNEL_WORKER_THREADS: "30%" }, cpuCount: 4, count: 2 },
  { environment: { PROXY_CONFIG: "{concurrency: 3, proxyMetadata: {}}" }, cpuCount: 64, count: 3 },
  { environment: { PROXY_CONFIG: "{concurrency: 0, proxyMetadata: {}}" }, cpuCount: 6, count: 6 },
  {
    environment: {
      PROXY_CONFIG: "{concurrency: 3, proxyMetadata: {}}",
      ZTUNNEL_WORKER_THREADS: "1",
    },
    cpuCount: 64,
    count: 1,
  },
];

for (const { environment, cpuCount, count } of threads) {
  test(`${JSON.stringify(environment)} on ${cpuCount} CPUs starts ${count} data threads`, () => {
    assert.equal(parse(environment, host(cpuCount)).dataThreadCount, count);
  });
}

test("PROXY_CONFIG wins key by key over the mesh configuration, and foreign keys are passed over", () => {
  const meshConfig = `
accessLogFile: /dev/stdout
defaultConfig:
  discoveryAddress: istiod:15012
  proxyAdminPort: 1111
  statsPort: 2222
  proxyMetadata: {}
`;
  const environment = { ...MESH, PROXY_CONFIG: '{"statsPort":3333,"proxyMetadata":{}}' };
  const { admin } = parseConfig(environment, meshConfig, host());
  assert.deepEqual([admin.adminPort, admin.statsPort], [1111, 3333]);
});

const mistakes: readonly (readonly [environment: Record<string, string>, mistake: string])[] = [
  [
    { PROXY_MODE: "foo" },
    "invalid env var PROXY_MODE=foo (PROXY_MODE must be one of dedicated, shared)",
  ],
  [
    { PROXY_MODE: "dedicated" },
    "invalid configuration: PROXY_MODE=dedicated requires PROXY_WORKLOAD_INFO to be set",
  ],
  [
    { PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "shop/cart" },
    `invalid configuration: PROXY_WORKLOAD_INFO must match the format 'namespace/name/service-account' (got ["shop", "cart"])`,
  ],
  [
    { PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "shop//cart" },
    `invalid configuration: PROXY_WORKLOAD_INFO must match the format 'namespace/name/service-account' (got ["shop", "", "cart"])`,
  ],
  ...["", "localhost", "10.0.0.1:80", "10.0.0.1,", "10.0.0.256"].map(
    (text) =>
      [
        { INSTANCE_IP: text },
        `invalid env var INSTANCE_IP=${text} (expected an IP address, or several with commas between)`,
      ] as const,
  ),
  [
    { FAKE_CA: "true" },
    "invalid env var FAKE_CA=true (the daemon signs no certificates, ztunnel embedded-mesh does)",
  ],
  [
    { UNSTABLE_ENABLE_SOCKS5: "true", UNSTABLE_ENABLE_MAGIC: "true" },
    "invalid env var UNSTABLE_ENABLE_MAGIC=true (there is no such option, only UNSTABLE_ENABLE_SOCKS5)",
  ],
  [
    { UNSTABLE_ENABLE_SOCKS5: "1" },
    "invalid env var UNSTABLE_ENABLE_SOCKS5=1 (provided string was not `true` or `false`)",
  ],
  [
    { IPV6_ENABLED: "yes" },
    "invalid env var IPV6_ENABLED=yes (provided string was not `true` or `false`)",
  ],
  [
    { TLS12_ENABLED: "" },
    "invalid env var TLS12_ENABLED= (provided string was not `true` or `false`)",
  ],
  [
    { HTTP2_FRAME_SIZE: "big" },
    "invalid env var HTTP2_FRAME_SIZE=big (invalid digit found in string)",
  ],
  [
    { HTTP2_FRAME_SIZE: "" },
    "invalid env var HTTP2_FRAME_SIZE= (cannot parse integer from empty string)",
  ],
  [{ HTTP2_FRAME_SIZE: "1" }, "invalid env var HTTP2_FRAME_SIZE=1 (must be 16384 to 16777215)"],
  [
    { PACKET_MARK: "4294967296" },
    "invalid env var PACKET_MARK=4294967296 (must be 0 to 4294967295)",
  ],
  [
    { POOL_MAX_STREAMS_PER_CONNECTION: "0" },
    "invalid env var POOL_MAX_STREAMS_PER_CONNECTION=0 (must be 1 to 65535)",
  ],
  [
    { SECRET_TTL: "soon" },
    "invalid env var SECRET_TTL=soon (expected a duration such as 90s, 5m or 1m30s)",
  ],
  [{ INPOD_UDS: "" }, "invalid env var INPOD_UDS= (must not be empty)"],
  [{ XDS_ROOT_CA: "" }, "invalid env var XDS_ROOT_CA= (must not be empty)"],
  [{ CA_ROOT_CA: "" }, "invalid env var CA_ROOT_CA= (must not be empty)"],
  [
    { KEEPALIVE_TIME: "10h" },
    "invalid env var KEEPALIVE_TIME=10h (must be 1000 ms to 32767000 ms)",
  ],
  [
    { CONNECTION_IDLE_TIMEOUT: "never" },
    "invalid env var CONNECTION_IDLE_TIMEOUT=never (expected a duration such as 90s, 5m or 1m30s)",
  ],
  [
    { ZTUNNEL_WORKER_THREADS: "101%" },
    "invalid env var ZTUNNEL_WORKER_THREADS=101% (percentage must be between 0 and 100)",
  ],
  [
    { ZTUNNEL_WORKER_THREADS: "0%" },
    "invalid env var ZTUNNEL_WORKER_THREADS=0% (percentage must be between 0 and 100)",
  ],
  [
    { ZTUNNEL_WORKER_THREADS: "x%" },
    "invalid env var ZTUNNEL_WORKER_THREADS=x% (invalid float literal)",
  ],
  [
    { ZTUNNEL_WORKER_THREADS: "many" },
    "invalid env var ZTUNNEL_WORKER_THREADS=many (invalid digit found in string)",
  ],
  [
    { ZTUNNEL_RESOURCE_CPU_LIMIT: "2Gi" },
    "invalid env var ZTUNNEL_RESOURCE_CPU_LIMIT=2Gi (expected a CPU quantity such as 2, 1.5 or 500m)",
  ],
  [
    { LOCAL_XDS: "{}" },
    "invalid configuration: only one of LOCAL_XDS_PATH or LOCAL_XDS may be set",
  ],
  [
    { RUST_LOG: "a=b=c" },
    "invalid env var RUST_LOG=a=b=c (too many '=' in filter directive, expected 0 or 1)",
  ],
  [{ LOG_FORMAT: "xml" }, "invalid env var LOG_FORMAT=xml (LOG_FORMAT must be one of plain, json)"],
  [
    { COMPLIANCE_POLICY: "fips" },
    "invalid env var COMPLIANCE_POLICY=fips (COMPLIANCE_POLICY must be one of pqc)",
  ],
  [{ CA_ADDRESS: "" }, "invalid env var CA_ADDRESS= (must not be empty)"],
  [
    { CA_ADDRESS: "http://ca:80" },
    "invalid env var CA_ADDRESS=http://ca:80 (the scheme must be https)",
  ],
  [
    { CA_ADDRESS: "ca:0" },
    "invalid env var CA_ADDRESS=ca:0 (expected host:port or https://host:port)",
  ],
  [
    { CA_ADDRESS: "ca:15012/path" },
    "invalid env var CA_ADDRESS=ca:15012/path (expected host:port or https://host:port)",
  ],
  [
    { "CA_HEADER_a b": "x" },
    "invalid env var CA_HEADER_a b=x (the rest of the name is no header name)",
  ],
  [
    { CA_HEADER_A: "x\ny" },
    "invalid env var CA_HEADER_A=x\\ny (a header value is printable ASCII)",
  ],
  [
    { USER_TIMEOUT_ENABLED: "true", KEEPALIVE_ENABLED: "false" },
    "invalid env var USER_TIMEOUT_ENABLED=true (needs KEEPALIVE_ENABLED=true)",
  ],
  [
    { PROXY_CONFIG: "{concurrency: x, proxyMetadata: {}}" },
    'error parsing proxy config: PROXY_CONFIG:1: concurrency: must be a number of 0 to 256, not "x"',
  ],
  [
    { INPOD_PORT_REUSE: "false", ZTUNNEL_WORKER_THREADS: "2" },
    "invalid env var INPOD_PORT_REUSE=false (2 data threads share ports, needs ZTUNNEL_WORKER_THREADS=1)",
  ],
  [
    { PROXY_CONFIG: "concurrency: 1" },
    "error parsing proxy config: PROXY_CONFIG:1: missing key proxyMetadata",
  ],
  [
    { PROXY_CONFIG: "{statsPort: 70000, proxyMetadata: {}}" },
    "error parsing proxy config: PROXY_CONFIG:1: statsPort: must be a number of 0 to 65535, not 70000",
  ],
];

for (const [environment, mistake] of mistakes) {
  test(`${JSON.stringify(environment)} is refused`, () => {
    assert.deepEqual(mistakesOf(environment), [mistake]);
  });
}

test("the daemon's own pod takes tunnels only where its name, namespace and account are known", () => {
  const whole = {
    POD_NAME: "ztunnel-x",
    POD_NAMESPACE: "istio-system",
    SERVICE_ACCOUNT: "ztunnel",
  };
  const { POD_NAME: _, ...nameless } = whole;
  const selfOf = (more: Record<string, string>): unknown => {
    const { mode } = parseConfig({ ...MESH, ...more }, undefined, host());
    return mode.kind === "shared" ? mode.self : undefined;
  };
  assert.deepEqual(selfOf(whole), {
    uid: "self",
    name: "ztunnel-x",
    namespace: "istio-system",
    serviceAccount: "ztunnel",
  });
  assert.equal(selfOf(nameless), undefined);
  assert.deepEqual(selfOf({ ...whole, TRUST_DOMAIN: "prod.example" }), {
    uid: "self",
    name: "ztunnel-x",
    namespace: "istio-system",
    serviceAccount: "ztunnel",
    trustDomain: "prod.example",
  });
});

test("a dedicated proxy marks nothing and shares ports with its own threads only, unless it is told to", () => {
  const dedicated = { ...MESH, PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "shop/cart-1/cart" };
  const { mode, proxy } = parseConfig(dedicated, undefined, host());
  assert.deepEqual(mode, {
    kind: "dedicated",
    workload: { uid: "dedicated", namespace: "shop", name: "cart-1", serviceAccount: "cart" },
  });
  assert.deepEqual([proxy.mark, proxy.reusePort], [undefined, true]);
  const alone = { ...dedicated, ZTUNNEL_WORKER_THREADS: "1", PACKET_MARK: "1337" };
  const { proxy: lonely } = parseConfig(alone, undefined, host());
  assert.deepEqual([lonely.mark, lonely.reusePort], [1337, false]);
  const heir = { ...alone, INPOD_PORT_REUSE: "true" };
  assert.equal(parseConfig(heir, undefined, host()).proxy.reusePort, true);
  const torn = { ...dedicated, INPOD_PORT_REUSE: "false" };
  assert.deepEqual(mistakesOf(torn), [
    "invalid env var INPOD_PORT_REUSE=false (2 data threads share ports, needs ZTUNNEL_WORKER_THREADS=1)",
  ]);
});

const idle: readonly (readonly [
  environment: Record<string, string>,
  mistakes: readonly string[],
])[] = [
  [
    {
      ...{ XDS_ROOT_CA: "SYSTEM", ALT_XDS_HOSTNAME: "istiod", XDS_HEADER_TOKEN: "secret" },
      ...{ XDS_ON_DEMAND: "true", ISTIO_META_DNS_CAPTURE: "false", STATE_DIR: "/state" },
      ...{ XDS_CONNECT_TIMEOUT: "1s", XDS_FIRST_ANSWER_TIMEOUT: "1s" },
      ...{ XDS_OFFERED_VERSIONS_SIZE: "1", XDS_MESSAGE_SIZE: "1" },
    },
    [
      ...["XDS_ROOT_CA", "ALT_XDS_HOSTNAME", "XDS_HEADER_TOKEN", "XDS_ON_DEMAND", "STATE_DIR"],
      ...["XDS_CONNECT_TIMEOUT", "XDS_FIRST_ANSWER_TIMEOUT", "XDS_OFFERED_VERSIONS_SIZE"],
      "XDS_MESSAGE_SIZE",
    ].map(
      (name) =>
        `${name} has no effect: the mesh comes from a file alone, no control plane is asked without XDS_ADDRESS`,
    ),
  ],
  [
    { XDS_ADDRESS: "", STATE_DIR: "/state" },
    [
      "STATE_DIR has no effect: the mesh comes from a file alone, no control plane is asked without XDS_ADDRESS",
    ],
  ],
  [
    { XDS_ADDRESS: "istiod:1", STATE_MAX_AGE: "1h", STATE_SAVE_INTERVAL: "1s" },
    [
      "STATE_SAVE_INTERVAL has no effect: the mesh is not kept without STATE_DIR",
      "STATE_MAX_AGE has no effect: the mesh is not kept without STATE_DIR",
    ],
  ],
  [
    { XDS_ADDRESS: "istiod:1", XDS_ON_DEMAND_TIMEOUT: "1s" },
    [
      "XDS_ON_DEMAND_TIMEOUT has no effect: the whole mesh is learned at once without XDS_ON_DEMAND=true",
    ],
  ],
  [
    {
      ...{ OUTLIER_MAX_EJECTION_PERCENT: "9", OUTLIER_FAILURE_WINDOW: "9s" },
      ...{ OUTLIER_BASE_EJECTION_TIME: "9s", OUTLIER_MAX_EJECTION_TIME: "9s" },
    },
    [
      ...["OUTLIER_MAX_EJECTION_PERCENT", "OUTLIER_FAILURE_WINDOW"],
      ...["OUTLIER_BASE_EJECTION_TIME", "OUTLIER_MAX_EJECTION_TIME"],
    ].map(
      (name) =>
        `${name} has no effect: no endpoint is left out without OUTLIER_CONSECUTIVE_FAILURES`,
    ),
  ],
  [
    { PROXY_WORKLOAD_INFO: "shop/cart-1/cart" },
    [
      "PROXY_WORKLOAD_INFO has no effect: the node agent tells the workloads without PROXY_MODE=dedicated",
    ],
  ],
  [
    {
      ...{ PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "shop/cart-1/cart" },
      ...{ INPOD_UDS: "/z.sock", POD_TERMINATION_DEADLINE: "0", TRUST_DOMAIN: "prod.example" },
    },
    [
      "INPOD_UDS has no effect: with PROXY_MODE=dedicated there is no node agent",
      "POD_TERMINATION_DEADLINE has no effect: with PROXY_MODE=dedicated there is no node agent",
      "TRUST_DOMAIN has no effect: it is that of the daemon's own pod, which needs POD_NAME, POD_NAMESPACE, SERVICE_ACCOUNT and PROXY_MODE=shared",
    ],
  ],
  [
    { TRUST_DOMAIN: "prod.example", POD_NAME: "z-1" },
    [
      "TRUST_DOMAIN has no effect: it is that of the daemon's own pod, which needs POD_NAME, POD_NAMESPACE, SERVICE_ACCOUNT and PROXY_MODE=shared",
    ],
  ],
  [
    { ENABLE_PROXY: "false", UNSTABLE_ENABLE_SOCKS5: "true" },
    ["UNSTABLE_ENABLE_SOCKS5 has no effect: ENABLE_PROXY=false takes no connections"],
  ],
  [
    { COMPLIANCE_POLICY: "pqc", TLS12_ENABLED: "true" },
    [
      "TLS12_ENABLED has no effect: COMPLIANCE_POLICY=pqc demands a key exchange that TLS 1.2 does not have",
    ],
  ],
];

for (const [environment, mistakes] of idle) {
  test(`${Object.keys(environment).join(", ")}: what could have no effect is refused`, () => {
    const expected = mistakes.map((mistake) => `invalid configuration: ${mistake}`);
    assert.deepEqual(mistakesOf(environment), expected);
  });
}

test("what is not wanted, what a switch turned off and what the original's chart sets is not refused", () => {
  const chart = {
    ...{ RUST_LOG: "info", RUST_BACKTRACE: "1", INPOD_ENABLED: "true", NETWORK: "west" },
    ...{ CA_ADDRESS: "istiod.istio-system.svc:15012", ISTIO_META_CLUSTER_ID: "Kubernetes" },
    ...{ POD_NAME: "z-1", POD_NAMESPACE: "istio-system", SERVICE_ACCOUNT: "ztunnel" },
    ...{ NODE_NAME: "a", INSTANCE_IP: "10.0.0.9", ISTIO_META_ENABLE_HBONE: "true" },
    ...{ TERMINATION_GRACE_PERIOD_SECONDS: "30", ZTUNNEL_CPU_LIMIT: "8", CRL_PATH: "/crl.pem" },
    ...{ ZTUNNEL_RESOURCE_CPU_LIMIT: "2", ZTUNNEL_RESOURCE_CPU_REQUEST: "1", LOG_FORMAT: "json" },
  };
  const dedicated = { PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "shop/cart-1/cart" };
  const unwanted = { XDS_ON_DEMAND: "false", STATE_DIR: "", TLS12_ENABLED: "false" };
  const off = {
    ...{ KEEPALIVE_ENABLED: "false", KEEPALIVE_TIME: "9s", KEEPALIVE_INTERVAL: "9s" },
    ...{ ISTIO_META_DNS_CAPTURE: "false", DNS_MAX_QUERIES: "9", CLUSTER_DOMAIN: "mesh.example" },
    ...{ OUTLIER_CONSECUTIVE_FAILURES: "0", OUTLIER_FAILURE_WINDOW: "9s" },
    ...{ XDS_ON_DEMAND: "false", XDS_ON_DEMAND_TIMEOUT: "9s" },
  };
  const alone = { ENABLE_PROXY: "false", CONNECT_RETRIES: "1", HTTP2_FRAME_SIZE: "16384" };
  for (const environment of [
    ...[chart, { ...chart, ...dedicated }, { ...chart, XDS_ADDRESS: "istiod.istio-system.svc:1" }],
    ...[unwanted, off, alone],
  ]) {
    assert.deepEqual(mistakesOf(environment), []);
  }
});

test("without any mesh the proxy refuses to start", () => {
  assert.throws(() => parseConfig({ XDS_ADDRESS: "" }, undefined, host()), {
    message:
      "invalid configuration: XDS_ADDRESS is empty and neither LOCAL_XDS_PATH nor LOCAL_XDS is set",
  });
});

test("a mistake in the mesh configuration is named with its line", () => {
  assert.deepEqual(mistakesOf({}, "defaultConfig:\n  statsPort: x\n  proxyMetadata: {}\n"), [
    'error parsing proxy config: ./etc/istio/config/mesh:2: defaultConfig.statsPort: must be a number of 0 to 65535, not "x"',
  ]);
});

test("all mistakes are told at once", () => {
  const mistakes = mistakesOf({ PROXY_MODE: "foo", SECRET_TTL: "soon", RUST_LOG: "a=b=c" });
  assert.equal(mistakes.length, 3);
});

test("the table of options lists exactly the variables that are read", () => {
  const read = new Set<string>();
  const free = { CA_HEADER_A: "x", XDS_HEADER_A: "x", ISTIO_META_A: "x", ISTIO_METAJSON_A: "1" };
  for (const mode of [{}, { PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "a/b/c" }]) {
    const environment = new Proxy<Record<string, string>>(
      { ...MESH, XDS_ADDRESS: "istiod:15012", ...free, ...mode },
      {
        get(target, name) {
          if (typeof name === "string") read.add(name.replace(/_A$/, "_*"));
          return Reflect.get(target, name);
        },
      },
    );
    parseConfig(environment, undefined, host());
  }
  // Set by the kubelet in every container, for nobody to change.
  read.delete("KUBERNETES_SERVICE_HOST");
  assert.deepEqual([...read].sort(), CONFIG_OPTIONS.map((option) => option.name).sort());
});

test("without a mesh file the control plane is asked, beside one only where it is named", () => {
  const addressOf = (environment: Record<string, string>, meshConfig?: string) => {
    const server = parseConfig(environment, meshConfig, host()).mesh.discovery?.server;
    return server === undefined ? undefined : `${server.host}:${server.port}`;
  };
  assert.equal(addressOf({}), "localhost:15012");
  assert.equal(addressOf({ KUBERNETES_SERVICE_HOST: "1" }), "istiod.istio-system.svc:15012");
  assert.equal(addressOf({ XDS_ADDRESS: "istiod-x.mesh.svc:15012" }), "istiod-x.mesh.svc:15012");
  assert.equal(addressOf(MESH), undefined);
  assert.equal(addressOf({ ...MESH, XDS_ADDRESS: "" }), undefined);
  assert.equal(addressOf({ ...MESH, XDS_ADDRESS: "https://a:1" }), "a:1");
  const meshConfig = "defaultConfig:\n  discoveryAddress: b:2\n  proxyMetadata: {}\n";
  assert.equal(addressOf({}, meshConfig), "b:2");
  assert.equal(addressOf({ XDS_ADDRESS: "c:3" }, meshConfig), "c:3");
});

test("the control plane is told who we are, the most specific word last", () => {
  const { discovery } = parseConfig(
    {
      POD_NAME: "z-1",
      POD_NAMESPACE: "istio-system",
      NODE_NAME: "n1",
      INSTANCE_IP: "10.0.0.9",
      ISTIO_META_NETWORK: "net1",
      ISTIO_METAJSON_FACTS: '{"a":[1,null]}',
      PROXY_CONFIG: "proxyMetadata: { ISTIO_META_NETWORK: net0, ENABLE_HBONE: 'true' }",
    },
    undefined,
    host(),
  ).mesh;
  assert.deepEqual(discovery?.node, {
    id: "ztunnel~10.0.0.9~z-1.istio-system~istio-system.svc.cluster.local",
    metadata: {
      NAME: "z-1",
      NAMESPACE: "istio-system",
      INSTANCE_IPS: "10.0.0.9",
      NODE_NAME: "n1",
      NETWORK: "net1",
      ENABLE_HBONE: "true",
      FACTS: { a: [1, null] },
    },
  });
  const nodeOf = (environment: Record<string, string>) =>
    parseConfig(environment, undefined, host()).mesh.discovery?.node;
  assert.equal(nodeOf({})?.id, "ztunnel~1.1.1.1~.~.svc.cluster.local");
  const both = "10.0.0.9,fd00::9";
  assert.equal(nodeOf({ INSTANCE_IP: both })?.metadata["INSTANCE_IPS"], both);
});

test("metadata that is not JSON is named", () => {
  assert.deepEqual(mistakesOf({ ISTIO_METAJSON_X: "{" }), [
    "invalid env var ISTIO_METAJSON_X={ (is not JSON)",
  ]);
});

test("DNS is answered on 15053 of the pods' loopback unless it is turned off", () => {
  assert.deepEqual(parse({}).dns, {
    listen: { localhost: 15053 },
    ipv6: true,
    mark: 1337,
    reusePort: true,
    clusterDomain: "cluster.local",
    preferredNamespace: undefined,
    searchDomains: "pod",
    resolvConfPath: "/etc/resolv.conf",
    queriesMax: 1000,
    connectionsMax: 256,
    resolverTimeoutMs: 5000,
    idleMs: 5000,
  });
  assert.notEqual(parse({ ISTIO_META_DNS_CAPTURE: "True" }).dns, undefined);
  assert.equal(parse({ ISTIO_META_DNS_CAPTURE: "false" }).dns, undefined);
  assert.equal(parse({ ISTIO_META_DNS_CAPTURE: "" }).dns, undefined);
  const metadata = (more: string): string => `{proxyMetadata: {${more}}}`;
  const off = { PROXY_CONFIG: metadata('DNS_CAPTURE: "false"') };
  assert.equal(parse(off).dns, undefined);
  assert.notEqual(parse({ ...off, ISTIO_META_DNS_CAPTURE: "true" }).dns, undefined);
});

const dnsAddresses: readonly [text: string, expected: unknown][] = [
  ["localhost:53", { localhost: 53 }],
  ["10.0.0.1:5353", { ip: "10.0.0.1", port: 5353 }],
  ["[::1]:15053", { ip: "::1", port: 15053 }],
];
for (const [text, expected] of dnsAddresses) {
  test(`DNS listens on ${text} when ISTIO_META_DNS_PROXY_ADDR says so`, () => {
    assert.deepEqual(parse({ ISTIO_META_DNS_PROXY_ADDR: text }).dns?.listen, expected);
  });
}
for (const text of ["nowhere", "localhost:", "localhost:65536", "10.0.0.1", "::1:53", ""]) {
  test(`ISTIO_META_DNS_PROXY_ADDR=${text} is refused in the original's words`, () => {
    assert.deepEqual(mistakesOf({ ISTIO_META_DNS_PROXY_ADDR: text }), [
      `invalid configuration: failed to parse DNS_PROXY_ADDR: ${text} (invalid socket address syntax)`,
    ]);
  });
}

test("the cluster's domain is what pods search, unless CLUSTER_DOMAIN says it", () => {
  const pod = host(8, [], "search istio-system.svc.mesh.example svc.mesh.example mesh.example\n");
  assert.equal(parse({}, pod).dns?.clusterDomain, "mesh.example");
  assert.equal(
    parse({ CLUSTER_DOMAIN: "Other.Example." }, pod).dns?.clusterDomain,
    "other.example",
  );
  assert.equal(parse({}, host(8, [], "search example.com\n")).dns?.clusterDomain, "cluster.local");
  assert.deepEqual(mistakesOf({ CLUSTER_DOMAIN: "a b" }), [
    "invalid env var CLUSTER_DOMAIN=a b (is no domain name)",
  ]);
});

test("a daemon without any server, or with DNS of a mesh that it does not know, is refused", () => {
  assert.deepEqual(mistakesOf({ ENABLE_PROXY: "false", ISTIO_META_DNS_CAPTURE: "false" }), [
    "error parsing proxy config: ztunnel run without any servers enabled",
  ]);
  assert.equal(parse({ ENABLE_PROXY: "false" }).proxyEnabled, false);
  const onDemand = { XDS_ADDRESS: "istiod:15012", XDS_ON_DEMAND: "true" };
  assert.deepEqual(mistakesOf(onDemand), [
    "error parsing proxy config: DNS proxy does not currently support on-demand mode",
  ]);
  assert.deepEqual(mistakesOf({ ...onDemand, ISTIO_META_DNS_CAPTURE: "false" }), []);
});
