import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import type { TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

/** What is run. */
export const MAIN: string = join(import.meta.dirname, "../../dist/main.js");
/** What a busy machine needs to end everything. */
const ENDING_MS_MAX = 30_000;

/** One run of the built demo whose processes are known by a variable in their environment. */
export class DemoRun {
  readonly #mark = `ZTUNNEL_TEST_RUN=${randomUUID()}`;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown[]>;
  /** All of it, once the run has ended. */
  readonly output: Promise<string>;
  #printed = "";

  /** @param through a command that runs another, before the demo's own. */
  constructor(
    t: TestContext,
    options: readonly string[] = [],
    through: readonly string[] = ["env"],
  ) {
    const [name, value] = this.#mark.split("=") as [string, string];
    const [program = "", ...args] = [...through, process.execPath, MAIN, "demo", ...options];
    this.#child = spawn(program, args, {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, [name]: value },
    });
    this.#exited = once(this.#child, "exit");
    const { stdout } = this.#child;
    assert.ok(stdout !== null);
    this.output = text(stdout);
    stdout.on("data", (chunk: Buffer | string) => {
      this.#printed += chunk;
    });
    t.after(() => this.#child.kill("SIGKILL"));
  }

  /** Waits for the line that contains a text. @throws when the run ends before. */
  async line(part: string): Promise<string> {
    for (;;) {
      const found = this.#printed.split("\n").find((line) => line.includes(part));
      if (found !== undefined) return found.trim();
      assert.equal(this.#child.exitCode, null, `the demo ended:\n${this.#printed}`);
      await delay(50);
    }
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async exitCode(): Promise<number | null> {
    return (await this.#exited)[0] as number | null;
  }

  /** Command lines of what still runs, waiting a moment for what is about to end. */
  async leftovers(): Promise<string[]> {
    const until = performance.now() + ENDING_MS_MAX;
    while (this.#running().length > 0 && performance.now() < until) await delay(50);
    return this.#running();
  }

  #running(): string[] {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .flatMap((pid) => {
        try {
          const isOurs = readFileSync(`/proc/${pid}/environ`, "latin1").includes(this.#mark);
          return isOurs
            ? [readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ")]
            : [];
        } catch {
          // Ended meanwhile.
          return [];
        }
      });
  }
}
