/**
 * A service: a host name with addresses, ports and a policy for choosing an endpoint.
 *
 * @see spec control-plane 2.1 for the fields.
 */
import type { Cidr } from "./cidr.ts";
import type { GatewayAddress, NetworkAddress } from "./gateway-address.ts";
import { type Identity, parseSpiffeId } from "./identity.ts";
import type { LoadBalancingScope } from "./load-balancing-scope.ts";
import type { PortMap } from "./workload.ts";

export type LoadBalancingMode = "Standard" | "Strict" | "Failover" | "Passthrough";
export type HealthPolicy = "OnlyHealthy" | "AllowAll";
export type IpFamilies = "Automatic" | "IPv4" | "IPv6" | "Dual";
export type Visibility = "Public" | "Namespace";

export interface LoadBalancer {
  readonly routingPreferences: readonly LoadBalancingScope[];
  readonly mode: LoadBalancingMode;
  readonly healthPolicy: HealthPolicy;
}

export interface WeightedWaypoint {
  readonly destination: GatewayAddress;
  /** 0 is never chosen. */
  readonly weight: number;
}

/** A range of addresses that all belong to one service. */
export interface NetworkCidr {
  readonly network: string;
  readonly cidr: Cidr;
}

export interface Service {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly vips: readonly NetworkAddress[];
  readonly cidrVips: readonly NetworkCidr[];
  readonly ports: PortMap;
  /** Full `spiffe://` URIs accepted besides the endpoint's own identity. */
  readonly subjectAltNames: readonly string[];
  readonly waypoint: GatewayAddress | undefined;
  readonly weightedWaypoints: readonly WeightedWaypoint[];
  readonly loadBalancer: LoadBalancer | undefined;
  readonly ipFamilies: IpFamilies;
  readonly canonical: boolean;
  readonly visibility: Visibility;
  /**
   * A client address stays with an endpoint for so long after its last connection; `undefined`: it does
   * not. The protocol of the mesh has no field for it.
   */
  readonly affinitySeconds: number | undefined;
}

/** What its peers may prove to be; names that are no SPIFFE identity can't be proven. */
export function serviceIdentities({ subjectAltNames }: Service): readonly Identity[] {
  return subjectAltNames.map(parseSpiffeId).filter((identity) => identity !== undefined);
}

/** `namespace/hostname`, the xDS name of the service. */
export function serviceKey(service: Service): string {
  return `${service.namespace}/${service.hostname}`;
}
