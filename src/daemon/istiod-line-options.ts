/** The line to one of istiod's services, as the configuration describes it. */
import type { Config, IdentityConfig, ServerConfig } from "../config/config.ts";
import type { IstiodLineOptions } from "../istiod/istiod-line.ts";
import { formatHostPort } from "../mesh/socket-address.ts";

/** @param headers further ones for this service. */
export function istiodLineOptions(
  server: ServerConfig,
  headers: IdentityConfig["headers"],
  { identity: { token, clusterId }, proxy: { tls12, postQuantumOnly } }: Config,
): IstiodLineOptions {
  return {
    address: serverUrl(server),
    roots: server.roots,
    alternateHostname: server.alternativeHost,
    token,
    clusterId,
    headers,
    tls: { tls12, postQuantumOnly },
  };
}

/** `https://host:port` */
export function serverUrl({ host, port }: ServerConfig): string {
  return `https://${formatHostPort(host, port)}`;
}
