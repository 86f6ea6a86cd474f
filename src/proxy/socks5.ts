/**
 * 15080, on loopback: applications that say themselves where they want to go. What follows is an
 * outbound connection like any other.
 *
 * @see spec data-path 9
 */
import type { SocketEnd } from "../engine/engine.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { LiveSet } from "./live-set.ts";
import type { Outbound } from "./outbound.ts";
import type { ProxiedConnection } from "./proxied-connection.ts";
import { ProxyError } from "./proxy-error.ts";
import { type FindAddress, Socks5Error, shakeHands } from "./socks5-handshake.ts";

export interface Socks5Deps {
  /** Of its own: tunnels are not shared with captured connections. */
  readonly outbound: Outbound;
  /** For host names; `undefined` where no DNS is served. */
  readonly findAddress: FindAddress | undefined;
  /** With the span of the workload's proxy. */
  readonly log: Logger;
  readonly clock: Clock;
}

export class Socks5 {
  readonly #outbound: Outbound;
  readonly #findAddress: FindAddress | undefined;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #timeoutMs: number;

  /** @param options.timeoutMs a client that has not said where it wants to go by then is let go. */
  constructor(deps: Socks5Deps, options: { readonly timeoutMs: number }) {
    this.#outbound = deps.outbound;
    this.#findAddress = deps.findAddress;
    this.#log = deps.log.target("ztunnel::proxy::socks5");
    this.#clock = deps.clock;
    this.#timeoutMs = options.timeoutMs;
  }

  get live(): LiveSet<ProxiedConnection> {
    return this.#outbound.live;
  }

  /** Takes the end. */
  accept(end: SocketEnd): void {
    this.#outbound.acceptAsking(end, {
      ask: () => this.#ask(end),
      refused: ({ message }) => this.#log.write("error", `handshake error: ${message}`),
    });
  }

  /** Connections go on; pooled tunnels end with their last. Idempotent. */
  drain(): void {
    this.#outbound.drain();
  }

  /** Closes pooled tunnels; call when no connection is left. */
  close(): void {
    this.#outbound.close();
  }

  async #ask(end: SocketEnd): Promise<SocketAddress | ProxyError> {
    let isLate = false;
    const timer = this.#clock.after(this.#timeoutMs, () => {
      isLate = true;
      end.close();
    });
    try {
      return await shakeHands(end, this.#findAddress);
    } catch (error) {
      if (!(error instanceof Socks5Error)) throw error;
      return new ProxyError("bad-request", isLate ? "deadline has elapsed" : error.message, error);
    } finally {
      timer.cancel();
    }
  }
}
