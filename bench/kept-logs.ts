/**
 * What proxies say while a bench runs: kept in files, thrown away when it went well. When it failed,
 * what they complained of last is told, because the words of a load tool are those of one end only.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { describeLosses, networkLosses } from "./network-losses.ts";

const LOGS = join(import.meta.dirname, "out/logs");
/** Of each file. */
const COMPLAINTS_MAX = 20;
/** Failed connections are errors in both formats; the last is the lab's, of a process that ended. */
const COMPLAINT = /^[^\t]*\t(?:error|warn)\t|"level":"(?:error|warn)"|^--- /;

/** One for all stages of a process. */
let folder: string | undefined;

/** @returns a folder for `NAME.log`, empty at the first call of a process. */
export function keepLogs(): string {
  if (folder !== undefined) return folder;
  const bench = relative(import.meta.dirname, process.argv[1] ?? "bench");
  const made = join(LOGS, bench.replace(/(\.bench)?\.ts$/, "").replaceAll(/[^\w-]+/g, "-"));
  rmSync(made, { recursive: true, force: true });
  mkdirSync(made, { recursive: true });
  const before = networkLosses();
  const tell = (): void => {
    const losses = describeLosses(before, networkLosses());
    process.stderr.write(`\n${complaintsIn(made)}${losses}\n`);
  };
  process.once("exit", (status) => {
    if (status === 0) rmSync(made, { recursive: true, force: true });
    else tell();
  });
  // Whoever runs the benches ends one that takes too long.
  process.prependOnceListener("SIGTERM", (signal) => {
    tell();
    process.kill(process.pid, signal);
  });
  folder = made;
  return made;
}

/** @returns the last complaints of each file and where all lines are, ending with a newline. */
export function complaintsIn(logs: string): string {
  const parts = readdirSync(logs, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => {
      const lines = readFileSync(join(logs, name), "utf8").split("\n");
      const complaints = lines.filter((line) => COMPLAINT.test(line));
      const last = complaints.slice(-COMPLAINTS_MAX);
      const head = `${name}: ${complaints.length} complaints in ${lines.length - 1} lines`;
      return [
        `${head}${last.length < complaints.length ? `, the last ${last.length}:` : ""}`,
        ...last,
      ];
    });
  return `${[...parts.sort().flat(), `all lines are in ${logs}`].join("\n")}\n`;
}
