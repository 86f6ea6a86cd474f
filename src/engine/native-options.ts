/** Words of the engine port in the words of the addon. */
import type { SocketOptions } from "../net/socket-options.ts";
import type { KeepAliveOptions } from "./engine.ts";

/** Options that every connection gets; those of a listener are inherited by what it accepts. */
export function connectionOptions(keepAlive: KeepAliveOptions | undefined): SocketOptions {
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

/** The kernel refuses zero. */
function toSeconds(durationMs: number): number {
  return Math.max(1, Math.round(durationMs / 1000));
}
