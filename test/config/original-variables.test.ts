/**
 * Every environment variable of the original, in the order in which the contract lists them (spec
 * control-plane 6.1 and 6.2, data-path 1.8): each does here what it does there, or is refused by name.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Config } from "../../src/config/config.ts";
import { CONFIG_OPTIONS } from "../../src/config/config-option.ts";
import { parseConfig } from "../../src/config/config-parser.ts";
import type { Host } from "../../src/config/environment-reader.ts";

type Variables = Readonly<Record<string, string>>;

/** Of a machine with many CPUs and no files. */
const HOST: Host = { cpuCount: 64, fileExists: () => false, readText: () => "" };
const MESH = { XDS_ADDRESS: "mesh:1" };
const SELF = { POD_NAME: "z-1", POD_NAMESPACE: "mesh", SERVICE_ACCOUNT: "z" };

const self = ({ mode }: Config): unknown => (mode.kind === "shared" ? mode.self : undefined);
const metadata = ({ mesh }: Config): unknown => mesh.discovery?.node.metadata;

/** One variable, what it changes of the configuration, and what has to be there for it to do so. */
const HONOURED: readonly (readonly [
  name: string,
  value: string,
  read: (config: Config) => unknown,
  becomes: unknown,
  beside?: Variables,
])[] = [
  ["XDS_ADDRESS", "a.example:15", (c) => c.mesh.discovery?.server.host, "a.example"],
  ["CA_ADDRESS", "b.example:16", (c) => c.identity.authority.host, "b.example"],
  ["XDS_ROOT_CA", "SYSTEM", (c) => c.mesh.discovery?.server.roots, { kind: "system" }],
  ["CA_ROOT_CA", "SYSTEM", (c) => c.identity.authority.roots, { kind: "system" }],
  ["ALT_XDS_HOSTNAME", "other", (c) => c.mesh.discovery?.server.alternativeHost, "other"],
  ["ALT_CA_HOSTNAME", "other", (c) => c.identity.authority.alternativeHost, "other"],
  ["AUTH_TOKEN", "ey.j.w", (c) => c.identity.token, { kind: "literal", token: "ey.j.w" }],
  ["XDS_HEADER_X_Team", "mesh", (c) => c.mesh.discovery?.headers, [["x_team", "mesh"]]],
  ["CA_HEADER_X_Team", "mesh", (c) => c.identity.headers, [["x_team", "mesh"]]],
  [
    "XDS_ON_DEMAND",
    "true",
    (c) => c.mesh.discovery?.onDemand,
    true,
    { ISTIO_META_DNS_CAPTURE: "false" },
  ],
  ["LOCAL_XDS_PATH", "m.yaml", (c) => c.mesh.file, { kind: "file", path: "m.yaml" }],
  ["LOCAL_XDS", "{}", (c) => c.mesh.file, { kind: "text", text: "{}" }],
  ["SECRET_TTL", "1h", (c) => c.identity.certificateTtlMs, 3_600_000],
  ["CLUSTER_ID", "east", (c) => c.identity.clusterId, "east"],
  ["ISTIO_META_CLUSTER_ID", "west", (c) => c.identity.clusterId, "west", { CLUSTER_ID: "east" }],
  ["CLUSTER_DOMAIN", "mesh.example", (c) => c.dns?.clusterDomain, "mesh.example"],
  ["NETWORK", "west", (c) => c.proxy.network, "west"],
  ["NODE_NAME", "node-a", (c) => c.mesh.localNode, "node-a"],
  ["PREFERED_SERVICE_NAMESPACE", "shop", (c) => c.dns?.preferredNamespace, "shop"],
  ["PROXY_MODE", "dedicated", (c) => c.mode.kind, "dedicated", { PROXY_WORKLOAD_INFO: "a/b/c" }],
  [
    "PROXY_WORKLOAD_INFO",
    "shop/cart-1/cart",
    (c) => c.mode.kind === "dedicated" && c.mode.workload,
    { uid: "dedicated", namespace: "shop", name: "cart-1", serviceAccount: "cart" },
    { PROXY_MODE: "dedicated" },
  ],
  ...Object.keys(SELF).map((name) => {
    const { [name]: value = "", ...beside } = SELF as Variables;
    const becomes = { uid: "self", name: "z-1", namespace: "mesh", serviceAccount: "z" };
    return [name, value, self, becomes, beside] as const;
  }),
  [
    "TRUST_DOMAIN",
    "prod.example",
    self,
    {
      ...{ uid: "self", name: "z-1", namespace: "mesh", serviceAccount: "z" },
      trustDomain: "prod.example",
    },
    SELF,
  ],
  [
    "INSTANCE_IP",
    "10.0.0.9",
    (c) => c.mesh.discovery?.node.id,
    "ztunnel~10.0.0.9~.~.svc.cluster.local",
  ],
  [
    "ISTIO_META_NETWORK",
    "net1",
    metadata,
    { ...{ NAME: "", NAMESPACE: "", INSTANCE_IPS: "1.1.1.1", NODE_NAME: "" }, NETWORK: "net1" },
  ],
  [
    "ISTIO_METAJSON_FACTS",
    "[1]",
    metadata,
    { ...{ NAME: "", NAMESPACE: "", INSTANCE_IPS: "1.1.1.1", NODE_NAME: "" }, FACTS: [1] },
  ],
  ["ISTIO_META_ISTIO_VERSION", "1.99", (c) => c.istioVersion, "1.99"],
  ["KUBERNETES_SERVICE_HOST", "::1", (c) => c.identity.authority.host, "istiod.istio-system.svc"],
  [
    "PROXY_CONFIG",
    "{proxyAdminPort: 1500, statsPort: 1502, proxyMetadata: {}}",
    (c) => [c.admin.adminPort, c.admin.statsPort],
    [1500, 1502],
  ],
  ["COMPLIANCE_POLICY", "pqc", (c) => c.proxy.postQuantumOnly, true],
  ["TLS12_ENABLED", "true", (c) => c.proxy.tls12, true],
  [
    "CRL_PATH",
    "/crl.pem",
    (c) => [c.identity.revocationPath, c.proxy.checkRevocation],
    ["/crl.pem", true],
  ],
  ["ENABLE_PROXY", "false", (c) => c.proxyEnabled, false],
  ["INPOD_UDS", "/z.sock", (c) => c.mode.kind === "shared" && c.mode.socketPath, "/z.sock"],
  [
    "INPOD_PORT_REUSE",
    "false",
    (c) => [c.proxy.reusePort, c.dns?.reusePort],
    [false, false],
    { ZTUNNEL_WORKER_THREADS: "1" },
  ],
  ["PACKET_MARK", "7", (c) => [c.proxy.mark, c.dns?.mark], [7, 7]],
  ["ENABLE_ORIG_SRC", "true", (c) => c.proxy.originalSource, "required"],
  ["ENABLE_ORIG_SRC", "false", (c) => c.proxy.originalSource, "off"],
  [
    "IPV6_ENABLED",
    "false",
    (c) => [c.proxy.listenIp, c.admin.ipv6, c.dns?.ipv6, c.hosts.ipv6],
    ["0.0.0.0", false, false, false],
  ],
  ["KEEPALIVE_ENABLED", "false", (c) => c.proxy.keepAlive, undefined],
  ["KEEPALIVE_TIME", "60s", (c) => c.proxy.keepAlive?.idleMs, 60_000],
  ["KEEPALIVE_INTERVAL", "10", (c) => c.proxy.keepAlive?.intervalMs, 10_000],
  ["KEEPALIVE_RETRIES", "3", (c) => c.proxy.keepAlive?.probes, 3],
  [
    "USER_TIMEOUT_ENABLED",
    "true",
    (c) => c.proxy.keepAlive?.userTimeoutMs,
    90_000,
    { KEEPALIVE_TIME: "60s", KEEPALIVE_INTERVAL: "10", KEEPALIVE_RETRIES: "3" },
  ],
  [
    "HTTP2_STREAM_WINDOW_SIZE",
    "65535",
    (c) => [c.proxy.clientTunnel.streamWindowBytes, c.proxy.serverTunnel.streamWindowBytes],
    [65_535, 65_535],
  ],
  [
    "HTTP2_CONNECTION_WINDOW_SIZE",
    "1048576",
    (c) => [c.proxy.clientTunnel.connectionWindowBytes, c.proxy.serverTunnel.connectionWindowBytes],
    [1_048_576, 1_048_576],
  ],
  [
    "HTTP2_FRAME_SIZE",
    "16384",
    (c) => [c.proxy.clientTunnel.frameBytesMax, c.proxy.serverTunnel.frameBytesMax],
    [16_384, 16_384],
  ],
  [
    "POOL_MAX_STREAMS_PER_CONNECTION",
    "1",
    (c) => [c.proxy.pool.streamsPerConnectionMax, c.proxy.clientTunnel.streamsMax],
    [1, 1],
  ],
  ["POOL_UNUSED_RELEASE_TIMEOUT", "2s", (c) => c.proxy.pool.unusedReleaseMs, 2000],
  ["CONNECTION_TERMINATION_DEADLINE", "2s", (c) => c.drainMs, 2000],
  ["TERMINATION_GRACE_PERIOD_SECONDS", "30", (c) => c.drainMs, 25_000],
  ["ZTUNNEL_WORKER_THREADS", "50%", (c) => c.dataThreadCount, 32],
  ["ZTUNNEL_CPU_LIMIT", "8", (c) => c.dataThreadCount, 2],
  ["ZTUNNEL_RESOURCE_CPU_LIMIT", "2500m", (c) => c.dataThreadCount, 3],
  ["ZTUNNEL_RESOURCE_CPU_REQUEST", "20", (c) => c.dataThreadCount, 20],
  ["UNSTABLE_ENABLE_SOCKS5", "true", (c) => c.proxy.socks5, true],
  ["LOCALHOST_APP_TUNNEL", "false", (c) => c.proxy.localhostTunnel, false],
  ["ENABLE_RESPONSE_BAGGAGE", "false", (c) => c.proxy.responseBaggage, false],
  ["RUST_LOG", "info,access=debug", (c) => c.logging.filter, "access=debug,info"],
  ["LOG_FORMAT", "json", (c) => c.logging.format, "json"],
  ["AUTHZ_POLICY_INFO_LOGGING", "true", (c) => c.proxy.policyInfoLogging, true],
  ["ISTIO_META_DNS_CAPTURE", "false", (c) => c.dns, undefined],
  [
    "ISTIO_META_DNS_PROXY_ADDR",
    "10.0.0.1:5353",
    (c) => c.dns?.listen,
    { ip: "10.0.0.1", port: 5353 },
  ],
];

const REFUSED: readonly (readonly [name: string, value: string, mistake: string])[] = [
  [
    "FAKE_CA",
    "true",
    "invalid env var FAKE_CA=true (the daemon signs no certificates, ztunnel embedded-mesh does)",
  ],
  // None of the contract; whatever a version before or after it may know.
  [
    "UNSTABLE_ENABLE_MAGIC",
    "",
    "invalid env var UNSTABLE_ENABLE_MAGIC= (there is no such option, only UNSTABLE_ENABLE_SOCKS5)",
  ],
];

/** Set by its chart or known to its language, never read by it. */
const READ_BY_NOBODY = { INPOD_ENABLED: "true", RUST_BACKTRACE: "1" };

for (const [name, value, read, becomes, beside = {}] of HONOURED) {
  test(`${name}=${value} is honoured`, () => {
    const before = { ...MESH, ...beside };
    assert.deepEqual(read(parseConfig({ ...before, [name]: value }, undefined, HOST)), becomes);
    const without = valueWithout(before, read);
    assert.notDeepEqual(without, becomes, "it changes nothing");
  });
}

for (const [name, value, message] of REFUSED) {
  test(`${name}=${value} is refused by name`, () => {
    const environment = { ...MESH, [name]: value };
    assert.throws(() => parseConfig(environment, undefined, HOST), { message });
  });
}

test("what the original does not read changes nothing", () => {
  const environment = { ...MESH, ...READ_BY_NOBODY };
  assert.deepEqual(parseConfig(environment, undefined, HOST), parseConfig(MESH, undefined, HOST));
});

test("each of them is in the README's table, but the one that the kubelet sets", () => {
  const listed = CONFIG_OPTIONS.map((option) => option.name);
  const isListed = (name: string): boolean =>
    listed.some((one) => (one.endsWith("*") ? name.startsWith(one.slice(0, -1)) : one === name));
  const names = HONOURED.map(([name]) => name);
  assert.deepEqual(
    names.filter((name) => !isListed(name)),
    ["KUBERNETES_SERVICE_HOST"],
  );
});

/** A variable may be needed by what is beside it. */
function valueWithout(environment: Variables, read: (config: Config) => unknown): unknown {
  try {
    return read(parseConfig(environment, undefined, HOST));
  } catch (error) {
    return error;
  }
}
