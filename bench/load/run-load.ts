/** Runs load tools inside the namespaces of lab hosts. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import type { LabHost } from "../../test/support/netns-lab.ts";
import { buildLoadTool, type LoadTool } from "./build.ts";

/** What a load tool prints at its end. */
export type LoadResult = Readonly<Record<string, number>>;

/**
 * Runs a tool to its end.
 *
 * @throws with its words when it noticed a wrong byte or an error.
 */
export function runLoad(
  host: LabHost,
  tool: LoadTool,
  ...args: readonly (string | number)[]
): Promise<LoadResult> {
  return new Promise((resolve, reject) => {
    execFile("nsenter", command(host, tool, args), (error, stdout, stderr) => {
      if (error === null) resolve(JSON.parse(stdout));
      else reject(new Error(`${tool} on ${host.netns}: ${stderr}`, { cause: error }));
    });
  });
}

/** A tool that runs until it is told to stop. */
export interface RunningLoad {
  /** Kills it. @throws when it had ended before by itself. */
  stop(): Promise<void>;
}

/**
 * Starts a load that is longer than anybody needs, beside which others are measured: it
 * gets the processor only when nobody else wants it.
 */
export function startLoad(
  host: LabHost,
  tool: LoadTool,
  ...args: readonly (string | number)[]
): RunningLoad {
  const child = spawn("nice", ["-n", "19", "nsenter", ...command(host, tool, args)], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const ended = once(child, "exit");
  return {
    async stop() {
      if (child.exitCode !== null) throw new Error(`${tool} on ${host.netns} ended by itself`);
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** Round trips on connections that are open already. */
export interface GatedRoundTrips {
  /** Goes round and round for the time that it was made for; the connections stay open. */
  run(): Promise<LoadResult>;
  /** Closes the connections. */
  release(): Promise<void>;
}

/** Opens connections for round trips; settles when each has made one. */
export async function openRoundTrips(
  host: LabHost,
  load: { readonly bytes: number; readonly connections: number; readonly durationMs: number },
  server: { readonly ip: string; readonly port: number },
): Promise<GatedRoundTrips> {
  const { bytes, connections, durationMs } = load;
  const args = [bytes, connections, durationMs, server.ip, server.port, "gates"];
  const child = spawn("nsenter", command(host, "round-trip", args), {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  await firstWords(child);
  return {
    async run() {
      const told = once(child.stdout, "data");
      child.stdin.write("\n");
      const failed = ended.then(() => {
        throw new Error(`the round trips of ${host.netns} ended early`);
      });
      failed.catch(() => {});
      const [line] = (await Promise.race([told, failed])) as [Buffer];
      return JSON.parse(line.toString());
    },
    async release() {
      child.stdin.end();
      await ended;
    },
  };
}

/** Idle connections that are open. */
export interface HeldConnections {
  /** Checks each with one more byte, then closes them. @throws when one was lost. */
  release(): Promise<void>;
}

/** Opens connections on which nothing moves; settles when each has carried a byte. */
export async function holdConnections(
  host: LabHost,
  count: number,
  server: { readonly ip: string; readonly port: number },
): Promise<HeldConnections> {
  const child = spawn("nsenter", command(host, "idle", [count, server.ip, server.port]), {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  await firstWords(child);
  return {
    async release() {
      child.stdin.end();
      const [status] = await ended;
      if (status !== 0) throw new Error(`idle connections of ${host.netns} did not last`);
    },
  };
}

/** Settles with the first output. @throws when the process ends before. */
export async function firstWords(child: ChildProcess): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once("data", () => resolve());
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${child.spawnargs.join(" ")}: ended, ${code}`)));
  });
}

function command(host: LabHost, tool: LoadTool, args: readonly (string | number)[]): string[] {
  return [`--net=${host.path}`, "--", buildLoadTool(tool), ...args.map(String)];
}
