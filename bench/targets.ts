/**
 * What the daemon has to reach, as ratios of neighbouring samples or as figures. Nothing is rounded
 * towards a target.
 */
import {
  type BenchMeasures,
  formatNumber,
  formatTable,
  type Measure,
  OURS,
  pairedRatio,
} from "./measure.ts";

/** Names one figure. */
export interface FigureKey {
  readonly bench: string;
  readonly name: string;
  readonly unit: string;
  readonly system: string;
}

export interface Target {
  readonly what: string;
  /** The worst of them counts: both nodes have to reach it. */
  readonly figures: readonly FigureKey[];
  /** The figure is divided by this one. */
  readonly per?: FigureKey;
  readonly bound: { readonly atMost: number } | { readonly atLeast: number };
  readonly stretch?: number;
}

/** A target and how this run stands to it. */
export interface Judgement {
  readonly what: string;
  /** `≤ 0.7 (0.62)` */
  readonly bound: string;
  /** Absent when the figure or its peer was not measured. */
  readonly value?: number;
  readonly verdict: "met" | "stretch met" | "not met" | "not measured";
}

const BULK_FLOWS = ["up", "down", "both ways"].flatMap((direction) =>
  ["1 connection", "8 connections"].map((count) => `${direction} on ${count}`),
);
const MESSAGE_SIZES = ["100 B", "1024 B"];

/** In the order in which they are shown. */
const TARGETS: readonly Target[] = [
  ...BULK_FLOWS.map((flow) =>
    versus("Envoy", `bulk ${flow}: CPU`, bulk(`${flow}, both proxies`, "CPU s/GB"), {
      bound: { atMost: 0.7 },
      stretch: 0.62,
    }),
  ),
  ...BULK_FLOWS.map((flow) =>
    versus("Envoy", `bulk ${flow}: Gbit/s`, bulk(flow, "Gbit/s"), { bound: { atLeast: 1.2 } }),
  ),
  ...["up", "down"].map((direction) => ({
    what: `plain passthrough ${direction}: CPU ÷ Envoy's of the tunnel`,
    figures: [bulk(`${direction} past the mesh on 1 connection, client's proxy`, "CPU s/GB")],
    per: {
      ...bulk(`${direction} on 1 connection, both proxies`, "CPU s/GB"),
      system: "Envoy",
    },
    bound: { atMost: 0.3 },
  })),
  ...MESSAGE_SIZES.flatMap((size) => [
    versus(
      "HAProxy",
      `echo of ${size}, 1 connection: CPU`,
      echo(`${size} on 1 connection, both proxies`, "CPU µs each"),
      { bound: { atMost: 1 } },
    ),
    versus(
      "HAProxy",
      `echo of ${size}, 1 connection: p50`,
      echo(`${size} on 1 connection, p50`, "µs"),
      {
        bound: { atMost: 1 },
      },
    ),
  ]),
  ...MESSAGE_SIZES.map((size) =>
    versus(
      "Envoy",
      `echo of ${size}, 64 connections: CPU`,
      echo(`${size} on 64 connections, both proxies`, "CPU µs each"),
      { bound: { atMost: 0.7 }, stretch: 0.5 },
    ),
  ),
  ...["800 connections one by one", "1600 connections 32 at a time"].map((flow) =>
    versus(
      "Envoy",
      `${flow}: CPU`,
      ours("path/connect-rate", `${flow}, both proxies`, "CPU s per 1,000"),
      { bound: { atMost: 0.6 }, stretch: 0.4 },
    ),
  ),
  {
    what: "new connections a second for 5 minutes",
    figures: [ours("path/soak", "1200 connects/s for 300 s, done", "1/s")],
    bound: { atLeast: 1195 },
  },
  {
    what: "memory after these 5 minutes ÷ after 1",
    figures: nodes("path/soak", "resident after 300 s, to that after 60 s", "ratio"),
    bound: { atMost: 1.05 },
  },
  {
    what: "descriptors left over after these 5 minutes",
    figures: nodes("path/soak", "descriptors left over after 300 s", "count"),
    bound: { atMost: 0 },
  },
  {
    what: "memory at the start, default workers, MB",
    figures: nodes("path/memory", "resident after the start", "MB"),
    bound: { atMost: 75 },
  },
  {
    what: "memory of an idle connection, at 10,000, KB",
    figures: nodes("path/memory", "resident per idle connection (of 10000)", "KB"),
    bound: { atMost: 4 },
  },
  ...[1, 3].map((burst) => ({
    what: `memory 60 s after burst ${burst} of 10,000 ÷ at the start`,
    figures: nodes("path/memory", `resident 60 s after burst ${burst}, to the start`, "ratio"),
    bound: { atMost: 1.2 },
  })),
  {
    what: "start to ready with 4 pods, ms",
    figures: [ours("path/footprint", "start to ready with 4 pods", "ms")],
    bound: { atMost: 300 },
  },
  ...["up", "down"].flatMap((direction) =>
    ["connect", "echo"].map((kind) => ({
      what: `${kind} p99 beside bulk ${direction} ÷ (2 x alone + 1 ms)`,
      figures: [
        ours(
          "path/fairness",
          `${kind} p99, beside bulk ${direction}, share of 2 x alone + 1 ms`,
          "ratio",
        ),
      ],
      bound: { atMost: 1 },
    })),
  ),
  {
    what: "event-loop delay p99.9 at 4,000 messages/s, ms",
    figures: nodes(
      "path/tail",
      "event-loop delay of a data thread at 4000 messages/s, p99.9",
      "ms",
    ),
    bound: { atMost: 5 },
  },
  ...["scrape", "config dump", "push of 20000 workloads"].map((disturbance) => ({
    what: `a ${disturbance} adds to echo p99, ms`,
    figures: [
      ours("path/tail", `echo at 4000/s on 64 connections with a ${disturbance}, p99 added`, "ms"),
    ],
    bound: { atMost: 5 },
  })),
];

/** Every target, with what this run says about it. */
export function judge(
  benches: readonly BenchMeasures[],
  targets: readonly Target[] = TARGETS,
): readonly Judgement[] {
  return targets.map((target) => {
    const { what, bound, stretch } = target;
    const sign = "atMost" in bound ? "≤" : "≥";
    const limit = "atMost" in bound ? bound.atMost : bound.atLeast;
    const told = `${sign} ${limit}${stretch === undefined ? "" : ` (${stretch})`}`;
    const value = figureOf(benches, target);
    if (value === undefined) return { what, bound: told, verdict: "not measured" };
    const reaches = (wanted: number): boolean =>
      "atMost" in bound ? value <= wanted : value >= wanted;
    const verdict = !reaches(limit)
      ? "not met"
      : stretch !== undefined && reaches(stretch)
        ? "stretch met"
        : "met";
    return { what, bound: told, value, verdict };
  });
}

/** A Markdown table, a line a target. */
export function formatJudgements(judgements: readonly Judgement[]): string {
  return formatTable([
    ["target", "bound (stretch)", "this run", ""],
    ...judgements.map(({ what, bound, value, verdict }) => [
      what,
      bound,
      value === undefined ? "" : formatNumber(value),
      verdict,
    ]),
  ]);
}

function figureOf(
  benches: readonly BenchMeasures[],
  { figures, per, bound }: Target,
): number | undefined {
  const divisor = per === undefined ? undefined : find(benches, per);
  const values = figures.map((key) => {
    const figure = find(benches, key);
    if (figure === undefined || per === undefined) return figure?.value;
    return divisor === undefined ? undefined : pairedRatio(figure, divisor);
  });
  const known = values.filter((value) => value !== undefined);
  if (known.length < values.length) return undefined;
  return "atMost" in bound ? Math.max(...known) : Math.min(...known);
}

function find(benches: readonly BenchMeasures[], key: FigureKey): Measure | undefined {
  return benches
    .find(({ bench }) => bench === key.bench)
    ?.measures.find(
      ({ name, unit, system }) => name === key.name && unit === key.unit && system === key.system,
    );
}

function versus(
  system: string,
  what: string,
  figure: FigureKey,
  goal: Pick<Target, "bound" | "stretch">,
): Target {
  return { what: `${what} ÷ ${system}'s`, figures: [figure], per: { ...figure, system }, ...goal };
}

function bulk(flow: string, unit: string): FigureKey {
  return ours("path/bulk", flow, unit);
}

function echo(name: string, unit: string): FigureKey {
  return ours("path/round-trip", name, unit);
}

/** The same figure of the client's daemon and of the server's. */
function nodes(bench: string, name: string, unit: string): readonly FigureKey[] {
  return ["client", "server"].map((side) => ours(bench, `${name}, ${side}'s proxy`, unit));
}

function ours(bench: string, name: string, unit: string): FigureKey {
  return { bench, name, unit, system: OURS };
}
