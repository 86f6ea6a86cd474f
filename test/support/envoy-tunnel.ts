/** HBONE in the words of Envoy's configuration: both ends of a tunnel. */
import { type EnvoyResources, socketAddress } from "./envoy-process.ts";
import type { LabCertificate } from "./lab-certificate.ts";

const TYPE = "type.googleapis.com/envoy.extensions";
export const ROUTER: unknown = {
  name: "envoy.filters.http.router",
  typed_config: { "@type": `${TYPE}.filters.http.router.v3.Router` },
};
/** Envoy allows 1,024 of each otherwise. */
const UNLIMITED = { max_connections: 1e6, max_pending_requests: 1e6, max_requests: 1e6 };

/**
 * What Envoy's TLS keeps to, over all other settings. `CNSA1_202603`, known since 1.39, is the only
 * way to AES-256-GCM: it allows no other suite, and P-384 alone for exchanges and keys.
 */
export type CompliancePolicy = "CNSA1_202603";

export interface ClientTunnelOptions {
  /** Names the statistics: `cluster.NAME.…`, `tcp.NAME.…`. */
  readonly name: string;
  /** Takes plain TCP. */
  readonly listenPort: number;
  /** The peer; port 15008. */
  readonly ip: string;
  /** `ip:port` that the CONNECT asks for. */
  readonly authority: string;
  readonly certificate: LabCertificate;
  /** URI that the peer has to show. */
  readonly expected: string;
  readonly compliancePolicy?: CompliancePolicy;
  /** Beside the pseudo-headers. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Envoy takes connections and sends each through a tunnel. */
export function clientTunnels(tunnels: readonly ClientTunnelOptions[]): EnvoyResources {
  return { listeners: tunnels.map(clientListener), clusters: tunnels.map(clientCluster) };
}

function clientListener({
  name,
  listenPort,
  authority,
  headers = {},
}: ClientTunnelOptions): unknown {
  const headersToAdd = Object.entries(headers).map(([key, value]) => ({ header: { key, value } }));
  const proxy = {
    "@type": `${TYPE}.filters.network.tcp_proxy.v3.TcpProxy`,
    stat_prefix: name,
    cluster: name,
    tunneling_config: { hostname: authority, headers_to_add: headersToAdd },
  };
  return {
    name,
    address: socketAddress("0.0.0.0", listenPort),
    filter_chains: [
      { filters: [{ name: "envoy.filters.network.tcp_proxy", typed_config: proxy }] },
    ],
  };
}

/** The peer's port 15008, spoken to in HTTP/2 over mutual TLS. */
export function clientCluster({
  name,
  ip,
  certificate,
  expected,
  compliancePolicy,
}: Pick<
  ClientTunnelOptions,
  "name" | "ip" | "certificate" | "expected" | "compliancePolicy"
>): object {
  const tls = {
    "@type": `${TYPE}.transport_sockets.tls.v3.UpstreamTlsContext`,
    common_tls_context: commonTls({ certificate, expected, compliancePolicy }),
  };
  const protocol = {
    "@type": `${TYPE}.upstreams.http.v3.HttpProtocolOptions`,
    explicit_http_config: { http2_protocol_options: {} },
  };
  return {
    ...clusterTo(name, ip, 15008),
    transport_socket: { name: "envoy.transport_sockets.tls", typed_config: tls },
    typed_extension_protocol_options: {
      "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol,
    },
  };
}

export interface ServerTunnelOptions {
  readonly certificate: LabCertificate;
  /** URI that the caller has to show. */
  readonly expected: string;
  readonly compliancePolicy?: CompliancePolicy;
  /** Authority of a CONNECT → the port on 127.0.0.1 it is led to; any other is answered 404. */
  readonly applications: Readonly<Record<string, number>>;
  /** Header fields that the access log tells, lower case. */
  readonly loggedHeaders: readonly string[];
  readonly accessLog: string;
}

/** Envoy ends tunnels on port 15008; its statistics are `http.hbone.…` and `listener.…`. */
export function serverTunnel(options: ServerTunnelOptions): EnvoyResources {
  const applications = Object.entries(options.applications);
  const hosts = applications.map(([authority, port]) => ({
    name: authority,
    domains: [authority],
    routes: [connectRoute(`port-${port}`)],
  }));
  return {
    listeners: [serverListener(options, hosts)],
    clusters: applications.map(([, port]) => clusterTo(`port-${port}`, "127.0.0.1", port)),
  };
}

/** Ends the CONNECT and gives its bytes to a cluster. */
export function connectRoute(cluster: string): unknown {
  const upgrade = { upgrade_type: "CONNECT", connect_config: {} };
  return {
    match: { connect_matcher: {} },
    route: { cluster, upgrade_configs: [upgrade] },
  };
}

/** @param hosts what becomes of a CONNECT, by its authority; virtual hosts of Envoy. */
export function serverListener(
  options: Pick<ServerTunnelOptions, "certificate" | "expected" | "loggedHeaders" | "accessLog">,
  hosts: readonly unknown[],
): unknown {
  const tls = {
    "@type": `${TYPE}.transport_sockets.tls.v3.DownstreamTlsContext`,
    require_client_certificate: true,
    common_tls_context: commonTls(options),
  };
  const manager = {
    "@type": `${TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
    stat_prefix: "hbone",
    codec_type: "HTTP2",
    upgrade_configs: [{ upgrade_type: "CONNECT" }],
    http2_protocol_options: { allow_connect: true },
    access_log: [accessLog(options)],
    route_config: { virtual_hosts: hosts },
    http_filters: [ROUTER],
  };
  return {
    name: "hbone",
    address: socketAddress("0.0.0.0", 15008),
    filter_chains: [
      {
        transport_socket: { name: "envoy.transport_sockets.tls", typed_config: tls },
        filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: manager }],
      },
    ],
  };
}

function accessLog({
  accessLog,
  loggedHeaders,
}: Pick<ServerTunnelOptions, "accessLog" | "loggedHeaders">): unknown {
  const headers = loggedHeaders.map((name) => [name, `%REQ(${name.toUpperCase()})%`]);
  return {
    name: "envoy.access_loggers.file",
    typed_config: {
      "@type": `${TYPE}.access_loggers.file.v3.FileAccessLog`,
      path: accessLog,
      log_format: {
        json_format: {
          authority: "%REQ(:AUTHORITY)%",
          status: "%RESPONSE_CODE%",
          peer: "%DOWNSTREAM_PEER_URI_SAN%",
          ...Object.fromEntries(headers),
        },
      },
    },
  };
}

/** One that takes plain TCP. */
export function clusterTo(name: string, ip: string, port: number): object {
  const endpoint = { endpoint: { address: socketAddress(ip, port) } };
  return {
    name,
    type: "STATIC",
    connect_timeout: "2s",
    circuit_breakers: { thresholds: [UNLIMITED] },
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [endpoint] }] },
  };
}

function commonTls({
  certificate: { cert, key, ca },
  expected,
  compliancePolicy,
}: {
  readonly certificate: LabCertificate;
  readonly expected: string;
  readonly compliancePolicy?: CompliancePolicy | undefined;
}): unknown {
  return {
    alpn_protocols: ["h2"],
    tls_params: {
      tls_minimum_protocol_version: "TLSv1_3",
      tls_maximum_protocol_version: "TLSv1_3",
      compliance_policies: compliancePolicy === undefined ? [] : [compliancePolicy],
    },
    tls_certificates: [
      { certificate_chain: { inline_string: cert }, private_key: { inline_string: key } },
    ],
    validation_context: {
      trusted_ca: { inline_string: ca },
      match_typed_subject_alt_names: [{ san_type: "URI", matcher: { exact: expected } }],
    },
  };
}
