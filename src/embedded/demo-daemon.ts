/** One of our own commands as a child process on a node, with its log lines kept. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { systemClock } from "../runtime/clock.ts";
import type { DemoPlace } from "./demo-network.ts";

/** Longer than any of them takes to drain by default. */
const STOP_MS_MAX = 8_000;

/** Lines kept for the report and for error messages. */
const LINES_MAX = 10_000;

export class DemoDaemon {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #ended: Promise<unknown>;

  /**
   * Starts it at once. It dies with this process.
   *
   * @param command arguments of `ztunnel`.
   */
  constructor(
    name: string,
    place: DemoPlace,
    command: readonly string[],
    environment: Readonly<Record<string, string | undefined>>,
  ) {
    this.name = name;
    const main = join(import.meta.dirname, "..", `main${extname(import.meta.filename)}`);
    this.#child = spawn(
      "setpriv",
      [
        ...["--pdeathsig", "KILL", "--", "nsenter", "--net=/proc/self/fd/3", "--"],
        ...[process.execPath, main, ...command],
      ],
      { stdio: ["ignore", "pipe", "pipe", place.netns.fd], env: environment },
    );
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on("line", (line) => {
        this.#lines.push(line);
        if (this.#lines.length > LINES_MAX) this.#lines.shift();
      });
    }
    this.#ended = once(this.#child, "exit");
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Everything it has said, oldest first. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** @throws Error with its last words when it has ended. */
  requireRunning(): void {
    if (this.#child.exitCode === null && this.#child.signalCode === null) return;
    const words = this.#lines.slice(-10).join("\n  ");
    throw new Error(`${this.name} ended unexpectedly:\n  ${words}`);
  }

  /** SIGTERM, then patience, then SIGKILL. Idempotent. */
  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGTERM");
    const timer = systemClock.after(STOP_MS_MAX, () => void this.#child.kill("SIGKILL"));
    await this.#ended;
    timer.cancel();
  }
}
