/**
 * The section `config` of `/config_dump`: the original's keys with what holds here. What this proxy
 * does not have is null or off. Secrets are left out.
 *
 * @see spec control-plane 7.2
 */
import type { DnsOptions } from "../dns/dns-options.ts";
import { readResolvConf } from "../dns/resolv-conf.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import { formatSpiffeId } from "../mesh/identity.ts";
import { formatHostPort, formatSocketAddress } from "../mesh/socket-address.ts";
import {
  INBOUND_HBONE_PORT,
  INBOUND_PLAINTEXT_PORT,
  illegalPorts,
  OUTBOUND_PORT,
  SOCKS5_PORT,
} from "../proxy/proxy-options.ts";
import type { Config, IdentityConfig, RootSource, ServerConfig } from "./config.ts";

/** Of the daemon's own pod, where neither configuration nor, here, the mesh says otherwise. */
const TRUST_DOMAIN = "cluster.local";
/** Of the metadata that the control plane is told; the others are derived from elsewhere. */
const DERIVED_METADATA: ReadonlySet<string> = new Set([
  "NAME",
  "NAMESPACE",
  "INSTANCE_IPS",
  "NODE_NAME",
]);
/** Headers whose values prove something. */
const SECRET_HEADER = /auth|cookie|token|secret|key/;

/** @returns plain data; the keys are sorted when it is printed. */
export function dumpConfig(config: Config): Readonly<Record<string, unknown>> {
  const { mesh, identity, proxy, dns, mode, admin } = config;
  const { discovery } = mesh;
  const self = mode.kind === "shared" ? mode.self : undefined;
  const only = mode.kind === "dedicated" ? mode.workload : undefined;
  const port = (number: number) => formatHostPort(proxy.listenIp, number);
  return {
    adminAddr: { Localhost: [admin.ipv6, admin.adminPort] },
    altCaHostname: identity.authority.alternativeHost ?? null,
    altXdsHostname: discovery?.server.alternativeHost ?? null,
    caAddress: formatServer(identity.authority),
    caHeaders: dumpHeaders(identity.headers),
    caRootCert: dumpRoots(identity.authority.roots),
    clusterDomain: dns?.clusterDomain ?? null,
    clusterId: identity.clusterId,
    connectionWindowSize: proxy.clientTunnel.connectionWindowBytes,
    crlPath: identity.revocationPath ?? null,
    dnsProxy: dns !== undefined,
    dnsProxyAddr: dns === undefined ? null : dumpDnsAddress(dns),
    ...dumpResolvers(dns),
    enableEnhancedBaggage: proxy.responseBaggage,
    fakeCa: false,
    fakeSelfInbound: false,
    frameSize: proxy.clientTunnel.frameBytesMax,
    illegalPorts: [...illegalPorts(proxy)].sort(),
    inboundAddr: port(INBOUND_HBONE_PORT),
    inboundPlaintextAddr: port(INBOUND_PLAINTEXT_PORT),
    inpodPortReuse: proxy.reusePort,
    inpodUds: mode.kind === "shared" ? mode.socketPath : "",
    ipv6Enabled: admin.ipv6,
    localNode: mesh.localNode ?? null,
    localhostAppTunnel: proxy.localhostTunnel,
    network: proxy.network,
    numWorkerThreads: config.dataThreadCount,
    outboundAddr: port(OUTBOUND_PORT),
    packetMark: proxy.mark ?? null,
    poolMaxStreamsPerConn: proxy.pool.streamsPerConnectionMax,
    poolUnusedReleaseTimeout: dumpDuration(proxy.pool.unusedReleaseMs),
    preferedServiceNamespace: dns?.preferredNamespace ?? null,
    proxy: config.proxyEnabled,
    proxyArgs: "proxy",
    proxyMetadata: dumpMetadata(discovery?.node.metadata ?? {}),
    proxyMode: mode.kind === "shared" ? "Shared" : "Dedicated",
    proxyWorkloadInformation: only ? dumpWorkload(only) : null,
    readinessAddr: { SocketAddr: port(admin.readinessPort) },
    requireOriginalSource:
      proxy.originalSource === "try" ? null : proxy.originalSource === "required",
    secretTtl: dumpDuration(identity.certificateTtlMs),
    selfTerminationDeadline: dumpDuration(config.drainMs),
    socketConfig: {
      keepaliveEnabled: proxy.keepAlive !== undefined,
      keepaliveInterval: proxy.keepAlive ? dumpDuration(proxy.keepAlive.intervalMs) : null,
      keepaliveRetries: proxy.keepAlive?.probes ?? null,
      keepaliveTime: proxy.keepAlive ? dumpDuration(proxy.keepAlive.idleMs) : null,
      userTimeoutEnabled: proxy.keepAlive?.userTimeoutMs !== undefined,
    },
    socks5Addr: proxy.socks5 ? `127.0.0.1:${SOCKS5_PORT}` : null,
    statsAddr: { SocketAddr: port(admin.statsPort) },
    windowSize: proxy.clientTunnel.streamWindowBytes,
    xdsAddress: discovery ? formatServer(discovery.server) : null,
    xdsHeaders: dumpHeaders(discovery?.headers ?? []),
    xdsOnDemand: discovery?.onDemand ?? false,
    xdsRootCert: discovery ? dumpRoots(discovery.server.roots) : null,
    ztunnelIdentity: self ? formatSpiffeId({ trustDomain: TRUST_DOMAIN, ...self }) : null,
    ztunnelWorkload: self ? dumpWorkload(self) : null,
  };
}

function dumpWorkload({ name, namespace, serviceAccount }: EnrolledWorkload): unknown {
  return { name, namespace, serviceAccount };
}

/** As the file is now; a workload's server keeps to what it was when the workload came. */
function dumpResolvers(dns: DnsOptions | undefined): Readonly<Record<string, unknown>> {
  const nothing = { dnsResolverCfg: null, dnsResolverOpts: null };
  if (dns === undefined) return nothing;
  try {
    const { resolvers, searchDomains, ...rest } = readResolvConf(dns.resolvConfPath);
    const { attempts, timeoutMs = dns.resolverTimeoutMs } = rest;
    const nameServers = resolvers.map((ip) => ({ ip }));
    return {
      dnsResolverCfg: { domain: null, name_servers: nameServers, search: searchDomains },
      dnsResolverOpts: { attempts, timeout: timeoutMs / 1000 },
    };
  } catch {
    // The log says so for each workload.
    return nothing;
  }
}

function dumpDnsAddress({ listen, ipv6 }: DnsOptions): unknown {
  return "localhost" in listen
    ? { Localhost: [ipv6, listen.localhost] }
    : { SocketAddr: formatSocketAddress(listen) };
}

function formatServer({ host, port }: ServerConfig): string {
  return `https://${formatHostPort(host, port)}`;
}

function dumpHeaders(headers: IdentityConfig["headers"]): readonly (readonly string[])[] {
  return headers.map(([name, value]) => [name, SECRET_HEADER.test(name) ? "<hidden>" : value]);
}

function dumpRoots(roots: RootSource): unknown {
  switch (roots.kind) {
    case "file":
      return { File: roots.path };
    case "pem":
      return "Static";
    case "system":
      return "Default";
  }
}

function dumpMetadata(metadata: Readonly<Record<string, unknown>>): unknown {
  return Object.fromEntries(
    Object.entries(metadata).filter(([name]) => !DERIVED_METADATA.has(name)),
  );
}

function dumpDuration(ms: number): { readonly secs: number; readonly nanos: number } {
  const secs = Math.trunc(ms / 1000);
  return { secs, nanos: Math.round((ms - secs * 1000) * 1e6) };
}
