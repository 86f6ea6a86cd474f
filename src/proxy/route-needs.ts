/**
 * What a route can't be chosen without and the mesh does not know, where it is learnt piece by piece:
 * the destination, then the waypoint before it.
 *
 * @see spec control-plane 1.7.
 */
import { formatNetworkAddress, type GatewayAddress } from "../mesh/gateway-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { MeshState } from "../state/mesh-state.ts";
import { findGatewayDestination } from "../state/waypoint.ts";

/** @returns keys to ask a control plane for; none when all that exists is known, or nothing more can be. */
export function routeNeeds(
  state: MeshState,
  query: { readonly source: Workload; readonly target: SocketAddress; readonly network: string },
): readonly string[] {
  const { source, target, network } = query;
  const workload = state.findWorkloadByAddress(network, target.ip);
  const service =
    workload === undefined
      ? state.findServiceByVip(network, target.ip, source.namespace)?.service
      : undefined;
  if (workload === undefined && service === undefined) {
    return [formatNetworkAddress(network, target.ip)];
  }
  const waypoints = [
    workload?.waypoint,
    service?.waypoint,
    ...(service?.weightedWaypoints ?? []).map(({ destination }) => destination),
  ];
  return waypoints
    .filter((waypoint) => waypoint !== undefined)
    .filter((waypoint) => findGatewayDestination(state, waypoint) === undefined)
    .map(gatewayKey);
}

/** By which a control plane is asked. */
export function gatewayKey({ destination }: GatewayAddress): string {
  return destination.kind === "hostname"
    ? `${destination.namespace}/${destination.hostname}`
    : formatNetworkAddress(destination.network, destination.ip);
}
