/** Words of the engine port in the words of the addon. */
import { parseIpAddress } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { NativeAddress, NativeSocketOptions } from "../net/native.ts";
import { invariant } from "../runtime/invariant.ts";
import type { KeepAliveOptions } from "./engine.ts";

type ConnectionOptions = Pick<
  NativeSocketOptions,
  | "noDelay"
  | "keepAlive"
  | "keepAliveIdleSeconds"
  | "keepAliveIntervalSeconds"
  | "keepAliveProbes"
  | "userTimeoutMs"
>;

/** Options that every connection gets; those of a listener are inherited by what it accepts. */
export function connectionOptions(keepAlive: KeepAliveOptions | undefined): ConnectionOptions {
  if (keepAlive === undefined) return { noDelay: true };
  return {
    noDelay: true,
    keepAlive: true,
    keepAliveIdleSeconds: toSeconds(keepAlive.idleMs),
    keepAliveIntervalSeconds: toSeconds(keepAlive.intervalMs),
    keepAliveProbes: keepAlive.probes,
    ...(keepAlive.userTimeoutMs === undefined ? {} : { userTimeoutMs: keepAlive.userTimeoutMs }),
  };
}

export function toSocketAddress(address: NativeAddress): SocketAddress {
  const ip = parseIpAddress(address.ip);
  invariant(ip !== undefined, `the kernel named an address that is none: ${address.ip}`);
  return { ip, port: address.port };
}

/** The kernel refuses zero. */
function toSeconds(durationMs: number): number {
  return Math.max(1, Math.round(durationMs / 1000));
}
