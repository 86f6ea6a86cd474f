/** The environment variables that are read, for `--help` and for the README's tables. */
import { LIMITS } from "./limits.ts";

export interface ConfigOption {
  /** Ends in `*` where the rest of the name is free. */
  readonly name: string;
  /** In words of the grammar: flag, number, duration, text, path, … */
  readonly type: string;
  /** As an operator would write it; `-` for none. */
  readonly fallback: string;
  /** Of a number in `fallback`, which is to be shown with it: what `why` says may go on from there. */
  readonly unit?: string;
  /** What it is for, and why the default is what it is. */
  readonly why: string;
}

const OPTIONS: readonly ConfigOption[] = [
  {
    name: "XDS_ADDRESS",
    type: "host:port or URL",
    fallback:
      "discoveryAddress, else istiod.istio-system.svc:15012 where KUBERNETES_SERVICE_HOST is set, else localhost:15012",
    why: "control plane that knows the mesh; only https; empty, or unset beside a mesh file, asks none",
  },
  {
    name: "XDS_ROOT_CA",
    type: "path, PEM or SYSTEM",
    fallback: "./var/run/secrets/istio/root-cert.pem",
    why: "roots that the control plane's certificate must chain to; SYSTEM takes those of the machine",
  },
  {
    name: "ALT_XDS_HOSTNAME",
    type: "host name",
    fallback: "-",
    why: "also accepted as the control plane's name, when it is reached by another",
  },
  {
    name: "XDS_HEADER_*",
    type: "text",
    fallback: "-",
    why: "further request header for the control plane, named by the rest of the variable's name",
  },
  {
    name: "XDS_ON_DEMAND",
    type: "flag",
    fallback: "false",
    why: "learn of workloads and services when a connection needs them, instead of all at once",
  },
  {
    name: "STATE_DIR",
    type: "path",
    fallback: "-",
    why: "folder where the mesh is kept, to be served after a restart while the control plane is away; no keys, readable by its owner only, not believed where others may write it",
  },
  {
    name: "INSTANCE_IP",
    type: "IP addresses",
    fallback: "1.1.1.1",
    why: "the daemon's own address, or several with commas between, in what the control plane is told, if one is asked; so are the next two",
  },
  {
    name: "ISTIO_META_*",
    type: "text",
    fallback: "-",
    why: "entry of the node's metadata, over proxyMetadata; named by the rest of the variable's name",
  },
  {
    name: "ISTIO_METAJSON_*",
    type: "JSON",
    fallback: "-",
    why: "the same with a value of any type; istiod wants strings for the keys that it knows",
  },
  {
    name: "LOCAL_XDS_PATH",
    type: "path",
    fallback: "-",
    why: "YAML file with the mesh: workloads, services and policies; read once, before any control plane",
  },
  {
    name: "LOCAL_XDS",
    type: "YAML",
    fallback: "-",
    why: "the same as text; only one of the two may be set",
  },
  {
    name: "NODE_NAME",
    type: "text",
    fallback: "-",
    why: "node whose workloads are local; unset, all workloads count as local",
  },
  {
    name: "NETWORK",
    type: "text",
    fallback: "empty",
    why: "network of this node; addresses are looked up in it",
  },
  {
    name: "CA_ADDRESS",
    type: "host:port or URL",
    fallback:
      "istiod.istio-system.svc:15012 where KUBERNETES_SERVICE_HOST is set, else localhost:15012",
    why: "certificate authority; only https",
  },
  {
    name: "CA_ROOT_CA",
    type: "path, PEM or SYSTEM",
    fallback: "./var/run/secrets/istio/root-cert.pem",
    why: "roots that the authority's certificate must chain to; SYSTEM takes those of the machine",
  },
  {
    name: "ALT_CA_HOSTNAME",
    type: "host name",
    fallback: "-",
    why: "also accepted as the authority's name, when it is reached by another",
  },
  {
    name: "CA_HEADER_*",
    type: "text",
    fallback: "-",
    why: "further request header for the authority, named by the rest of the variable's name",
  },
  {
    name: "AUTH_TOKEN",
    type: "path or token",
    fallback: "./var/run/secrets/tokens/istio-token if it exists",
    why: "proves to the authority who this node is; a file is read anew for each request",
  },
  {
    name: "SECRET_TTL",
    type: "duration",
    fallback: "24h",
    why: "lifetime to ask for in certificates; they are renewed at half of it",
  },
  {
    name: "FAKE_CA",
    type: "false",
    fallback: "false",
    why: "true is refused: the original's testing builds sign certificates themselves, here `ztunnel embedded-mesh` does",
  },
  {
    name: "CLUSTER_ID",
    type: "text",
    fallback: "Kubernetes",
    why: "cluster named to the authority; ISTIO_META_CLUSTER_ID wins over it",
  },
  {
    name: "ISTIO_META_CLUSTER_ID",
    type: "text",
    fallback: "-",
    why: "the same under the name that Istio's chart sets",
  },
  {
    name: "ISTIO_META_ISTIO_VERSION",
    type: "text",
    fallback: "unknown",
    why: "tag of the istio_build metric, shown by `ztunnel version`",
  },
  {
    name: "PROXY_MODE",
    type: "shared or dedicated",
    fallback: "shared",
    why: "one process for all pods of the node, or for the one workload in whose network namespace it runs",
  },
  {
    name: "PROXY_WORKLOAD_INFO",
    type: "namespace/name/service-account",
    fallback: "-",
    why: "the workload of PROXY_MODE=dedicated, which needs it",
  },
  {
    name: "INPOD_UDS",
    type: "path",
    fallback: "/var/run/ztunnel/ztunnel.sock",
    why: "socket of the node agent (istio-cni) that hands over network namespaces",
  },
  {
    name: "POD_NAME",
    type: "text",
    fallback: "-",
    why: "with the next two: the daemon's own pod, which then takes tunnels on 15008 too, so that a scraper in the mesh reaches 15020",
  },
  {
    name: "POD_NAMESPACE",
    type: "text",
    fallback: "-",
    why: "namespace of the daemon's own pod",
  },
  {
    name: "SERVICE_ACCOUNT",
    type: "text",
    fallback: "-",
    why: "service account of the daemon's own pod, in shared mode; without all three it takes no tunnels",
  },
  {
    name: "TRUST_DOMAIN",
    type: "text",
    fallback: "what the mesh says",
    why: "trust domain of the daemon's own pod, needs the three before it",
  },
  {
    name: "ENABLE_PROXY",
    type: "flag",
    fallback: "true",
    why: "false leaves connections alone, so that what is about them rests: only DNS is served",
  },
  {
    name: "ISTIO_META_DNS_CAPTURE",
    type: "text",
    fallback: "true",
    why: "answer DNS in pods; anything but true turns it off, as XDS_ON_DEMAND demands, and what is about it rests",
  },
  {
    name: "ISTIO_META_DNS_PROXY_ADDR",
    type: "localhost:port or IP:port",
    fallback: "localhost:15053",
    why: "where DNS is answered in each pod; localhost is 127.0.0.1, and ::1 where loopback has it",
  },
  {
    name: "CLUSTER_DOMAIN",
    type: "domain",
    fallback: "what follows svc. in the search list of /etc/resolv.conf, else cluster.local",
    why: "names of Kubernetes services end in .svc. and this",
  },
  {
    name: "PREFERED_SERVICE_NAMESPACE",
    type: "text",
    fallback: "-",
    why: "its services answer for a host name that several namespaces claim, unless the client's own or a canonical one does",
  },
  {
    name: "INPOD_PORT_REUSE",
    type: "flag",
    fallback: "true; dedicated mode: with several data threads",
    why: "SO_REUSEPORT on the listeners for pods: data threads and a successor process share the ports; several data threads need it",
  },
  {
    name: "WAIT_FOR_OPERATOR_PORTS",
    type: "flag",
    fallback: "false",
    why: "wait for ports 15000, 15020 and 15021 while a predecessor in the same network namespace has them; the original gives up",
  },
  {
    name: "PACKET_MARK",
    type: "number",
    fallback: "1337; dedicated mode: none",
    why: "SO_MARK of all sockets in pods, in dedicated mode of outgoing ones, by which the redirect rules leave our own traffic alone",
  },
  {
    name: "ENABLE_ORIG_SRC",
    type: "flag",
    fallback: "where the kernel allows it",
    why: "applications see the client's address, for which the daemon needs CAP_NET_ADMIN; true fails without it, false never tries",
  },
  {
    name: "IPV6_ENABLED",
    type: "flag",
    fallback: "true",
    why: "listen on [::] for both families instead of 0.0.0.0",
  },
  {
    name: "UNSTABLE_ENABLE_SOCKS5",
    type: "flag",
    fallback: "false",
    why: "also take connections by SOCKS5 on 127.0.0.1:15080 of each workload, from applications that choose the mesh themselves; any other UNSTABLE_* is refused",
  },
  {
    name: "KEEPALIVE_ENABLED",
    type: "flag",
    fallback: "true",
    why: "TCP keep-alive on proxied sockets, so that peers that vanished are noticed; the next three rest when it is false",
  },
  {
    name: "KEEPALIVE_TIME",
    type: "duration",
    fallback: "180s",
    why: "silence before the first probe; below the idle time-outs of common firewalls",
  },
  {
    name: "KEEPALIVE_INTERVAL",
    type: "duration",
    fallback: "15s",
    why: "from one probe to the next: with the defaults a peer that vanished is noticed after 5¼ minutes, with the original's 180s after half an hour",
  },
  {
    name: "KEEPALIVE_RETRIES",
    type: "number",
    fallback: "9",
    unit: "probes",
    why: "unanswered probes until the connection is given up",
  },
  {
    name: "USER_TIMEOUT_ENABLED",
    type: "flag",
    fallback: "false",
    why: "also give up unacknowledged data (TCP_USER_TIMEOUT) after time + retries × interval",
  },
  {
    name: "CONNECTION_IDLE_TIMEOUT",
    type: "duration",
    fallback: "0",
    why: "connections that carry nothing either way for so long are closed, up to a quarter later; 0 lets them be, as the original: applications keep connections in pools and know best for how long",
  },
  {
    name: "HTTP2_STREAM_WINDOW_SIZE",
    type: "number",
    fallback: "4194304",
    unit: "bytes",
    why: "one connection through a tunnel at 10 Gbit/s and 3 ms; the most a stalled reader holds",
  },
  {
    name: "HTTP2_CONNECTION_WINDOW_SIZE",
    type: "number",
    fallback: "16777216",
    unit: "bytes",
    why: "four stalled streams do not stop the others of their tunnel",
  },
  {
    name: "HTTP2_FRAME_SIZE",
    type: "number",
    fallback: "1048576",
    unit: "bytes",
    why: "largest frame accepted: fewer headers in bulk transfers",
  },
  {
    name: "POOL_MAX_STREAMS_PER_CONNECTION",
    type: "number",
    fallback: "100",
    unit: "streams",
    why: "connections that share a tunnel before another is opened",
  },
  {
    name: "POOL_UNUSED_RELEASE_TIMEOUT",
    type: "duration",
    fallback: "5m",
    why: "idle tunnels close after it; a handshake costs more than keeping one for minutes",
  },
  {
    name: "CONNECTION_TERMINATION_DEADLINE",
    type: "duration",
    fallback: "-",
    why: "how long connections may live on after SIGTERM; wins over the next",
  },
  {
    name: "TERMINATION_GRACE_PERIOD_SECONDS",
    type: "number",
    fallback: "-",
    why: "the pod's grace period: drain 5 s less, 1 s less up to 10, at least 1; neither set: 5 s",
  },
  {
    name: "POD_TERMINATION_DEADLINE",
    type: "duration",
    fallback: "5s",
    why: "how long connections of a pod that the node agent took back may live on: last bytes get through in far less, and peers of a pod that fell silent do not wait for long; 0 ends them at once, like the original",
  },
  {
    name: "ZTUNNEL_WORKER_THREADS",
    type: "number or N%",
    fallback: "a quarter of the CPUs, at least ZTUNNEL_RESOURCE_CPU_REQUEST and 1",
    why: "data threads, 256 at most; N% of the CPUs, rounded up; 0 runs everything in one thread",
  },
  {
    name: "ZTUNNEL_CPU_LIMIT",
    type: "number",
    fallback: "the machine's CPUs",
    why: "what the default and percentages are taken from (downward API)",
  },
  {
    name: "ZTUNNEL_RESOURCE_CPU_LIMIT",
    type: "CPU quantity",
    fallback: "-",
    why: "container limit, rounded up: becomes the default number of data threads",
  },
  {
    name: "ZTUNNEL_RESOURCE_CPU_REQUEST",
    type: "CPU quantity",
    fallback: "-",
    why: "container request, rounded up: the least default number of data threads",
  },
  {
    name: "ENABLE_RESPONSE_BAGGAGE",
    type: "flag",
    fallback: "true",
    why: "tell peers in answers who the workload is, and use what unknown sources say of themselves",
  },
  {
    name: "CONNECT_RETRIES",
    type: "number",
    fallback: "2",
    unit: "endpoints",
    why: "further endpoints of a service that are tried when one can't be reached and nothing was sent yet; two survive a node that dies in a rollout; 0 tries none, as the original",
  },
  {
    name: "OUTLIER_CONSECUTIVE_FAILURES",
    type: "number",
    fallback: "0",
    unit: "connects",
    why: "an endpoint of a service, or of a waypoint's, to which so many connects in a row fail is left out for a while; 0 leaves none out, as the original; 5 is Envoy's number",
  },
  {
    name: "OUTLIER_MAX_EJECTION_PERCENT",
    type: "number",
    fallback: "50",
    unit: "%",
    why: "share of a service's endpoints that may be left out at a time, one in any case and never the last: when most fail, the fault is not theirs",
  },
  {
    name: "SESSION_AFFINITY_SERVICES",
    type: "NAMESPACE/HOSTNAME=SECONDS, comma separated",
    fallback: "-",
    why: "services whose clients stay with one endpoint (sessionAffinity ClientIP), which istiod does not tell; without seconds 10800, the default of Kubernetes; the original knows none",
  },
  {
    name: "LOCALHOST_APP_TUNNEL",
    type: "flag",
    fallback: "true",
    why: "waypoints that want the PROXY protocol are reached on their loopback, where nobody else can pretend a client",
  },
  {
    name: "TLS12_ENABLED",
    type: "flag",
    fallback: "false",
    why: "also allow TLS 1.2 in tunnels and to the control plane",
  },
  {
    name: "TRUST_DOMAINS",
    type: "names, comma separated",
    fallback: "-",
    why: "trust domains that peers may be of besides the workload's own; for moving from one to another; the original knows none",
  },
  {
    name: "CRL_PATH",
    type: "path",
    fallback: "-",
    why: "certificate revocation lists, PEM or DER; peers in them are refused, and cut off when the file changes; an empty file revokes nobody",
  },
  {
    name: "COMPLIANCE_POLICY",
    type: "pqc",
    fallback: "-",
    why: "pqc allows post-quantum key exchange (X25519MLKEM768) only",
  },
  {
    name: "POD_SOCKETS_INTERVAL",
    type: "duration",
    fallback: "30s",
    why: "from one look at the sockets and datagrams of a pod to the next: two scrapes of most Prometheus set-ups; longer on busy nodes, so that looking takes 2 % of a CPU at most; 0 never looks",
  },
  {
    name: "RUST_LOG",
    type: "log filter",
    fallback: "info",
    why: "which lines are logged: level or target=level, comma separated",
  },
  {
    name: "LOG_FORMAT",
    type: "plain or json",
    fallback: "plain",
    why: "columns for people, or one JSON object a line for collectors",
  },
  {
    name: "AUTHZ_POLICY_INFO_LOGGING",
    type: "flag",
    fallback: "false",
    why: "log policy matches at level info instead of debug",
  },
  {
    name: "UNKNOWN_POLICY",
    type: "deny or allow",
    fallback: "deny",
    why: "connections to a workload that names a policy nobody sends, or one that was refused; the original allows",
  },
  {
    name: "PROXY_CONFIG",
    type: "YAML or JSON",
    fallback: "empty",
    why: "discoveryAddress, proxyAdminPort (15000), statsPort (15020), concurrency (data threads; 0: all CPUs) and proxyMetadata, over defaultConfig of ./etc/istio/config/mesh",
  },
];

/** All of them; the limits last. */
export const CONFIG_OPTIONS: readonly ConfigOption[] = [
  ...OPTIONS,
  ...Object.values(LIMITS).map(({ variable, value, unit, why }) => ({
    name: variable,
    type: unit === "ms" ? "duration" : "number",
    fallback: unit === "ms" ? `${value / 1000}s` : String(value),
    ...(unit === "ms" ? {} : { unit }),
    why,
  })),
];
