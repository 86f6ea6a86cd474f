/**
 * `npm run bench [-- NAME…] [--quick] [--soak] [--node-a CMD] [--node-b CMD]`: every `*.bench.ts`
 * whose path contains one of the names (without a name all but churn and torture, the soak only with
 * `--soak`), each in a process of its own for a fresh heap and fresh machine code. Prints the tables and how the run stands
 * to the targets. A whole run of our own nodes is written to `bench/results/`, any other to
 * `bench/out/`.
 */
import { fork } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";
import { orGiveUp } from "./give-up.ts";
import { describeMachine, missingPeers } from "./machine.ts";
import { type BenchMeasures, formatMeasures, type Measure } from "./measure.ts";
import { BENCH_USAGE, type BenchOptions, benchArguments, parseBenchOptions } from "./options.ts";
import { type BenchRun, describeRun, explanation, RESULTS_FOLDER, writeRun } from "./results.ts";
import { formatJudgements, judge } from "./targets.ts";

const FOLDER = import.meta.dirname;
const SOAK = "path/soak.bench.ts";
/** These look for faults and measure nothing that a target names: they run when they are named. */
const NAMED_ONLY: readonly string[] = ["path/churn.bench.ts", "path/torture.bench.ts"];
/** Longer than any bench takes; a stage removes what it made when it is told to end. */
const BENCH_MS_MAX = 2_400_000;

const options = orGiveUp(() => parseBenchOptions(process.argv.slice(2)));
const { names, isQuick, nodeCommands } = options;
if (options.wantsHelp) {
  const all = allBenches().map((file) => `  ${benchName(file)}`);
  console.log([BENCH_USAGE, "", ...all].join("\n"));
  process.exit();
}
const files = orGiveUp(() => chooseBenches(options));

const machine = describeMachine();
const startedAt = new Date();
const benches: BenchMeasures[] = [];
const failures: string[] = [];
const run = (): BenchRun => ({
  startedAt: startedAt.toISOString(),
  seconds: (Date.now() - startedAt.getTime()) / 1000,
  isQuick,
  machine,
  nodeCommands,
  benches,
  failures,
});
console.log(`${describeRun(run())}\n${explanation()}`);
for (const peer of missingPeers(machine)) console.log(`missing: ${peer}`);

for (const file of files) {
  const bench = benchName(file);
  const benchStartedAt = Date.now();
  try {
    const measures = await runBench(file, options);
    benches.push({ bench, measures });
    console.log(`\n## ${bench}, ${Math.round((Date.now() - benchStartedAt) / 1000)} s`);
    console.log(measures.length === 0 ? "nothing measured" : formatMeasures(measures));
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error);
    failures.push(words);
    console.error(`\n## ${bench}\n${words}`);
    process.exitCode = 1;
  }
}
const isOther = nodeCommands.a !== undefined || nodeCommands.b !== undefined;
const isWhole = names.length === 0 && !isQuick && !isOther;
const output = isWhole ? RESULTS_FOLDER : join(FOLDER, "out");
writeRun(output, run());
const judged = judge(benches).filter(({ verdict }) => isWhole || verdict !== "not measured");
if (judged.length > 0) console.log(`\n## targets\n${formatJudgements(judged)}`);
console.log(`\nwritten to ${output}: bench.json, table.md, chart.svg, scaling.svg`);

function allBenches(): string[] {
  return globSync("**/*.bench.ts", { cwd: FOLDER }).sort();
}

function benchName(file: string): string {
  return file.replace(/\.bench\.ts$/, "");
}

/** @throws Error when a name is that of no bench. */
function chooseBenches({ names: wanted, withSoak }: BenchOptions): readonly string[] {
  const all = allBenches();
  if (wanted.length === 0)
    return all.filter((file) => !NAMED_ONLY.includes(file) && (withSoak || file !== SOAK));
  const unknown = wanted.filter((name) => !all.some((file) => file.includes(name)));
  if (unknown.length > 0) throw new Error(`no bench is named ${unknown.join(" or ")}`);
  return all.filter((file) => wanted.some((name) => file.includes(name)));
}

/** Settles when the process has ended. @throws when it failed, took too long or reported nothing. */
function runBench(file: string, benchOptions: BenchOptions): Promise<readonly Measure[]> {
  return new Promise((resolve, reject) => {
    const child = fork(join(FOLDER, file), benchArguments(benchOptions), { timeout: BENCH_MS_MAX });
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
