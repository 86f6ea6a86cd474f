/**
 * Tells of outgoing tunnels that did not end in order. Each connection that broke with one has its
 * own line in the access log; here is one for the peer, however many tunnels led to it. A tunnel that
 * nobody used was merely idle, and of one with a single connection that one's line tells all, unless
 * it was a ping: these are no warnings.
 */
import type { EngineError } from "../engine/engine-error.ts";
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { Logger, LogValue } from "../telemetry/logger.ts";

/** As long as the tunnels of one peer that vanishes take to notice it: one ping of each. */
const SAME_LOSS_MS = 10_000;

/** Of one peer, after the line about the first. */
interface Further {
  tunnels: number;
  connections: number;
  readonly timer: Timer;
}

export class TunnelLosses {
  readonly #log: Logger;
  readonly #clock: Clock;
  /** By peer. */
  readonly #further = new Map<string, Further>();

  constructor({ log, clock }: { readonly log: Logger; readonly clock: Clock }) {
    this.#log = log.target("ztunnel::proxy::h2::client");
    this.#clock = clock;
  }

  /** The words for pings are the original's, which calls every other end an error of a handshake. */
  report(remote: SocketAddress, error: EngineError, connections: number): void {
    const peer = formatSocketAddress(remote);
    const message =
      error.code === "ping-timeout" ? "HBONE ping timeout/error" : `tunnel ended: ${error.message}`;
    const further = this.#further.get(peer);
    const isWorthIt = connections > (error.code === "ping-timeout" ? 0 : 1);
    if (isWorthIt && further === undefined) {
      const timer = this.#clock.after(SAME_LOSS_MS, () => this.#reportFurther(peer));
      this.#further.set(peer, { tunnels: 0, connections: 0, timer });
      this.#log.write("warn", message, fields(peer, connections));
      return;
    }
    if (isWorthIt && further !== undefined) {
      further.tunnels++;
      further.connections += connections;
    }
    this.#log.write("debug", message, fields(peer, connections));
  }

  /** Idempotent. */
  close(): void {
    for (const [peer, { timer }] of this.#further) {
      timer.cancel();
      this.#reportFurther(peer);
    }
  }

  #reportFurther(peer: string): void {
    const { tunnels = 0, connections = 0 } = this.#further.get(peer) ?? {};
    this.#further.delete(peer);
    if (tunnels === 0) return;
    const what = tunnels === 1 ? "another tunnel" : `${tunnels} other tunnels`;
    this.#log.write("warn", `${what} ended like the one before`, fields(peer, connections));
  }
}

function fields(peer: string, connections: number): [string, LogValue][] {
  return [
    ["peer", { bare: peer }],
    ["connections", connections],
  ];
}
