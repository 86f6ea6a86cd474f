/**
 * The application behind an inbound connection, dialled so that it sees the client's own address
 * where that is possible.
 *
 * @see spec data-path 1.5 and 4.6
 */
import type { Engine, NetnsFd, SocketEnd } from "../engine/engine.ts";
import { EngineError } from "../engine/engine-error.ts";
import { type IpAddress, ipFamily } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import { applicationConnectError } from "./engine-failure.ts";
import type { ProxyOptions } from "./proxy-options.ts";

export interface ApplicationOptions
  extends Pick<ProxyOptions, "mark" | "connectTimeoutMs" | "keepAlive" | "localhostTunnel"> {
  readonly netns: NetnsFd | undefined;
}

const LOOPBACK = { 4: "127.0.0.1" as IpAddress, 6: "::1" as IpAddress } as const;

export class Application {
  readonly #engine: Engine;
  readonly #options: ApplicationOptions;

  constructor(engine: Engine, options: ApplicationOptions) {
    this.#engine = engine;
    this.#options = options;
  }

  /**
   * @param client its address becomes the source; `undefined` leaves that to the kernel.
   * @throws ProxyError `connect`
   */
  connect(target: SocketAddress, client: IpAddress | undefined): Promise<SocketEnd> {
    // A workload that calls itself would only collide with its own ports.
    return this.#connect(target, client === target.ip ? undefined : client);
  }

  /**
   * To one that is told who calls whom: on its loopback, if not configured otherwise, where nobody
   * else can tell it anything.
   *
   * @param header of the PROXY protocol.
   * @throws ProxyError `connect`
   */
  async connectTunnel(
    target: SocketAddress,
    client: IpAddress | undefined,
    header: Uint8Array,
  ): Promise<SocketEnd> {
    const end = this.#options.localhostTunnel
      ? await this.#connect({ ip: LOOPBACK[ipFamily(target.ip)], port: target.port }, undefined)
      : await this.connect(target, client);
    end.writeFirst(header);
    return end;
  }

  #connect(remote: SocketAddress, source: IpAddress | undefined): Promise<SocketEnd> {
    const { netns, mark, connectTimeoutMs, keepAlive } = this.#options;
    const options = { netns, remote, source, mark, timeoutMs: connectTimeoutMs, keepAlive };
    return this.#engine.connect(options).catch(rethrow);
  }
}

function rethrow(error: unknown): never {
  throw error instanceof EngineError ? applicationConnectError(error) : error;
}
