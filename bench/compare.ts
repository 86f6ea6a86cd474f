/**
 * `npm run bench:compare -- OLD.json NEW.json`: two files that `run.ts` wrote, side by side.
 * Differences beyond ±5 % carry an arrow; whether they are an improvement is for the reader.
 */
import { readFileSync } from "node:fs";
import { formatTable, type Measure } from "./measure.ts";

/** Runs on one calm machine differ by about this much. */
const NOISE_SHARE = 0.05;

const [oldFile, newFile] = process.argv.slice(2);
if (oldFile === undefined || newFile === undefined) {
  throw new Error("usage: npm run bench:compare -- OLD.json NEW.json");
}
const old = readMeasures(oldFile);
const rows = [...readMeasures(newFile)].map(([title, { value }]) => {
  const before = old.get(title)?.value;
  return [title, format(before), format(value), before === undefined ? "" : change(before, value)];
});
console.log(formatTable([["", "old", "new", "new / old"], ...rows]));

function readMeasures(file: string): ReadonlyMap<string, Measure> {
  const { benches } = JSON.parse(readFileSync(file, "utf8")) as {
    benches: readonly { bench: string; measures: readonly Measure[] }[];
  };
  return new Map(
    benches.flatMap(({ bench, measures }) =>
      measures.map((measure) => {
        const { name, system, unit } = measure;
        const subject = system === undefined ? bench : `${bench}, ${system}`;
        return [`${subject}: ${name}, ${unit}`, measure] as const;
      }),
    ),
  );
}

function format(value: number | undefined): string {
  return value === undefined ? "" : String(Number(value.toPrecision(3)));
}

function change(before: number, after: number): string {
  const ratio = after / before;
  const arrow = ratio > 1 + NOISE_SHARE ? " ↑" : ratio < 1 - NOISE_SHARE ? " ↓" : "";
  return `${ratio.toFixed(2)}${arrow}`;
}
