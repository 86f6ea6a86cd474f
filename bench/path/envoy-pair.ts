/**
 * Envoy as a pair of HBONE proxies, one inside the client's namespace and one inside the server's:
 * istio-cni's redirect rules, a CONNECT for each connection over one mutual TLS 1.3 tunnel, the
 * peer's identity checked, an access log and statistics. One worker thread each; the windows are
 * Envoy's own, the cipher is ours: AES-256-GCM, by a compliance policy. Left alone, Envoy takes
 * AES-128-GCM.
 */
import {
  EnvoyProcess,
  type EnvoyResources,
  socketAddress,
} from "../../test/support/envoy-process.ts";
import { clientCluster, serverTunnel } from "../../test/support/envoy-tunnel.ts";
import {
  type LabCertificate,
  labCertificateOn,
  workloadName,
} from "../../test/support/lab-certificate.ts";
import type { MeshLab } from "../../test/support/mesh-lab.ts";
import { redirectTraffic } from "./redirect-traffic.ts";

const TYPE = "type.googleapis.com/envoy.extensions";
const IDENTITY = "spiffe://cluster.local/ns/default/sa";
const COMPLIANCE_POLICY = "CNSA1_202603";
const CAPTURE_PORT = 15001;
/** The mark by which the redirect rules know the proxy's own packets. */
const PROXY_MARK = 0x539;
const SOL_SOCKET = 1;
const SO_MARK = 36;

/**
 * @param names hosts of the lab; what the client sends to any other host goes there in plain.
 * @param applicationPort served in the server's namespace.
 * @returns the two processes; they end with the lab.
 */
export async function startEnvoyPair(
  lab: MeshLab,
  names: { readonly client: string; readonly server: string },
  applicationPort: number,
): Promise<{ readonly clientPid: number; readonly serverPid: number }> {
  const { ipv4 } = lab.host(names.server);
  const clientCertificate = await labCertificateOn("P-384", lab, workloadName("envoy-client"));
  const serverCertificate = await labCertificateOn("P-384", lab, workloadName("envoy-server"));
  const server = await EnvoyProcess.start(lab, names.server, (accessLog) =>
    serverTunnel({
      certificate: serverCertificate,
      expected: `${IDENTITY}/envoy-client`,
      applications: { [`${ipv4}:${applicationPort}`]: applicationPort },
      compliancePolicy: COMPLIANCE_POLICY,
      loggedHeaders: [],
      accessLog,
    }),
  );
  const client = await EnvoyProcess.start(lab, names.client, (accessLog) =>
    clientResources({ ip: ipv4, certificate: clientCertificate, accessLog }),
  );
  for (const name of [names.client, names.server]) await redirectTraffic(lab.host(name));
  return { clientPid: client.pid, serverPid: server.pid };
}

function clientResources(options: {
  readonly ip: string;
  readonly certificate: LabCertificate;
  readonly accessLog: string;
}): EnvoyResources {
  const { ip, certificate, accessLog } = options;
  const expected = `${IDENTITY}/envoy-server`;
  const upstream_bind_config = {
    source_address: { address: "0.0.0.0", port_value: 0 },
    socket_options: [
      { level: SOL_SOCKET, name: SO_MARK, int_value: PROXY_MARK, state: "STATE_PREBIND" },
    ],
  };
  const chain = (cluster: string, tunnel: object): object => ({
    filters: [
      {
        name: "envoy.filters.network.tcp_proxy",
        typed_config: {
          "@type": `${TYPE}.filters.network.tcp_proxy.v3.TcpProxy`,
          stat_prefix: cluster,
          cluster,
          access_log: [
            {
              name: "envoy.access_loggers.file",
              typed_config: {
                "@type": `${TYPE}.access_loggers.file.v3.FileAccessLog`,
                path: accessLog,
              },
            },
          ],
          ...tunnel,
        },
      },
    ],
  });
  return {
    listeners: [
      {
        name: "captured",
        address: socketAddress("0.0.0.0", CAPTURE_PORT),
        listener_filters: [
          {
            name: "envoy.filters.listener.original_dst",
            typed_config: {
              "@type": `${TYPE}.filters.listener.original_dst.v3.OriginalDst`,
            },
          },
        ],
        filter_chains: [
          {
            filter_chain_match: { prefix_ranges: [{ address_prefix: ip, prefix_len: 32 }] },
            ...chain("peer", { tunneling_config: { hostname: "%DOWNSTREAM_LOCAL_ADDRESS%" } }),
          },
        ],
        default_filter_chain: chain("outside", {}),
      },
    ],
    clusters: [
      {
        ...clientCluster({
          name: "peer",
          ip,
          certificate,
          expected,
          compliancePolicy: COMPLIANCE_POLICY,
        }),
        upstream_bind_config,
      },
      {
        name: "outside",
        type: "ORIGINAL_DST",
        lb_policy: "CLUSTER_PROVIDED",
        connect_timeout: "2s",
        upstream_bind_config,
      },
    ],
  };
}
