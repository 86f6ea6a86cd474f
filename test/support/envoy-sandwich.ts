/** A sandwiched waypoint in the words of Envoy's configuration: it takes the PROXY protocol. */
import { type EnvoyResources, socketAddress } from "./envoy-process.ts";

const TYPE = "type.googleapis.com/envoy.extensions";
/** Of the TLV that tells the caller's SPIFFE ID. */
const IDENTITY_TYPE = 0xd0;

/** Hands every connection on to where its header says; its log has `source`, `called` and `peer`. */
export function sandwich(port: number, accessLog: string): EnvoyResources {
  const header = {
    "@type": `${TYPE}.filters.listener.proxy_protocol.v3.ProxyProtocol`,
    rules: [{ tlv_type: IDENTITY_TYPE, on_tlv_present: { key: "peer" } }],
  };
  const log = {
    "@type": `${TYPE}.access_loggers.file.v3.FileAccessLog`,
    path: accessLog,
    log_format: {
      json_format: {
        source: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        called: "%DOWNSTREAM_LOCAL_ADDRESS%",
        peer: "%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:peer)%",
      },
    },
  };
  const proxy = {
    "@type": `${TYPE}.filters.network.tcp_proxy.v3.TcpProxy`,
    stat_prefix: "sandwich",
    cluster: "called",
    access_log: [{ name: "envoy.access_loggers.file", typed_config: log }],
  };
  return {
    listeners: [
      {
        name: "sandwich",
        address: socketAddress("0.0.0.0", port),
        listener_filters: [{ name: "envoy.filters.listener.proxy_protocol", typed_config: header }],
        filter_chains: [
          { filters: [{ name: "envoy.filters.network.tcp_proxy", typed_config: proxy }] },
        ],
      },
    ],
    clusters: [
      {
        name: "called",
        type: "ORIGINAL_DST",
        lb_policy: "CLUSTER_PROVIDED",
        connect_timeout: "2s",
      },
    ],
  };
}
