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

/** Of a sockaddr of {@link ADDRESS_BYTES} in the arena; `undefined` when it is none. */
export function addressAt(arena: Uint8Array, offset: number): SocketAddress | undefined {
  const family = arena[offset] as number;
  if (family === 0) return undefined;
  invariant(family === AF_INET || family === AF_INET6, `${family} is an address family of TCP`);
  const port = ((arena[offset + 2] as number) << 8) | (arena[offset + 3] as number);
  const isMapped = MAPPED_PREFIX.every((byte, i) => arena[offset + 8 + i] === byte);
  const [start, length] = family === AF_INET ? [4, 4] : isMapped ? [20, 4] : [8, 16];
  const ip = ipAddressFromBytes(arena.subarray(offset + start, offset + start + length));
  invariant(ip !== undefined, `an address of ${length} bytes is one`);
  return { ip, port };
}

/** As Linux numbers them. */
const AF_INET = 2;
const AF_INET6 = 10;

/** Of an IPv4 address in IPv6. */
const MAPPED_PREFIX: readonly number[] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/** The kernel refuses zero. */
function toSeconds(durationMs: number): number {
  return Math.max(1, Math.round(durationMs / 1000));
}
