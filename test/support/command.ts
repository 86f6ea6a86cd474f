/** Runs the built program to its end, as an operator does. */
import { spawn } from "node:child_process";
import { resolve } from "node:path";
import { text } from "node:stream/consumers";

const MAIN: string = resolve(import.meta.dirname, "../../dist/main.js");

export interface CommandOutcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  /** Lines without their line feeds. */
  readonly stderr: readonly string[];
}

export interface CommandOptions {
  readonly cwd: string;
  /** All variables that the program sees beside PATH. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Put before the program, such as `nsenter --net=…`. */
  readonly prefix?: readonly string[];
  /** Default: the one that runs the test. */
  readonly node?: string;
}

/** Killed when it does not end by itself in time. */
const MS_MAX = 60_000;

export async function runCommand(
  args: readonly string[],
  options: CommandOptions,
): Promise<CommandOutcome> {
  const { cwd, environment = {}, prefix = [], node = process.execPath } = options;
  const [command = node, ...rest] = [...prefix, node, MAIN, ...args];
  const child = spawn(command, rest, {
    cwd,
    env: { PATH: process.env["PATH"], ...environment },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: MS_MAX,
    killSignal: "SIGKILL",
  });
  const exited = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code));
  });
  const [exitCode, stdout, stderr] = await Promise.all([
    exited,
    text(child.stdout),
    text(child.stderr),
  ]);
  return { exitCode, stdout, stderr: stderr.split("\n").slice(0, -1) };
}
