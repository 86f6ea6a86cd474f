/** Options of sockets, in our words and in the kernel's numbers. */
import { systemCallError, systemCalls } from "./system-calls.ts";

/** Anything left out is left as the kernel has it. */
export interface SocketOptions {
  /** SO_MARK. */
  readonly mark?: number;
  readonly noDelay?: boolean;
  /** TCP_USER_TIMEOUT, milliseconds. */
  readonly userTimeoutMs?: number;
  readonly keepAlive?: boolean;
  readonly keepAliveIdleSeconds?: number;
  readonly keepAliveIntervalSeconds?: number;
  readonly keepAliveProbes?: number;
  readonly reusePort?: boolean;
  readonly reuseAddress?: boolean;
  /** IP_BIND_ADDRESS_NO_PORT: the port is chosen at connect, not at bind. */
  readonly bindAddressNoPort?: boolean;
  /** `ipv6` only: also take IPv4 (IPV6_V6ONLY off). */
  readonly dualStack?: boolean;
  /**
   * IP_TRANSPARENT, which the kernel keeps for both families: also binds to addresses that are not
   * this machine's. `try` never throws.
   */
  readonly transparent?: "required" | "try";
}

/** What the kernel calls an option of ours. */
interface KernelOption {
  readonly name: string;
  readonly level: number;
  readonly number: number;
  readonly type: "number" | "boolean";
  readonly capability?: string;
  /** The kernel's flag says the opposite. */
  readonly isOpposite?: boolean;
}

/** As Linux numbers them. */
const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_TCP = 6;
const SOL_IPV6 = 41;

/** In the order in which they are set. */
const OPTIONS: Readonly<Record<Exclude<keyof SocketOptions, "transparent">, KernelOption>> = {
  mark: {
    name: "SO_MARK",
    level: SOL_SOCKET,
    number: 36,
    type: "number",
    capability: "CAP_NET_ADMIN",
  },
  noDelay: { name: "TCP_NODELAY", level: SOL_TCP, number: 1, type: "boolean" },
  userTimeoutMs: { name: "TCP_USER_TIMEOUT", level: SOL_TCP, number: 18, type: "number" },
  keepAlive: { name: "SO_KEEPALIVE", level: SOL_SOCKET, number: 9, type: "boolean" },
  keepAliveIdleSeconds: { name: "TCP_KEEPIDLE", level: SOL_TCP, number: 4, type: "number" },
  keepAliveIntervalSeconds: { name: "TCP_KEEPINTVL", level: SOL_TCP, number: 5, type: "number" },
  keepAliveProbes: { name: "TCP_KEEPCNT", level: SOL_TCP, number: 6, type: "number" },
  reusePort: { name: "SO_REUSEPORT", level: SOL_SOCKET, number: 15, type: "boolean" },
  reuseAddress: { name: "SO_REUSEADDR", level: SOL_SOCKET, number: 2, type: "boolean" },
  bindAddressNoPort: {
    name: "IP_BIND_ADDRESS_NO_PORT",
    level: SOL_IP,
    number: 24,
    type: "boolean",
  },
  dualStack: {
    name: "IPV6_V6ONLY",
    level: SOL_IPV6,
    number: 26,
    type: "boolean",
    isOpposite: true,
  },
};
const TRANSPARENT: KernelOption = {
  name: "IP_TRANSPARENT",
  level: SOL_IP,
  number: 19,
  type: "boolean",
  capability: "CAP_NET_ADMIN or CAP_NET_RAW",
};
const QUEUE_MIGRATION: KernelOption = {
  name: "SO_ATTACH_REUSEPORT_EBPF",
  level: SOL_SOCKET,
  number: 52,
  type: "number",
};

const UINT32_MAX = 0xffff_ffff;

/** Options in the kernel's form, made once for any number of sockets. */
export class PreparedOptions {
  readonly #settings: readonly (readonly [option: KernelOption, value: number])[];
  /** All of them, for one call. */
  readonly #bytes: Uint8Array;
  readonly #transparent: SocketOptions["transparent"];

  /** @throws TypeError that names the option and what it must be. */
  constructor(options: SocketOptions) {
    const { transparent } = options;
    if (transparent !== undefined && transparent !== "required" && transparent !== "try") {
      throw new TypeError('transparent must be "required" or "try"');
    }
    const settings = Object.entries(OPTIONS).flatMap(([name, option]) => {
      const value = options[name as keyof typeof OPTIONS];
      return value === undefined ? [] : [[option, toNumber(name, value, option)] as const];
    });
    if (transparent === "required") settings.push([TRANSPARENT, 1]);
    this.#settings = settings;
    this.#bytes = toBytes(settings);
    this.#transparent = transparent;
  }

  /**
   * @returns whether IP_TRANSPARENT is set.
   * @throws an error of the system that names the first option which the kernel refuses.
   */
  apply(fd: number): boolean {
    if (systemCalls.setOptions(fd, this.#bytes) < 0) {
      for (const [option, value] of this.#settings) setOption(fd, option, value);
    }
    if (this.#transparent !== "try") return this.#transparent === "required";
    return systemCalls.setOptions(fd, toBytes([[TRANSPARENT, 1]])) >= 0;
  }
}

/**
 * Gives all listeners of a socket's port a program that tells who gets their connections.
 *
 * @param fd listens already, so that it is one of them.
 */
export function attachQueueMigration(fd: number, programFd: number): void {
  setOption(fd, QUEUE_MIGRATION, programFd);
}

function setOption(fd: number, option: KernelOption, value: number): void {
  const answer = systemCalls.setOptions(fd, toBytes([[option, value]]));
  if (answer >= 0) return;
  throw systemCallError(answer, {
    syscall: "setsockopt",
    detail: option.name,
    capability: option.capability,
  });
}

function toBytes(
  settings: readonly (readonly [option: KernelOption, value: number])[],
): Uint8Array {
  const words = settings.flatMap(([{ level, number }, value]) => [level, number, value]);
  return new Uint8Array(Int32Array.from(words).buffer);
}

function toNumber(name: string, value: unknown, { type, isOpposite }: KernelOption): number {
  if (type === "boolean") {
    if (typeof value !== "boolean") throw new TypeError(`${name} must be a boolean`);
    return Number(value !== (isOpposite ?? false));
  }
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= UINT32_MAX)
    return value as number;
  throw new TypeError(`${name} must be an integer from 0 to ${UINT32_MAX}`);
}
