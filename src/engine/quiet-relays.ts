/**
 * Ends relays in which nothing moves for too long. Two kinds: those of which one side has ended its
 * direction, and any. Whoever ended a direction may have left for good, while the other side says
 * nothing, or reads nothing, and so never learns of it: without a limit their sockets would stay in
 * CLOSE_WAIT for ever.
 *
 * No relay has a timer, and no byte costs anything: all are looked at now and then.
 */
import type { Clock, Timer } from "../runtime/clock.ts";
import { EngineError } from "./engine-error.ts";

/** How many times within the limit they are looked at. */
const LOOKS = 8;

/** A relay as it is looked after here. */
export interface QuietRelay {
  /** A side has ended its direction, whether or not all that it said has been read. */
  readonly isHalfClosed: boolean;
  /** Grows whenever a byte was passed on. */
  readonly movedBytes: number;
  /** Ends it; leads to {@link QuietRelays.delete}. */
  expire(error: EngineError): void;
}

export interface QuietLimit {
  /** Which relays it is for; the code of the error that ends them. */
  readonly kind: "half-closed" | "idle";
  /** Those that move nothing for so long are ended, and up to a quarter later. Milliseconds. */
  readonly quietMs: number;
}

interface Seen {
  readonly movedBytes: number;
  /** Since when it has been of its kind and has moved nothing, monotonic milliseconds. */
  readonly quietSince: number;
}

export class QuietRelays {
  readonly #clock: Clock;
  readonly #limit: QuietLimit;
  /** All relays; with what was seen of those that the limit is for. */
  readonly #relays = new Map<QuietRelay, Seen | undefined>();
  #timer: Timer | undefined;

  constructor(clock: Clock, limit: QuietLimit) {
    this.#clock = clock;
    this.#limit = limit;
  }

  add(relay: QuietRelay): void {
    this.#relays.set(relay, undefined);
    this.#timer ??= this.#lookLater();
  }

  /** Call when it has ended. */
  delete(relay: QuietRelay): void {
    this.#relays.delete(relay);
  }

  /** Idempotent. */
  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#relays.clear();
  }

  readonly #look = (): void => {
    const { kind, quietMs } = this.#limit;
    const now = this.#clock.monotonic();
    for (const [relay, seen] of this.#relays) {
      if (kind === "half-closed" && !relay.isHalfClosed) continue;
      const { movedBytes } = relay;
      if (movedBytes !== seen?.movedBytes) this.#relays.set(relay, { movedBytes, quietSince: now });
      else if (now - seen.quietSince >= quietMs) relay.expire(this.#expired());
    }
    this.#timer = this.#relays.size === 0 ? undefined : this.#lookLater();
  };

  #lookLater(): Timer {
    return this.#clock.after(this.#limit.quietMs / LOOKS, this.#look);
  }

  #expired(): EngineError {
    const { kind, quietMs } = this.#limit;
    const what = kind === "half-closed" ? "half-closed and idle" : "idle";
    return new EngineError(kind, `${what} for ${quietMs / 1000}s`);
  }
}
