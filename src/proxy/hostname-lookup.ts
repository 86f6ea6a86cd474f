/**
 * The last step of a route to a workload that is known by its host name only: ask for the host's
 * addresses and take one.
 *
 * @see spec data-path 2.7.
 */
import { ipFamily } from "../mesh/ip-address.ts";
import type { Workload } from "../mesh/workload.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Random } from "../runtime/random.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { ResolvedRoute, UnresolvedRoute } from "./outbound-route.ts";
import type { ProxyError } from "./proxy-error.ts";
import type { ProxyDeps } from "./proxy-options.ts";
import { emptyHostnameError, unknownHostError } from "./route-error.ts";
import { lookupLabels, type TrafficMetrics } from "./traffic-metrics.ts";

export interface HostnameLookupDeps extends Pick<ProxyDeps, "addressesOf"> {
  readonly traffic: TrafficMetrics;
  readonly log: Logger;
  readonly random: Random;
}

/** Counts one lookup, also when the answer is known already. Never rejects. */
export async function resolveRoute(
  { addressesOf, traffic, log, random }: HostnameLookupDeps,
  source: Workload,
  route: UnresolvedRoute,
): Promise<ResolvedRoute> {
  const { workload, family } = route;
  const { hostname } = workload;
  const refuse = (error: ProxyError, reason: string): ResolvedRoute => {
    return { kind: "refuse", error, reason };
  };
  traffic.hostnameLookedUp(lookupLabels(source, hostname));
  try {
    const ips = await addressesOf(hostname);
    const near = ips.filter((ip) => ipFamily(ip) === family);
    const usable = near.length > 0 ? near : ips;
    const ip = usable[Math.floor(random.unit() * usable.length)];
    return ip === undefined
      ? refuse(emptyHostnameError(workload), `${hostname} has no address`)
      : route.at(ip);
  } catch (error) {
    log.write("warn", "dns lookup failed", [
      ["err", errorText(error)],
      ["hostname", { bare: hostname }],
    ]);
    return refuse(unknownHostError(workload), `looking up ${hostname} failed`);
  }
}
