/**
 * What a run leaves behind: `bench.json`, and drawn from it one table and the charts. By itself
 * (`npm run bench:render`) it draws those of `bench/results/` anew.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Chart, COMPARISON, drawChart, SCALING } from "./chart.ts";
import { type Machine, missingPeers } from "./machine.ts";
import { type BenchMeasures, formatBenches, STEAL_SHARE_MAX } from "./measure.ts";
import type { NodeCommands } from "./options.ts";
import { formatJudgements, judge } from "./targets.ts";

/** Holds what the last whole run measured. */
export const RESULTS_FOLDER: string = join(import.meta.dirname, "results");

export interface BenchRun {
  /** ISO 8601. */
  readonly startedAt: string;
  readonly seconds: number;
  readonly isQuick: boolean;
  readonly machine: Machine;
  /** What stood on the nodes of `other`. */
  readonly nodeCommands: NodeCommands;
  readonly benches: readonly BenchMeasures[];
  /** Benches that ended with an error, each with its words. */
  readonly failures: readonly string[];
}

/** @throws Error that names the file when it is not there or holds no run. */
export function readRun(file: string): BenchRun {
  try {
    const run = JSON.parse(readFileSync(file, "utf8")) as BenchRun | null;
    if (!Array.isArray(run?.benches)) throw new Error("no run of npm run bench");
    return run;
  } catch (error) {
    throw new Error(`${file}: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
}

/** Writes `bench.json`, `table.md`, `chart.svg` and `scaling.svg`. */
export function writeRun(folder: string, run: BenchRun): void {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, "bench.json");
  writeFileSync(file, formatRun(run));
  render(folder, readRun(file));
}

/** JSON with a line a measure and figures of five digits. */
export function formatRun(run: BenchRun): string {
  const text = JSON.stringify(run, (_key, value: unknown) =>
    typeof value === "number" ? Number(value.toPrecision(5)) : value,
  );
  return `${text.replaceAll('{"name":', '\n{"name":')}\n`;
}

/** The page around the one table. */
export function formatResults(run: BenchRun): string {
  const missing = missingPeers(run.machine);
  const commands = Object.entries(run.nodeCommands);
  return [
    "# Results",
    `${[
      `${describeRun(run)}, took ${Math.ceil(run.seconds / 60)} minutes.`,
      ...missing.map((peer) => `Missing: ${peer}.`),
      ...commands.map(([node, command]) => `Node ${node} of \`other\`: \`${command}\`.`),
      ...run.failures.map((failure) => `Failed: ${failure}.`),
    ].join("\n")}`,
    explanation(),
    "![systems side by side](chart.svg)\n\n![ours with more and more to do](scaling.svg)",
    "## Targets",
    formatJudgements(judge(run.benches)),
    "## Figures",
    `${formatBenches(run.benches)}\n`,
  ].join("\n\n");
}

/** A chart of the run with its head. */
export function renderChart(chart: Chart, run: BenchRun): string {
  return drawChart(
    chart,
    run.benches,
    `${summarize(run)}: medians, and lines from lowest to highest`,
  );
}

/** How the figures of every table are made. */
export function explanation(): string {
  return (
    "Medians [lowest-highest]; ÷: ztunnel's share of it, the median of the ratios of neighbouring samples; " +
    `*: the hypervisor took over ${STEAL_SHARE_MAX * 100} % during a sample, which is left out if others remain.`
  );
}

/** One line: when, on what, beside what. */
export function describeRun(run: BenchRun): string {
  const { kernel, openssl, memoryGb, loadAverage } = run.machine;
  return [
    summarize(run),
    `OpenSSL ${openssl}`,
    `${memoryGb} GB`,
    kernel,
    `load average before ${loadAverage.toFixed(2)}`,
  ].join(", ");
}

function summarize({ startedAt, isQuick, machine }: BenchRun): string {
  const { processor, coreCount, node, haproxy, envoy } = machine;
  return [
    `${startedAt.slice(0, 16).replace("T", " ")} UTC${isQuick ? ", --quick" : ""}`,
    `${coreCount} x ${processor}`,
    `Node ${node}`,
    ...[haproxy, envoy].filter((peer) => peer !== undefined),
  ].join(", ");
}

function render(folder: string, run: BenchRun): void {
  writeFileSync(join(folder, "table.md"), formatResults(run));
  writeFileSync(join(folder, "chart.svg"), renderChart(COMPARISON, run));
  writeFileSync(join(folder, "scaling.svg"), renderChart(SCALING, run));
}

if (import.meta.main) render(RESULTS_FOLDER, readRun(join(RESULTS_FOLDER, "bench.json")));
