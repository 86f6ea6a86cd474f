/**
 * The log of a data thread: finished lines, sent to the main thread a few milliseconds' worth at a
 * time. The main thread owns the one descriptor that they are written to.
 */
import type { Clock, Timer } from "../runtime/clock.ts";
import type { LogSink } from "../telemetry/root-logger.ts";

/**
 * Long enough that waking the main thread does not count, short enough that nobody waits for a line.
 */
const FLUSH_AFTER_MS = 50;
/** Sent at once beyond this, so that a flood of lines does not pile up here. */
const PENDING_CHARACTERS_MAX = 65_536;

export class ThreadLogSink implements LogSink {
  readonly #clock: Clock;
  readonly #send: (text: string) => void;
  #pending = "";
  #timer: Timer | undefined;

  constructor(clock: Clock, send: (text: string) => void) {
    this.#clock = clock;
    this.#send = send;
  }

  write(line: string): void {
    this.#pending += line;
    if (this.#pending.length > PENDING_CHARACTERS_MAX) this.flush();
    else this.#timer ??= this.#clock.after(FLUSH_AFTER_MS, () => this.flush(), true);
  }

  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#pending === "") return;
    this.#send(this.#pending);
    this.#pending = "";
  }
}
