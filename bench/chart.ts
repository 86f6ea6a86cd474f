/** Bar charts as one SVG, drawn from measures; readable on a light and on a dark page. */
import { type BenchMeasures, formatNumber, type Measure } from "./measure.ts";

/** One group of bars with a scale of its own. */
export interface Panel {
  readonly title: string;
  readonly bench: string;
  readonly unit: string;
  /** Chooses measures by name; its first group is what stands before their bars. */
  readonly rows: RegExp;
}

export interface Chart {
  readonly title: string;
  readonly panels: readonly Panel[];
}

/** Systems side by side. */
export const COMPARISON: Chart = {
  title: "Between two pods: nothing, ztunnel and other proxies",
  panels: [
    {
      title: "Bulk, Gbit/s (more is better)",
      bench: "path/bulk",
      unit: "Gbit/s",
      rows: /^([^,]+)$/,
    },
    {
      title: "Bulk, CPU s/GB of all proxies on the way (less is better)",
      bench: "path/bulk",
      unit: "CPU s/GB",
      rows: /^([^,]+(?=, both proxies$)|[^,]+ past the mesh [^,]+)/,
    },
    {
      title: "Echo, median round trip in µs (less is better)",
      bench: "path/round-trip",
      unit: "µs",
      rows: /^([^,]+ on 1 connection), p50$/,
    },
    {
      title: "Echo among many, CPU µs a message (less is better)",
      bench: "path/round-trip",
      unit: "CPU µs each",
      rows: /^([^,]+ on 64 connections), both proxies$/,
    },
    {
      title: "Connections a second (more is better)",
      bench: "path/connect-rate",
      unit: "1/s",
      rows: /^\d+ connections ([^,]+)$/,
    },
    {
      title: "Connections, CPU s per 1,000 (less is better)",
      bench: "path/connect-rate",
      unit: "CPU s per 1,000",
      rows: /^\d+ connections ([^,]+), both proxies$/,
    },
    {
      title: "Memory of the client's proxy, MB (less is better)",
      bench: "path/footprint",
      unit: "MB",
      rows: /^resident memory (after the start|per 1,000 idle connections).*, client's proxy$/,
    },
  ],
};

/** Ours under more and more of the same; flat is good. */
export const SCALING: Chart = {
  title:
    "ztunnel with more connections and more pods: the client's proxy, and below it the server's",
  panels: [
    {
      title: "Bytes on more connections, CPU s/GB",
      bench: "path/scaling",
      unit: "CPU s/GB",
      rows: /^messages of 16 KiB (on [^,]+), /,
    },
    {
      title: "Bytes among more pods, CPU s/GB",
      bench: "path/scaling",
      unit: "CPU s/GB",
      rows: /^messages of 16 KiB (among [^,]+), /,
    },
    {
      title: "New connections, more at a time, CPU s per 1,000",
      bench: "path/scaling",
      unit: "CPU s per 1,000",
      rows: /^new connections (\d+ at a time), /,
    },
    {
      title: "New connections among more pods, CPU s per 1,000",
      bench: "path/scaling",
      unit: "CPU s per 1,000",
      rows: /^new connections (among [^,]+), /,
    },
  ],
};

/** On a light page, on a dark one. */
const COLOURS: Readonly<Record<string, readonly [string, string]>> = {
  direct: ["#8b929b", "#8b949e"],
  ztunnel: ["#1f6feb", "#58a6ff"],
  other: ["#1a7f37", "#3fb950"],
  HAProxy: ["#bf8700", "#d29922"],
  Envoy: ["#a0359c", "#db61a2"],
};

const COLUMN_WIDTH = 540;
const MARGIN = 20;
const LABEL_WIDTH = 230;
const VALUE_WIDTH = 60;
const BAR_HEIGHT = 12;
const BAR_STEP = 14;
const ROW_GAP = 10;
const TITLE_HEIGHT = 30;
const HEAD_HEIGHT = 78;

/**
 * @param subtitle a line below the title: when, on what machine.
 * @returns the text of an SVG file; panels of which nothing was measured are left out.
 */
export function drawChart(
  chart: Chart,
  benches: readonly BenchMeasures[],
  subtitle: string,
): string {
  const panels = chart.panels
    .map((panel) => ({
      title: panel.title,
      rows: rowsOf(panel, benches),
    }))
    .filter(({ rows }) => rows.length > 0);
  const bottoms = [HEAD_HEIGHT, HEAD_HEIGHT];
  const bodies = panels.map(({ title, rows }) => {
    // Where it ends highest.
    const column = (bottoms[0] ?? 0) <= (bottoms[1] ?? 0) ? 0 : 1;
    const top = bottoms[column] ?? 0;
    const drawn = drawPanel(title, rows, { left: MARGIN + column * COLUMN_WIDTH, top });
    bottoms[column] = drawn.bottom + MARGIN;
    return drawn.text;
  });
  const systems = Object.keys(COLOURS).filter((system) =>
    panels.some(({ rows }) => rows.some(({ bars }) => bars.some((bar) => bar.system === system))),
  );
  const width = 2 * COLUMN_WIDTH + MARGIN;
  const height = Math.max(...bottoms);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="bench results">`,
    style(),
    `<rect class="page" width="${width}" height="${height}" rx="6"/>`,
    text(MARGIN, 28, "head", chart.title),
    text(MARGIN, 46, "small", subtitle),
    ...systems.map((system, i) => legend(system, MARGIN + i * 100, 60)),
    ...bodies,
    "</svg>\n",
  ].join("\n");
}

interface Row {
  readonly label: string;
  readonly bars: readonly Measure[];
}

function rowsOf(panel: Panel, benches: readonly BenchMeasures[]): readonly Row[] {
  const rows = new Map<string, Measure[]>();
  const measures = benches.find(({ bench }) => bench === panel.bench)?.measures ?? [];
  for (const measure of measures) {
    const label = panel.rows.exec(measure.name)?.[1];
    if (label === undefined || measure.unit !== panel.unit) continue;
    const bars = rows.get(label) ?? [];
    bars.push(measure);
    rows.set(label, bars);
  }
  return [...rows].map(([label, bars]) => ({ label, bars }));
}

function drawPanel(
  title: string,
  rows: readonly Row[],
  { left, top }: { readonly left: number; readonly top: number },
): { readonly text: string; readonly bottom: number } {
  const room = COLUMN_WIDTH - MARGIN - LABEL_WIDTH - VALUE_WIDTH;
  const largest = Math.max(...rows.flatMap(({ bars }) => bars.map(({ highest }) => highest)));
  const scale = (value: number): number => (room * value) / largest;
  const lines = [text(left, top + 16, "title", title)];
  let y = top + TITLE_HEIGHT;
  const start = left + LABEL_WIDTH;
  for (const { label, bars } of rows) {
    lines.push(text(start - 8, y + (bars.length * BAR_STEP) / 2 + 4, "label", label));
    for (const bar of bars) {
      lines.push(drawBar(bar, { start, y, scale }));
      y += BAR_STEP;
    }
    y += ROW_GAP;
  }
  lines.push(
    `<line class="axis" x1="${start}" y1="${top + TITLE_HEIGHT - 4}" x2="${start}" y2="${y - ROW_GAP + 2}"/>`,
  );
  return { text: lines.join("\n"), bottom: y };
}

/** The bar is the median; a thin line reaches from the lowest sample to the highest. */
function drawBar(
  { system = "", value, lowest, highest, name, unit, isDisturbed }: Measure,
  { start, y, scale }: { start: number; y: number; scale: (value: number) => number },
): string {
  const middle = y + BAR_HEIGHT / 2;
  const end = start + Math.max(scale(value), scale(highest));
  const shown = `${formatNumber(value)}${isDisturbed === true ? "*" : ""}`;
  return [
    `<rect class="${system}" x="${start}" y="${y}" width="${round(scale(value))}" height="${BAR_HEIGHT}"><title>${escapeText(`${system}: ${name}, ${formatNumber(value)} ${unit}`)}</title></rect>`,
    `<line class="range" x1="${round(start + scale(lowest))}" y1="${middle}" x2="${round(start + scale(highest))}" y2="${middle}"/>`,
    text(round(end + 5), y + 10, "small", shown),
  ].join("");
}

function legend(system: string, x: number, y: number): string {
  const box = `<rect class="${system}" x="${x}" y="${y}" width="12" height="${BAR_HEIGHT}"/>`;
  return box + text(x + 18, y + 10, "small", system);
}

function style(): string {
  const bars = (page: 0 | 1): string =>
    Object.entries(COLOURS)
      .map(([system, colours]) => `.${system} { fill: ${colours[page]} }`)
      .join(" ");
  return `<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.head { font-size: 16px; font-weight: 600 } .title { font-weight: 600 } .label { text-anchor: end }
.small { font-size: 11px; fill: #59636e; font-variant-numeric: tabular-nums }
.page { fill: #ffffff } .axis { stroke: #d1d9e0 } .range { stroke: #1f2328; stroke-opacity: .55 }
${bars(0)}
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .small { fill: #9198a1 } .page { fill: #0d1117 }
.axis { stroke: #3d444d } .range { stroke: #f0f6fc }
${bars(1)}
}
</style>`;
}

function text(x: number, y: number, kind: string, words: string): string {
  return `<text class="${kind}" x="${x}" y="${y}">${escapeText(words)}</text>`;
}

function escapeText(words: string): string {
  return words.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}

/** Tenths of a pixel. */
function round(pixels: number): number {
  return Math.round(pixels * 10) / 10;
}
