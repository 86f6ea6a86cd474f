/**
 * The part of the environment that is about DNS.
 *
 * @see spec data-path 1.8
 */
import type { DnsOptions } from "../dns/dns-options.ts";
import { parsePort, parseSocketAddress } from "../mesh/socket-address.ts";
import type { EnvironmentReader } from "./environment-reader.ts";
import { readLimit } from "./limits.ts";
import type { ProxyConfig } from "./proxy-config.ts";

export interface DnsSurroundings {
  readonly proxyConfig: ProxyConfig;
  /** A dedicated proxy shares the file with its application, so that searches as the file says. */
  readonly mode: "shared" | "dedicated";
  readonly ipv6: boolean;
  readonly mark: number | undefined;
  readonly reusePort: boolean;
  /** Search domains of the daemon's own pod, which tell the cluster's domain. */
  readonly searchDomains: readonly string[];
}

/** Names the resolvers of the machine, or of the daemon's pod. */
export const RESOLV_CONF_PATH = "/etc/resolv.conf";

const DNS_PORT = 15_053;
const CLUSTER_DOMAIN = "cluster.local";

/** @returns `undefined` where DNS is off. */
export function readDns(
  reader: EnvironmentReader,
  { proxyConfig, mode, ipv6, mark, reusePort, searchDomains }: DnsSurroundings,
): DnsOptions | undefined {
  const metadata = (name: string): string | undefined =>
    reader.text(`ISTIO_META_${name}`) ?? proxyConfig.metadata.get(name);
  const capture = metadata("DNS_CAPTURE") ?? "true";
  const options: DnsOptions = {
    listen: readAddress(reader, metadata("DNS_PROXY_ADDR")),
    ipv6,
    mark,
    reusePort,
    clusterDomain: readClusterDomain(reader, searchDomains),
    preferredNamespace: reader.text("PREFERED_SERVICE_NAMESPACE"),
    searchDomains: mode === "shared" ? "pod" : "file",
    resolvConfPath: RESOLV_CONF_PATH,
    queriesMax: readLimit(reader, "dnsQueries"),
    connectionsMax: readLimit(reader, "dnsConnections"),
    resolverTimeoutMs: readLimit(reader, "dnsResolverTimeout"),
    idleMs: readLimit(reader, "dnsIdleTimeout"),
  };
  return capture.toLowerCase() === "true" ? options : undefined;
}

function readAddress(reader: EnvironmentReader, text: string | undefined): DnsOptions["listen"] {
  const fallback = { localhost: DNS_PORT };
  if (text === undefined) return fallback;
  const local = /^localhost:(.*)$/.exec(text);
  const port = local === null ? undefined : parsePort(local[1] ?? "");
  if (port !== undefined) return { localhost: port };
  const address = parseSocketAddress(text);
  if (address !== undefined) return address;
  reader.mistake(
    `invalid configuration: failed to parse DNS_PROXY_ADDR: ${text} (invalid socket address syntax)`,
  );
  return fallback;
}

/** Where nobody says it, Kubernetes does: pods search `svc.DOMAIN`. */
function readClusterDomain(reader: EnvironmentReader, searchDomains: readonly string[]): string {
  const found = searchDomains.find((domain) => domain.startsWith("svc."))?.slice("svc.".length);
  const domain = reader.text("CLUSTER_DOMAIN") ?? found ?? CLUSTER_DOMAIN;
  if (!/^[a-z\d_-]+(\.[a-z\d_-]+)*\.?$/i.test(domain)) {
    reader.invalid("CLUSTER_DOMAIN", "is no domain name");
  }
  return domain.toLowerCase().replace(/\.$/, "");
}
