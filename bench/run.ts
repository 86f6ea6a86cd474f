/**
 * `npm run bench [-- NAME…] [--quick]`: every `*.bench.ts` whose path contains one of the names
 * (without a name all but `soak`, which takes minutes), each in a process of its own for a fresh heap and fresh machine code. Prints the tables and writes
 * `bench/out/bench.json`.
 */
import { fork } from "node:child_process";
import { globSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeMachine } from "./machine.ts";
import { formatMeasures, isQuick, type Measure, STEAL_SHARE_MAX } from "./measure.ts";

const FOLDER = import.meta.dirname;
/** Takes so long that it runs only when it is named. */
const ON_REQUEST = "path/soak.bench.ts";

const names = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
const files = globSync("**/*.bench.ts", { cwd: FOLDER })
  .filter((file) =>
    names.length === 0 ? file !== ON_REQUEST : names.some((name) => file.includes(name)),
  )
  .sort();
if (files.length === 0) throw new Error(`no bench is named ${names.join(" or ")}`);

const machine = describeMachine();
console.log(
  Object.entries(machine)
    .map(([key, value]) => `${key} ${value}`)
    .join(", "),
);
console.log(
  `figures are medians [lowest-highest]; *: the hypervisor took over ${STEAL_SHARE_MAX * 100} % during ` +
    "a sample, which is left out if others remain",
);

const startedAt = new Date().toISOString();
const benches: { readonly bench: string; readonly measures: readonly Measure[] }[] = [];
for (const file of files) {
  const bench = file.replace(/\.bench\.ts$/, "");
  console.log(`\n## ${bench}`);
  try {
    const measures = await runBench(file);
    benches.push({ bench, measures });
    console.log(measures.length === 0 ? "nothing measured" : formatMeasures(measures));
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
const output = join(FOLDER, "out", "bench.json");
mkdirSync(join(FOLDER, "out"), { recursive: true });
writeFileSync(
  output,
  `${JSON.stringify({ startedAt, isQuick: isQuick(), machine, benches }, null, 2)}\n`,
);
console.log(`\nwritten to ${output}`);

/** Settles when the process has ended. @throws when it failed or reported nothing. */
function runBench(file: string): Promise<readonly Measure[]> {
  return new Promise((resolve, reject) => {
    const child = fork(join(FOLDER, file), isQuick() ? ["--quick"] : []);
    let measures: readonly Measure[] | undefined;
    child.on("message", (message) => {
      measures = message as readonly Measure[];
    });
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      if (code === 0 && measures !== undefined) resolve(measures);
      else reject(new Error(`${file} ended with ${code ?? signal}`));
    });
  });
}
