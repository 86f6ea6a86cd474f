/**
 * `npm run bench:compare -- OLD.json NEW.json`: two runs side by side, first what the targets name
 * (ratios within a run are steadier than figures), then every figure. Differences beyond ±5 % carry
 * an arrow; whether they are an improvement is for the reader.
 */
import { orGiveUp } from "./give-up.ts";
import { type BenchMeasures, formatNumber, formatTable } from "./measure.ts";
import { readRun } from "./results.ts";
import { judge } from "./targets.ts";

/** Runs on one calm machine differ by about this much. */
const NOISE_SHARE = 0.05;

/** @returns a Markdown table. */
export function compareRuns(
  before: readonly BenchMeasures[],
  after: readonly BenchMeasures[],
): string {
  const old = figures(before);
  const rows = [...figures(after)].map(([title, value]) => {
    const was = old.get(title);
    return [title, format(was), formatNumber(value), was === undefined ? "" : change(was, value)];
  });
  return formatTable([["", "old", "new", "new / old"], ...rows]);
}

function figures(benches: readonly BenchMeasures[]): ReadonlyMap<string, number> {
  const judged = judge(benches).flatMap(({ what, value }) =>
    value === undefined ? [] : [[`target: ${what}`, value] as const],
  );
  const measured = benches.flatMap(({ bench, measures }) =>
    measures.map(({ name, system, unit, value }) => {
      const subject = system === undefined ? bench : `${bench}, ${system}`;
      return [`${subject}: ${name}, ${unit}`, value] as const;
    }),
  );
  return new Map([...judged, ...measured]);
}

function format(value: number | undefined): string {
  return value === undefined ? "" : formatNumber(value);
}

function change(before: number, after: number): string {
  const ratio = after / before;
  const arrow = ratio > 1 + NOISE_SHARE ? " ↑" : ratio < 1 - NOISE_SHARE ? " ↓" : "";
  return `${ratio.toFixed(2)}${arrow}`;
}

if (import.meta.main) {
  const [before, after] = orGiveUp(() => {
    const [oldFile, newFile] = process.argv.slice(2);
    if (oldFile === undefined || newFile === undefined) {
      throw new Error("usage: npm run bench:compare -- OLD.json NEW.json");
    }
    return [readRun(oldFile), readRun(newFile)];
  });
  console.log(compareRuns(before.benches, after.benches));
}
