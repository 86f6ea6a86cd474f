/**
 * The one shape of every figure, and its way out of a bench: a message to `run.ts` that started the
 * process, or a table when the file runs by itself.
 */

/** A figure with the spread of its samples. */
export interface Measure {
  /** A sentence with the size in it. */
  readonly name: string;
  /** What was measured, where several do the same work: `direct`, `ztunnel`, `HAProxy`, `Envoy`. */
  readonly system?: string;
  readonly unit: string;
  /** Median of the samples. */
  readonly value: number;
  readonly lowest: number;
  readonly highest: number;
  /** In the order they were taken, also those left out; the n-th of two systems are a pair. */
  readonly samples?: readonly Sample[];
  /** Whether samples were left out of the median, or would have been had others been left. */
  readonly isDisturbed?: boolean;
}

/** The system that the others are held against. */
export const OURS = "ztunnel";

/** A sample is disturbed when the hypervisor took more of the processor than this. */
export const STEAL_SHARE_MAX = 0.1;

export interface Sample {
  readonly value: number;
  /** Share of the processor that the hypervisor took meanwhile, 0 to 1. */
  readonly stealShare: number;
}

/** For shorter runs with rougher figures: `--quick`. */
export function isQuick(): boolean {
  return process.argv.includes("--quick");
}

/** Hands the figures out. Call once, at the end of a bench. */
export function report(measures: readonly Measure[]): void {
  if (process.send === undefined) console.log(formatMeasures(measures));
  else process.send(measures);
}

/** Gathers samples by figure. */
export class Samples {
  readonly #figures = new Map<string, { readonly of: Key; readonly samples: Sample[] }>();

  note(of: Key, sample: Sample): void {
    const key = JSON.stringify([of.name, of.system]);
    const figure = this.#figures.get(key) ?? { of, samples: [] };
    figure.samples.push(sample);
    this.#figures.set(key, figure);
  }

  /** In the order of their first samples. */
  measures(): readonly Measure[] {
    return [...this.#figures.values()].map(({ of, samples }) => summarize(of, samples));
  }
}

type Key = Pick<Measure, "name" | "unit" | "system">;

/** The median of the undisturbed samples; of all, if there are no others. */
function summarize(of: Key, samples: readonly Sample[]): Measure {
  const calm = samples.filter(isCalm);
  const counted = (calm.length > 0 ? calm : samples).map(({ value }) => value);
  return {
    ...of,
    value: median(counted),
    lowest: Math.min(...counted),
    highest: Math.max(...counted),
    samples,
    isDisturbed: calm.length < samples.length,
  };
}

/**
 * The median of the ratios of the pairs that were taken one after the other; of the undisturbed
 * pairs, if there are any. Steadier than a ratio of medians where a whole minute is slow.
 *
 * @returns undefined when it is not a number: nothing was spent.
 */
export function pairedRatio(of: Measure, to: Measure): number | undefined {
  const pairs = (of.samples ?? []).flatMap((sample, i) => {
    const other = to.samples?.[i];
    return other === undefined ? [] : [{ sample, other }];
  });
  const calm = pairs.filter(({ sample, other }) => isCalm(sample) && isCalm(other));
  const ratios = (calm.length > 0 ? calm : pairs)
    .map(({ sample, other }) => sample.value / other.value)
    .filter(Number.isFinite);
  const ratio = ratios.length > 0 ? median(ratios) : of.value / to.value;
  return Number.isFinite(ratio) ? ratio : undefined;
}

function isCalm({ stealShare }: Sample): boolean {
  return stealShare <= STEAL_SHARE_MAX;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

/** The measures of one bench. */
export interface BenchMeasures {
  /** Path below `bench/` without `.bench.ts`. */
  readonly bench: string;
  readonly measures: readonly Measure[];
}

/** The table of a single bench, see {@link formatBenches}. */
export function formatMeasures(measures: readonly Measure[]): string {
  return formatTable(headed([{ measures }]));
}

/**
 * One Markdown table: a line a name, a column a system, `median [lowest-highest]`; then what ours is
 * of each other system, pair by pair. What was measured of no system in particular is ours.
 */
export function formatBenches(benches: readonly BenchMeasures[]): string {
  return formatTable(headed(benches));
}

function headed(
  sections: readonly { readonly bench?: string; readonly measures: readonly Measure[] }[],
): string[][] {
  const named = sections.flatMap(({ measures }) => measures.flatMap(({ system }) => system ?? []));
  const systems = [...new Set(named.length === 0 ? [OURS] : named)];
  const others = systems.includes(OURS)
    ? systems.filter((system) => system !== OURS && system !== "direct")
    : [];
  const lines = sections.flatMap(({ bench, measures }) => {
    const rows = new Map<string, Map<string, Measure>>();
    for (const measure of measures) {
      const title = `${measure.name}, ${measure.unit}`;
      const row = rows.get(title) ?? new Map<string, Measure>();
      row.set(measure.system ?? OURS, measure);
      rows.set(title, row);
    }
    const blank = [...systems, ...others].map(() => "");
    return [
      ...(bench === undefined ? [] : [[`**${bench}**`, ...blank]]),
      ...[...rows].map(([title, row]) => [
        title,
        ...systems.map((system) => formatFigure(row.get(system))),
        ...others.map((system) => formatRatio(row.get(OURS), row.get(system))),
      ]),
    ];
  });
  return [["", ...systems, ...others.map((system) => `÷ ${system}`)], ...lines];
}

function formatRatio(of: Measure | undefined, to: Measure | undefined): string {
  if (of === undefined || to === undefined) return "";
  return pairedRatio(of, to)?.toFixed(2) ?? "";
}

/** Cells of equal width, the first line as the head; numbers to the right. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const lines = rows.map((row) => {
    const cells = row.map((cell, i) =>
      i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0),
    );
    return `| ${cells.join(" | ")} |`;
  });
  const rule = widths.map((width, i) =>
    i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`,
  );
  return [lines[0], `| ${rule.join(" | ")} |`, ...lines.slice(1)].join("\n");
}

function formatFigure(measure: Measure | undefined): string {
  if (measure === undefined) return "";
  const { value, lowest, highest, isDisturbed } = measure;
  const mark = isDisturbed === true ? "*" : "";
  if (lowest === highest) return `${formatNumber(value)}${mark}`;
  return `${formatNumber(value)} [${formatNumber(lowest)}-${formatNumber(highest)}]${mark}`;
}

/** Three digits. */
export function formatNumber(value: number): string {
  return String(Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(3)));
}
