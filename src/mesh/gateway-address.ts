/** How the mesh refers to a waypoint or a network gateway. */
import type { IpAddress } from "./ip-address.ts";

/** A service or workload by Kubernetes namespace and host name. */
export interface NamespacedHostname {
  readonly namespace: string;
  readonly hostname: string;
}

/** An address in a named network; the empty string is the default network. */
export interface NetworkAddress {
  readonly network: string;
  readonly ip: IpAddress;
}

/** Where a waypoint or network gateway is found. */
export interface GatewayAddress {
  readonly destination:
    | ({ readonly kind: "hostname" } & NamespacedHostname)
    | ({ readonly kind: "address" } & NetworkAddress);
  readonly hboneMtlsPort: number;
}

/** `network/ip`. */
export function formatNetworkAddress(network: string, ip: string): string {
  return `${network}/${ip}`;
}
