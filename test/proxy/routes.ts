/** Outbound routes and inbound targets in one line of text. */
import assert from "node:assert/strict";
import type { IpAddress } from "../../src/mesh/ip-address.ts";
import { formatSocketAddress } from "../../src/mesh/socket-address.ts";
import type { Workload } from "../../src/mesh/workload.ts";
import type { InboundTarget } from "../../src/proxy/inbound-target.ts";
import { chooseOutboundRoute, type OutboundRoute } from "../../src/proxy/outbound-route.ts";
import type { MeshState } from "../../src/state/mesh-state.ts";
import { address, fixedRandom, ip } from "../support/mesh-fixture.ts";

export const ILLEGAL_PORTS: ReadonlySet<number> = new Set([15001, 15006, 15008]);

/** `kind remote [authority] -> workload of service [beyond it]`, or the error. */
export function describe(route: OutboundRoute): string {
  if (route.kind === "refuse") return route.error.message;
  if (route.kind === "unresolved") {
    const { hostname } = route.workload;
    return `IPv${route.family} of ${hostname}, then ${describe(route.at(ip("192.0.2.7")))}`;
  }
  const tunnel = route.kind === "hbone" ? ` for ${route.authority}` : "";
  const workload = route.workload === undefined ? "" : ` -> ${route.workload.name}`;
  const service = route.service === undefined ? "" : ` of ${route.service.name}`;
  const far = route.kind === "hbone" ? route.beyond?.workload : undefined;
  const beyond = far === undefined ? "" : `, then ${far.name}`;
  return `${route.kind} ${formatSocketAddress(route.remote)}${tunnel}${workload}${service}${beyond}`;
}

/** @param unit what the random choice draws. */
export function route(
  state: MeshState,
  source: Workload,
  target: string,
  unit = 0,
  downstream: IpAddress | undefined = source.ips[0],
): OutboundRoute {
  const query = {
    source,
    downstream: downstream ?? ip("10.0.0.1"),
    target: address(target),
    network: source.network,
    illegalPorts: ILLEGAL_PORTS,
  };
  const chosen = chooseOutboundRoute(state, query, fixedRandom(unit));
  assert.match(chosen.reason, /^[a-z].*[^.]$/);
  return chosen;
}

/** `address [announcing address] [of service]`, or `status error`. */
export function describeTarget(target: InboundTarget): string {
  if (target.kind === "refuse") return `${target.status} ${target.error.message}`;
  const service = target.service === undefined ? "" : ` of ${target.service.name}`;
  const { announced } = target;
  const header = announced === undefined ? "" : ` announcing ${formatSocketAddress(announced)}`;
  return `${formatSocketAddress(target.target)}${header}${service}`;
}
