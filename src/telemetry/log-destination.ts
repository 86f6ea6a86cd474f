/**
 * The one descriptor that log lines go to, written behind the back of the event loop.
 *
 * Lines of a few milliseconds go out in one write. A reader that stalls does not stall the proxy:
 * beyond a bound, lines are dropped and counted. (The original blocks there.)
 */
import pino from "pino";
import type { Clock } from "../runtime/clock.ts";
import type { LogSink } from "./root-logger.ts";

/** Long enough to gather a burst in one write, short enough that nobody waits for a line. */
const GATHER_MS = 5;
/** A write at once beyond this, so that a flood does not wait for the timer. */
const GATHER_CHARACTERS_MAX = 65_536;

export interface LogDestinationOptions {
  /** Usually 1; others are closed when writing to them fails. */
  readonly fd: number;
  /** Unwritten bytes beyond which lines are dropped. */
  readonly bufferBytesMax: number;
}

export interface LogDestinationDeps {
  readonly clock: Clock;
  /** Called when lines flow again after some were dropped. */
  readonly dropped: (lineCount: number) => void;
}

export class LogDestination implements LogSink {
  readonly #clock: Clock;
  readonly #destination: ReturnType<typeof pino.destination>;
  readonly #flushed: (() => void)[] = [];
  #gathered = "";
  #gathering = false;
  /** Handed to the destination, not yet known to be written. */
  #writing = false;
  #broken = false;
  #droppedLineCount = 0;

  constructor({ clock, dropped }: LogDestinationDeps, options: LogDestinationOptions) {
    this.#clock = clock;
    this.#destination = pino.destination({
      fd: options.fd,
      sync: false,
      minLength: 0,
      maxLength: options.bufferBytesMax,
    });
    this.#destination.on("drop", (lines: string) => {
      this.#droppedLineCount += lines.split("\n").length - 1;
    });
    this.#destination.on("drain", () => {
      this.#writing = false;
      const droppedLineCount = this.#droppedLineCount;
      this.#droppedLineCount = 0;
      if (droppedLineCount > 0) dropped(droppedLineCount);
      this.#settle();
    });
    // There is nowhere to tell it: the output itself is gone. Without destroying it, pino would try
    // for ever at the exit of the process to write the rest.
    this.#destination.on("error", () => {
      if (!this.#broken) this.#destination.destroy();
      this.#broken = true;
      this.#settle();
    });
  }

  write(lines: string): void {
    if (this.#broken) return;
    this.#gathered += lines;
    if (this.#gathered.length > GATHER_CHARACTERS_MAX) {
      this.#release();
    } else if (!this.#gathering) {
      this.#gathering = true;
      this.#clock.after(GATHER_MS, () => this.#release(), true);
    }
  }

  /**
   * Settles when everything has been written, also when the output broke. Await it before the
   * process ends: what pino writes by itself at exit may come before what is still on its way.
   */
  flush(): Promise<void> {
    this.#release();
    if (!this.#writing || this.#broken) return Promise.resolve();
    return new Promise((resolve) => this.#flushed.push(resolve));
  }

  #release(): void {
    this.#gathering = false;
    if (this.#gathered === "" || this.#broken) return;
    const lines = this.#gathered;
    this.#gathered = "";
    this.#writing = true;
    this.#destination.write(lines);
  }

  #settle(): void {
    for (const resolve of this.#flushed.splice(0)) resolve();
  }
}
