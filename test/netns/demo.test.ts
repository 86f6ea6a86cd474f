import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { requireNetns } from "../support/netns-lab.ts";

const skip = requireNetns("iptables", "unshare", "setpriv");
const MAIN = join(import.meta.dirname, "../../src/main.ts");

/** One run of the demo whose processes are known by a variable in their environment. */
class DemoRun {
  readonly #mark = `ZTUNNEL_TEST_RUN=${randomUUID()}`;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown[]>;
  readonly output: Promise<string>;

  constructor(t: TestContext, ...options: string[]) {
    const [name, value] = this.#mark.split("=") as [string, string];
    this.#child = spawn(process.execPath, [MAIN, "demo", ...options], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, [name]: value },
    });
    this.#exited = once(this.#child, "exit");
    const { stdout } = this.#child;
    assert.ok(stdout !== null);
    this.output = text(stdout);
    t.after(() => this.#child.kill("SIGKILL"));
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async exitCode(): Promise<number | null> {
    return (await this.#exited)[0] as number | null;
  }

  /** Command lines of what still runs, waiting a moment for what is about to end. */
  async leftovers(): Promise<string[]> {
    for (let i = 0; i < 100 && this.#running().length > 0; i++) await delay(50);
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

test("the demo is as it should be and leaves no process", { skip }, async (t) => {
  const run = new DemoRun(t);
  const output = await run.output;
  assert.equal(await run.exitCode(), 0, output);
  for (const part of [
    /client {4}POST http:\/\/\S+ → 200 hello 10\.77\.0\.11, you said swordfish-/,
    /intruder {2}POST http:\/\/\S+ → refused: /,
    /256 MiB to \S+ → [\d.]+ s/,
    /10\.77\.0\.11:\d+ → 10\.77\.0\.21:15008 .* encrypted \(17 03 03\)/,
    /in 0 on the wire/,
    /Access log of node-b\n {2}.*src\.workload="client"/,
    /istio_tcp_connections_opened_total +client → server +\+1\n/,
    /All as it should be\./,
  ]) {
    assert.match(output, part);
  }
  assert.deepEqual(await run.leftovers(), []);
});

for (const signal of ["SIGINT", "SIGKILL"] as const) {
  for (const afterMs of [300, 1_200, 2_500]) {
    test(`the demo ended by ${signal} after ${afterMs} ms leaves no process`, {
      skip,
    }, async (t) => {
      const run = new DemoRun(t, "--keep");
      await delay(afterMs);
      run.kill(signal);
      await run.exitCode();
      assert.deepEqual(await run.leftovers(), []);
    });
  }
}
