/**
 * Ends relays of which one side has ended its direction and in which nothing moves any more. Whoever
 * ended it may have left for good, while the other side says nothing, or reads nothing, and so never
 * learns of it: without a limit their sockets would stay in CLOSE_WAIT for ever.
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
  /** Ends it; leads to {@link HalfClosedRelays.delete}. */
  expire(error: EngineError): void;
}

interface Seen {
  readonly movedBytes: number;
  /** Since when it has been half-closed and has moved nothing, monotonic milliseconds. */
  readonly quietSince: number;
}

export class HalfClosedRelays {
  readonly #clock: Clock;
  readonly #idleMs: number;
  /** All relays; with what was seen of those that are half-closed. */
  readonly #relays = new Map<QuietRelay, Seen | undefined>();
  #timer: Timer | undefined;

  /** @param idleMs half-closed ones that move nothing for so long, and up to a quarter longer. */
  constructor(clock: Clock, idleMs: number) {
    this.#clock = clock;
    this.#idleMs = idleMs;
  }

  add(relay: QuietRelay): void {
    this.#relays.set(relay, undefined);
    this.#timer ??= this.#clock.after(this.#idleMs / LOOKS, this.#look);
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
    const now = this.#clock.monotonic();
    for (const [relay, seen] of this.#relays) {
      if (!relay.isHalfClosed) continue;
      const { movedBytes } = relay;
      if (movedBytes !== seen?.movedBytes) this.#relays.set(relay, { movedBytes, quietSince: now });
      else if (now - seen.quietSince >= this.#idleMs) relay.expire(this.#expired());
    }
    this.#timer =
      this.#relays.size === 0 ? undefined : this.#clock.after(this.#idleMs / LOOKS, this.#look);
  };

  #expired(): EngineError {
    return new EngineError("half-closed", `half-closed and idle for ${this.#idleMs / 1000}s`);
  }
}
