/**
 * A workload as the mesh describes it: a pod, a VM or an external endpoint.
 * Plain data that survives `structuredClone`, so it crosses threads as it is.
 *
 * @see spec control-plane 2.1 for the fields.
 */
import type { GatewayAddress } from "./gateway-address.ts";
import type { Identity } from "./identity.ts";
import type { IpAddress } from "./ip-address.ts";

export type WorkloadProtocol = "TCP" | "HBONE";
export type NetworkMode = "Standard" | "HostNetwork";
export type HealthStatus = "Healthy" | "Unhealthy";

/** Where a workload runs; empty strings when not known. */
export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

/** The application speaks a tunnel itself (a sandwiched waypoint). */
export interface ApplicationTunnel {
  readonly protocol: "NONE" | "PROXY";
  /** `undefined`: keep the port of the request. */
  readonly port: number | undefined;
}

/** Service port → target port; a target of 0 is a named port that is not known here. */
export type PortMap = ReadonlyMap<number, number>;

export interface Workload {
  /** Unique in the mesh. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly ips: readonly IpAddress[];
  /** Resolved on demand when there is no address; empty when not set. */
  readonly hostname: string;
  readonly network: string;
  readonly protocol: WorkloadProtocol;
  readonly trustDomain: string;
  readonly serviceAccount: string;
  readonly waypoint: GatewayAddress | undefined;
  readonly networkGateway: GatewayAddress | undefined;
  readonly node: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  /** `deployment`, `cronjob`, `pod` or `job`. */
  readonly workloadType: string;
  readonly workloadName: string;
  readonly nativeTunnel: boolean;
  /** Keys of selector policies, `namespace/name`. */
  readonly authorizationPolicies: readonly string[];
  readonly status: HealthStatus;
  readonly clusterId: string;
  /** Key is `namespace/hostname` of a service. */
  readonly services: ReadonlyMap<string, PortMap>;
  readonly applicationTunnel: ApplicationTunnel | undefined;
  readonly locality: Locality;
  readonly networkMode: NetworkMode;
  /** Weight in load balancing; 0 is never chosen. */
  readonly capacity: number;
}

/** The identity that the mesh gives a workload. */
export function workloadIdentity(workload: Workload): Identity {
  return {
    trustDomain: workload.trustDomain,
    namespace: workload.namespace,
    serviceAccount: workload.serviceAccount,
  };
}
