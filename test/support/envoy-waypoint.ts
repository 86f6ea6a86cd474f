/**
 * A waypoint in the words of Envoy's configuration, built as Istio builds its own: CONNECTs end in a
 * listener of the mesh, HTTP is routed in one inside of Envoy, and a second one inside of it begins
 * the tunnel to the destination.
 */
import type { EnvoyResources } from "./envoy-process.ts";
import { clientCluster, connectRoute, ROUTER, serverListener } from "./envoy-tunnel.ts";
import type { LabCertificate } from "./lab-certificate.ts";

const TYPE = "type.googleapis.com/envoy.extensions.filters.network";

export interface WaypointOptions {
  readonly certificate: LabCertificate;
  /** URI that callers have to show. */
  readonly caller: string;
  /** Where tunnels go, and whom they expect there. */
  readonly destination: { readonly ip: string; readonly port: number; readonly uri: string };
  readonly accessLog: string;
}

/** Takes the path `/shop/…` only, and hands on `/…` with the header `x-waypoint: yes`. */
export function waypoint(options: WaypointOptions): EnvoyResources {
  const { certificate, caller, destination, accessLog } = options;
  const everything = { name: "all", domains: ["*"] };
  const http = {
    "@type": `${TYPE}.http_connection_manager.v3.HttpConnectionManager`,
    stat_prefix: "http",
    route_config: {
      virtual_hosts: [
        {
          ...everything,
          routes: [
            {
              match: { prefix: "/shop/" },
              route: { cluster: "originate", prefix_rewrite: "/" },
              request_headers_to_add: [{ header: { key: "x-waypoint", value: "yes" } }],
            },
          ],
        },
      ],
    },
    http_filters: [ROUTER],
  };
  const tunnel = {
    "@type": `${TYPE}.tcp_proxy.v3.TcpProxy`,
    stat_prefix: "originate",
    cluster: "destination",
    tunneling_config: { hostname: `${destination.ip}:${destination.port}` },
  };
  return {
    listeners: [
      serverListener(
        {
          certificate,
          expected: caller,
          loggedHeaders: ["forwarded", "baggage"],
          accessLog,
        },
        [{ ...everything, routes: [connectRoute("inside")] }],
      ),
      innerListener("inside", "http_connection_manager", http),
      innerListener("originate", "tcp_proxy", tunnel),
    ],
    clusters: [
      innerCluster("inside"),
      innerCluster("originate"),
      clientCluster({
        name: "destination",
        ip: destination.ip,
        certificate,
        expected: destination.uri,
      }),
    ],
  };
}

function innerListener(name: string, filter: string, config: unknown): unknown {
  return {
    name,
    internal_listener: {},
    filter_chains: [
      { filters: [{ name: `envoy.filters.network.${filter}`, typed_config: config }] },
    ],
  };
}

/** Leads to the listener of the same name. */
function innerCluster(name: string): unknown {
  const address = { envoy_internal_address: { server_listener_name: name } };
  return {
    name,
    type: "STATIC",
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }],
    },
  };
}
