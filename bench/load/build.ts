/** Compiles the load tools with the system's C compiler; those that are up to date take no time. */
import { execFileSync } from "node:child_process";
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";

const SOURCE = import.meta.dirname;
const OUTPUT = join(SOURCE, "../out/load");
const FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"];
const SHARED = ["tool.c", "tool.h"];

export type LoadTool =
  | "bulk"
  | "connect-rate"
  | "echo-server"
  | "idle"
  | "paced-connects"
  | "paced-echo"
  | "probe"
  | "round-trip";

/** @returns the path of the program. @throws with the compiler's words. */
export function buildLoadTool(tool: LoadTool): string {
  const program = join(OUTPUT, tool);
  const builtAt = modifiedAt(program);
  const inputs = [`${tool}.c`, ...SHARED].map((name) => join(SOURCE, name));
  if (builtAt !== undefined && inputs.every((path) => (modifiedAt(path) ?? 0) < builtAt)) {
    return program;
  }
  mkdirSync(OUTPUT, { recursive: true });
  const sources = inputs.filter((path) => path.endsWith(".c"));
  execFileSync("cc", [...FLAGS, ...sources, "-o", program], { stdio: "inherit" });
  return program;
}

function modifiedAt(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs;
}
