/**
 * The application behind an inbound connection, dialled so that it sees the client's own address
 * where that is possible.
 *
 * @see spec data-path 1.5 and 4.6
 */
import type { Engine, NetnsFd, SocketEnd } from "../engine/engine.ts";
import { EngineError } from "../engine/engine-error.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import { applicationConnectError } from "./proxy-error.ts";
import type { ProxyOptions } from "./proxy-options.ts";

export class Application {
  readonly #engine: Engine;
  readonly #options: Pick<ProxyOptions, "mark" | "connectTimeoutMs" | "keepAlive"> & {
    readonly netns: NetnsFd | undefined;
  };

  constructor(
    engine: Engine,
    options: Pick<ProxyOptions, "mark" | "connectTimeoutMs" | "keepAlive"> & {
      readonly netns: NetnsFd | undefined;
    },
  ) {
    this.#engine = engine;
    this.#options = options;
  }

  /**
   * @param client its address becomes the source; `undefined` leaves that to the kernel.
   * @throws ProxyError `connect`
   */
  async connect(target: SocketAddress, client: IpAddress | undefined): Promise<SocketEnd> {
    const { netns, mark, connectTimeoutMs, keepAlive } = this.#options;
    try {
      return await this.#engine.connect({
        netns,
        remote: target,
        // A workload that calls itself would only collide with its own ports.
        source: client === target.ip ? undefined : client,
        mark,
        timeoutMs: connectTimeoutMs,
        keepAlive,
      });
    } catch (error) {
      if (error instanceof EngineError) throw applicationConnectError(error);
      throw error;
    }
  }
}
