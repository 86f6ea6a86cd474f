/**
 * Sockets for outgoing connections. Those of one kind have the same options, which are put into the
 * kernel's form once and not for each.
 */
import { ipFamily } from "../mesh/ip-address.ts";
import type { Native } from "../net/native.ts";
import { PreparedOptions } from "../net/socket-options.ts";
import type { ConnectOptions, KeepAliveOptions } from "./engine.ts";
import { connectionOptions } from "./native-options.ts";

/** By where they leave from: an address of their own, a client's, or a client's with a port that we choose. */
type Kind = "own" | "spoofed" | "spoofed-port";

/** Options as they were last asked for: mark and keep-alive are the same for all connections of a daemon. */
interface Prepared {
  readonly mark: number | undefined;
  readonly keepAlive: KeepAliveOptions | undefined;
  readonly options: PreparedOptions;
}

export class UnconnectedSockets {
  readonly #native: Pick<Native, "preparedSocket">;
  readonly #prepared = new Map<Kind, Prepared>();

  constructor(native: Pick<Native, "preparedSocket">) {
    this.#native = native;
  }

  /**
   * @param connect a spoofed source decides the address family.
   * @param sourcePort with a spoofed source; 0 leaves the choice to the kernel.
   * @returns a descriptor, the caller's.
   * @throws what the system says.
   */
  make(connect: ConnectOptions, sourcePort: number): number {
    const { netns, source, remote, mark, keepAlive } = connect;
    const place = {
      ...(netns === undefined ? {} : { netnsFd: netns.fd }),
      family: ipFamily(source ?? remote.ip) === 6 ? "ipv6" : "ipv4",
      type: "stream",
      ...(source === undefined ? {} : { bind: { ip: source, port: sourcePort } }),
    } as const;
    const kind = source === undefined ? "own" : sourcePort === 0 ? "spoofed" : "spoofed-port";
    return this.#native.preparedSocket(place, this.#options(kind, mark, keepAlive));
  }

  #options(
    kind: Kind,
    mark: number | undefined,
    keepAlive: KeepAliveOptions | undefined,
  ): PreparedOptions {
    const last = this.#prepared.get(kind);
    if (last !== undefined && last.mark === mark && last.keepAlive === keepAlive) {
      return last.options;
    }
    const options = prepare(kind, mark, keepAlive);
    this.#prepared.set(kind, { mark, keepAlive, options });
    return options;
  }
}

function prepare(
  kind: Kind,
  mark: number | undefined,
  keepAlive: KeepAliveOptions | undefined,
): PreparedOptions {
  return new PreparedOptions({
    ...(mark === undefined ? {} : { mark }),
    ...connectionOptions(keepAlive),
    // TIME_WAITs of the port to other destinations do not matter.
    ...(kind === "own" ? {} : { transparent: "required", reuseAddress: true }),
    // Without it the kernel searches a free port among the TIME_WAITs of every bind.
    ...(kind === "spoofed" ? { bindAddressNoPort: true } : {}),
  });
}
