/** Which protocol a port speaks, as its name or its author says. */
import { AppProtocol } from "../wire/proto/istio-workload.ts";

const BY_NAME: ReadonlyMap<string, AppProtocol> = new Map([
  ["tcp", AppProtocol.TCP],
  ["http", AppProtocol.HTTP11],
  ["http2", AppProtocol.HTTP2],
  ["grpc", AppProtocol.GRPC],
  ["https", AppProtocol.TLS],
  ["tls", AppProtocol.TLS],
]);
/** Names with which the mesh can do nothing more than with none. */
const OTHERS: readonly string[] = ["udp", "grpc-web", "http_proxy", "mongo", "redis", "mysql"];
/** Kubernetes' own words for `appProtocol`. */
const KUBERNETES: ReadonlyMap<string, AppProtocol> = new Map([
  ["kubernetes.io/h2c", AppProtocol.HTTP2],
  ["kubernetes.io/ws", AppProtocol.HTTP11],
  ["kubernetes.io/wss", AppProtocol.TLS],
]);
/** SMTP, DNS, MySQL, MongoDB: the server speaks first, or not HTTP in any case. */
const TCP_PORTS: readonly number[] = [25, 53, 3306, 27017];

/** Of a ServiceEntry's port. */
export function namedProtocol(name: string): AppProtocol {
  return BY_NAME.get(name.toLowerCase()) ?? AppProtocol.UNKNOWN;
}

/**
 * Of a Service's port: `appProtocol`, else the name up to its first hyphen, else a well-known port.
 *
 * @param transport a port of UDP has no protocol of the mesh.
 */
export function servicePortProtocol(port: {
  readonly port: number;
  readonly name: string;
  readonly appProtocol: string;
  readonly transport: string;
}): AppProtocol {
  if (port.transport === "UDP") return AppProtocol.UNKNOWN;
  const fromKubernetes = KUBERNETES.get(port.appProtocol);
  if (fromKubernetes !== undefined) return fromKubernetes;
  const text = (port.appProtocol || port.name).toLowerCase();
  const name = text.startsWith("grpc-web") ? "grpc-web" : (text.split("-")[0] ?? "");
  const isKnown = BY_NAME.has(name) || OTHERS.includes(name);
  return !isKnown && TCP_PORTS.includes(port.port) ? AppProtocol.TCP : namedProtocol(name);
}
