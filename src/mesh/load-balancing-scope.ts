/** In what a source and an endpoint can be alike: the nearer an endpoint, the more it shares. */
import type { Workload } from "./workload.ts";

/** From 1 on in the order of the protocol's numbers. */
export const LOAD_BALANCING_SCOPES = [
  "Region",
  "Zone",
  "Subzone",
  "Node",
  "Cluster",
  "Network",
] as const;

export type LoadBalancingScope = (typeof LOAD_BALANCING_SCOPES)[number];

/** The name of the region, the node … that the workload is in; may be empty. */
export function placeIn(scope: LoadBalancingScope, workload: Workload): string {
  switch (scope) {
    case "Region":
      return workload.locality.region;
    case "Zone":
      return workload.locality.zone;
    case "Subzone":
      return workload.locality.subzone;
    case "Node":
      return workload.node;
    case "Cluster":
      return workload.clusterId;
    case "Network":
      return workload.network;
  }
}
