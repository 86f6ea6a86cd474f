/** Why no way leads to a destination, in the words of the original. @see spec data-path 3.8 */
import { formatHostPort, formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import { ProxyError } from "./proxy-error.ts";

export function noHealthyUpstreamError(target: SocketAddress): ProxyError {
  return new ProxyError("no-route", `no healthy upstream: ${formatSocketAddress(target)}`);
}

/** The workload has no address that can be reached from here. */
export function unroutableError(workload: Workload): ProxyError {
  return new ProxyError(
    "no-route",
    `no valid routing destination for workload: ${workload.uid || workload.name}`,
  );
}

/** Looking up the host name, which is all that is known of where the workload is, failed. */
export function unknownHostError(workload: Workload): ProxyError {
  return new ProxyError(
    "no-route",
    `no ip addresses were resolved for workload: ${workload.uid || workload.name}`,
  );
}

/** The workload's host name exists, but not with an address. */
export function emptyHostnameError(workload: Workload): ProxyError {
  return new ProxyError(
    "no-route",
    `ip addresses were resolved for workload ${workload.uid || workload.name}, but valid dns response had no A/AAAA records`,
  );
}

/** A workload of another network can only be reached as part of a service. */
export function noServiceError(target: SocketAddress): ProxyError {
  return new ProxyError(
    "no-route",
    `no service for target address: ${formatSocketAddress(target)}`,
  );
}

/** @param name host name or address of the waypoint. */
export function unknownWaypointError(name: string): ProxyError {
  return new ProxyError("no-route", `unknown waypoint: waypoint ${name} not found`);
}

/** @param name host name or address of the gateway. */
export function unknownGatewayError(name: string): ProxyError {
  return new ProxyError("no-route", `unknown network gateway: network gateway ${name} not found`);
}

export function unknownHostnameError(hostname: string): ProxyError {
  return new ProxyError("no-route", `no service or workload for hostname: ${hostname}`);
}

export function unknownPortError(hostname: string, port: number): ProxyError {
  const service = formatHostPort(hostname, port);
  return new ProxyError("no-route", `requested service ${service} found, but cannot resolve port`);
}

/** An application that is told whom the client calls can't be told an address. */
export function noServiceAddressError(hostname: string): ProxyError {
  return new ProxyError("no-route", `requested service ${hostname} found, but has no IP addresses`);
}
