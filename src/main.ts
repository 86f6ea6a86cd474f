#!/usr/bin/env node
/**
 * The command line: the only reader of argv and the environment, the only place that ends the
 * process. Each command loads its own code, so the daemon never carries the demo in its memory.
 */
import { existsSync, readFileSync } from "node:fs";
import { systemClock } from "./runtime/clock.ts";
import { errorText } from "./runtime/error-text.ts";
import { systemProblem } from "./runtime/system-problem.ts";

/** The mesh configuration that Istio's images mount, relative to the working directory. */
const MESH_CONFIG_PATH = "./etc/istio/config/mesh";

/** npm passes on what its whole job has got from the terminal or shell: so soon after, it is the same signal. */
const SAME_SIGNAL_MS = 100;

/** The data path uses what came with this version. */
const NODE_MAJOR_MIN = 26;

if (Number.parseInt(process.versions.node, 10) < NODE_MAJOR_MIN) {
  fail(
    `Node.js ${NODE_MAJOR_MIN} or newer is needed, this is ${process.versions.node}; npm run -s ztunnel -- brings its own`,
  );
}

// Node would open its debugger, to whom every process of the machine may speak: private keys are here.
process.on("SIGUSR1", () => undefined);

const words = process.argv.slice(2);
try {
  if (isPlainProxy(words)) await runProxy();
  else {
    const { runCommand } = await import("./commands.ts");
    const print = (line: string): void => console.log(line);
    await runCommand(words, { environment: process.env, print, fail, runProxy, runUntilSignal });
  }
} catch (error) {
  fail(error);
}

/** How images and the original's DaemonSet start the daemon: nothing to parse, nothing to wait for. */
function isPlainProxy([command = "proxy", role = "ztunnel", ...rest]: readonly string[]): boolean {
  return command === "proxy" && role === "ztunnel" && rest.length === 0;
}

async function runProxy(): Promise<void> {
  const [{ parseConfig }, { startDataThreads }] = await Promise.all([
    import("./config/config-parser.ts"),
    import("./dataplane/data-threads.ts"),
  ]);
  const config = parseConfig(process.env, readMeshConfig());
  const threads = startDataThreads(config.dataThreadCount);
  const { startApp } = await import("./app.ts");
  const app = await startApp(config, threads);
  onSignals(
    (signal) => app.shutDown(signal),
    // Whoever asks again does not want to wait for connections to end.
    () => void app.flushLog().then(() => process.exit(0)),
    // Nor for a reader of the log.
    () => process.exit(0),
  );
  process.exit(await app.ended);
}

/** @throws Error that names the file when it is there and can't be read. */
function readMeshConfig(): string | undefined {
  try {
    return existsSync(MESH_CONFIG_PATH) ? readFileSync(MESH_CONFIG_PATH, "utf8") : undefined;
  } catch (cause) {
    throw new Error(`can't read ${MESH_CONFIG_PATH}: ${systemProblem(cause)}`, { cause });
  }
}

/** Runs a command until it ends by itself or the first SIGINT or SIGTERM asks it to. */
async function runUntilSignal(command: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const abort = new AbortController();
  onSignals(
    () => abort.abort(),
    () => process.exit(130),
  );
  await command(abort.signal);
  process.exit(process.exitCode ?? 0);
}

/** @param steps for the first signal, the second, and so on; the last for all further ones. */
function onSignals(...steps: readonly ((signal: NodeJS.Signals) => void)[]): void {
  let count = 0;
  let last: NodeJS.Signals | null = null;
  let lastTime = 0;
  const take = (signal: NodeJS.Signals): void => {
    if (signal === last && systemClock.monotonic() - lastTime < SAME_SIGNAL_MS) return;
    steps[Math.min(count++, steps.length - 1)]?.(signal);
    last = signal;
    lastTime = systemClock.monotonic();
  };
  process.on("SIGTERM", take);
  process.on("SIGINT", take);
}

function fail(error: unknown): never {
  for (const line of errorText(error).split("\n")) console.error(`ztunnel: ${line}`);
  process.exit(1);
}
