/** Asks a tunnel's peer now and then whether it is still there. */
import type { Clock, Timer } from "../runtime/clock.ts";
import type { TunnelSettings } from "./engine.ts";

export interface PingWatchDeps {
  readonly clock: Clock;
  /** Asks. */
  readonly ping: () => void;
  /** Nobody answered in time. Once. */
  readonly unanswered: () => void;
}

export class PingWatch {
  readonly #deps: PingWatchDeps;
  readonly #settings: Pick<TunnelSettings, "pingIntervalMs" | "pingTimeoutMs">;
  #timer: Timer;

  /** The first question is asked after the interval. */
  constructor(
    deps: PingWatchDeps,
    settings: Pick<TunnelSettings, "pingIntervalMs" | "pingTimeoutMs">,
  ) {
    this.#deps = deps;
    this.#settings = settings;
    this.#timer = this.#askLater();
  }

  /** The peer is there; the next question comes after the interval. */
  answered(): void {
    this.#timer.cancel();
    this.#timer = this.#askLater();
  }

  /** Idempotent. */
  stop(): void {
    this.#timer.cancel();
  }

  #askLater(): Timer {
    const { clock, ping, unanswered } = this.#deps;
    return clock.after(this.#settings.pingIntervalMs, () => {
      ping();
      this.#timer = clock.after(this.#settings.pingTimeoutMs, unanswered);
    });
  }
}
