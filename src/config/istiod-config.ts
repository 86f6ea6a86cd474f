/** Where the mesh and the certificates come from. @see spec control-plane 6 */
import { parseIpAddress } from "../mesh/ip-address.ts";
import { parsePort } from "../mesh/socket-address.ts";
import type { NodeDescription } from "../xds/delta-client.ts";
import type {
  DiscoveryConfig,
  IdentityConfig,
  MeshConfig,
  RootSource,
  TokenSource,
} from "./config.ts";
import { DAY_MS, DURATION_MS_MAX } from "./duration.ts";
import type { EnvironmentReader, Host } from "./environment-reader.ts";
import { readLimit } from "./limits.ts";
import type { ProxyConfig } from "./proxy-config.ts";

const DEFAULT_ROOT_PATH = "./var/run/secrets/istio/root-cert.pem";
const DEFAULT_TOKEN_PATH = "./var/run/secrets/tokens/istio-token";
const ISTIOD_PORT = 15012;

export function readMesh(reader: EnvironmentReader, proxyConfig: ProxyConfig): MeshConfig {
  const path = reader.text("LOCAL_XDS_PATH");
  const text = reader.text("LOCAL_XDS");
  if (path !== undefined && text !== undefined) {
    reader.mistake("invalid configuration: only one of LOCAL_XDS_PATH or LOCAL_XDS may be set");
  }
  const hasFile = path !== undefined || text !== undefined;
  const discovery = readDiscovery(reader, proxyConfig, hasFile);
  if (!hasFile && discovery === undefined) {
    // Without any mesh every connection would pass as plain text, unnoticed.
    reader.mistake(
      "invalid configuration: XDS_ADDRESS is empty and neither LOCAL_XDS_PATH nor LOCAL_XDS is set",
    );
  }
  return {
    file:
      path === undefined
        ? text === undefined
          ? undefined
          : { kind: "text", text }
        : { kind: "file", path },
    discovery,
    localNode: reader.text("NODE_NAME"),
  };
}

/** A mesh file alone asks no control plane, unless one is named: nobody runs one beside a file. */
function readDiscovery(
  reader: EnvironmentReader,
  proxyConfig: ProxyConfig,
  hasFile: boolean,
): DiscoveryConfig | undefined {
  const text = reader.text("XDS_ADDRESS") ?? proxyConfig.discoveryAddress;
  // All are read even where none is asked, so that all mistakes come at once.
  const discovery: DiscoveryConfig = {
    server: {
      ...readServerAddress(reader, "XDS_ADDRESS", text === "" ? undefined : text),
      alternativeHost: reader.text("ALT_XDS_HOSTNAME"),
      roots: readRoots(reader.filled("XDS_ROOT_CA") ?? DEFAULT_ROOT_PATH),
    },
    headers: readHeaders(reader, "XDS_HEADER_"),
    node: readNode(reader, proxyConfig),
    onDemand: reader.flag("XDS_ON_DEMAND", false),
    connectMs: readLimit(reader, "discoveryConnect"),
    firstAnswerMs: readLimit(reader, "discoveryFirstAnswer"),
    receivedBytesMax: readLimit(reader, "discoveryMessage"),
    demandMs: readLimit(reader, "discoveryDemand"),
    state: readState(reader),
    offeredBytesMax: readLimit(reader, "discoveryOffer"),
  };
  return text === "" || (text === undefined && hasFile) ? undefined : discovery;
}

function readState(reader: EnvironmentReader): DiscoveryConfig["state"] {
  const folder = reader.text("STATE_DIR");
  const everyMs = readLimit(reader, "stateSave");
  const ageMsMax = readLimit(reader, "stateAge");
  return folder === undefined || folder === "" ? undefined : { folder, everyMs, ageMsMax };
}

/** @see spec control-plane 1.2 */
function readNode(reader: EnvironmentReader, proxyConfig: ProxyConfig): NodeDescription {
  const ip = reader.text("INSTANCE_IP") ?? "1.1.1.1";
  // istiod refuses each conversation of a node without an address; it takes several, too.
  if (ip.split(",").some((address) => parseIpAddress(address) === undefined)) {
    reader.invalid("INSTANCE_IP", "expected an IP address, or several with commas between");
  }
  const pod = reader.text("POD_NAME") ?? "";
  const namespace = reader.text("POD_NAMESPACE") ?? "";
  const metadata: Record<string, unknown> = {
    NAME: pod,
    NAMESPACE: namespace,
    INSTANCE_IPS: ip,
    NODE_NAME: reader.text("NODE_NAME") ?? "",
    ...Object.fromEntries(proxyConfig.metadata),
    ...Object.fromEntries(reader.withPrefix("ISTIO_META_")),
  };
  for (const [name, json] of reader.withPrefix("ISTIO_METAJSON_")) {
    try {
      metadata[name] = JSON.parse(json);
    } catch {
      reader.invalid(`ISTIO_METAJSON_${name}`, "is not JSON");
    }
  }
  return { id: `ztunnel~${ip}~${pod}.${namespace}~${namespace}.svc.cluster.local`, metadata };
}

export function readIdentity(reader: EnvironmentReader, host: Host): IdentityConfig {
  if (reader.flag("FAKE_CA", false)) {
    reader.invalid("FAKE_CA", "the daemon signs no certificates, ztunnel embedded-mesh does");
  }
  return {
    authority: {
      ...readServerAddress(reader, "CA_ADDRESS", reader.text("CA_ADDRESS")),
      alternativeHost: reader.text("ALT_CA_HOSTNAME"),
      roots: readRoots(reader.filled("CA_ROOT_CA") ?? DEFAULT_ROOT_PATH),
    },
    token: readToken(reader, host),
    clusterId: reader.text("ISTIO_META_CLUSTER_ID") ?? reader.text("CLUSTER_ID") ?? "Kubernetes",
    headers: readHeaders(reader, "CA_HEADER_"),
    certificateTtlMs: reader.duration("SECRET_TTL", DAY_MS, { min: 1000, max: DURATION_MS_MAX }),
    certificateWaitMs: readLimit(reader, "certificateWait"),
    answerMs: readLimit(reader, "authorityAnswer"),
    revocationPath: reader.text("CRL_PATH") || undefined,
  };
}

/** @param text of the variable, or of what stands in for it. */
function readServerAddress(
  reader: EnvironmentReader,
  variable: string,
  text: string | undefined,
): { host: string; port: number } {
  const inCluster = reader.text("KUBERNETES_SERVICE_HOST") !== undefined;
  const fallback = inCluster ? "istiod.istio-system.svc" : "localhost";
  if (text === undefined) return { host: fallback, port: ISTIOD_PORT };
  const [, scheme = "https", authority = ""] = /^(?:([^:/]+):\/\/)?([^/]*)\/?$/.exec(text) ?? [];
  const [, host = "", portText = "443"] =
    /^(\[[\d:a-f.]+\]|[^:[\]@\s]+)(?::(.*))?$/i.exec(authority) ?? [];
  const port = parsePort(portText);
  if (text === "") reader.invalid(variable, "must not be empty");
  else if (scheme !== "https") reader.invalid(variable, "the scheme must be https");
  else if (host === "" || port === undefined || port === 0) {
    reader.invalid(variable, "expected host:port or https://host:port");
  } else return { host: host.replace(/^\[|\]$/g, ""), port };
  return { host: fallback, port: ISTIOD_PORT };
}

/**
 * A path that does not exist yet stays a path: the file may be mounted later. (The original takes
 * its name for a certificate then and never recovers.)
 */
function readRoots(text: string): RootSource {
  if (text === "SYSTEM") return { kind: "system" };
  return text.includes("-----BEGIN") ? { kind: "pem", pem: text } : { kind: "file", path: text };
}

function readToken(reader: EnvironmentReader, host: Host): TokenSource | undefined {
  const text = reader.text("AUTH_TOKEN");
  const path = text ?? DEFAULT_TOKEN_PATH;
  if (host.fileExists(path)) return { kind: "file", path };
  return text === undefined ? undefined : { kind: "literal", token: text };
}

function readHeaders(
  reader: EnvironmentReader,
  prefix: string,
): readonly (readonly [string, string])[] {
  return reader.withPrefix(prefix).map(([name, value]) => {
    if (!/^[!#$%&'*+\-.^_`|~\dA-Za-z]+$/.test(name)) {
      reader.invalid(prefix + name, "the rest of the name is no header name");
    }
    if (!/^[\x20-\x7e]*$/.test(value)) {
      reader.invalid(prefix + name, "a header value is printable ASCII");
    }
    return [name.toLowerCase(), value];
  });
}
