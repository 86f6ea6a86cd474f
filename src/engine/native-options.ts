/** Words of the engine port in the words of the addon. */
import { ipAddressFromBytes, parseIpAddress } from "../mesh/ip-address.ts";
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

/** Of {@link ADDRESS_BYTES} bytes in the arena; `undefined` when it is none. */
export function addressAt(arena: Uint8Array, offset: number): SocketAddress | undefined {
  const length = arena[offset] as number;
  if (length === 0) return undefined;
  const port = ((arena[offset + 2] as number) << 8) | (arena[offset + 3] as number);
  const ip = ipAddressFromBytes(arena.subarray(offset + 4, offset + 4 + length));
  invariant(ip !== undefined, `an address of ${length} bytes is one`);
  return { ip, port };
}

/** The kernel refuses zero. */
function toSeconds(durationMs: number): number {
  return Math.max(1, Math.round(durationMs / 1000));
}
