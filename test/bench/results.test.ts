import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { COMPARISON, drawChart, SCALING } from "../../bench/chart.ts";
import type { Measure } from "../../bench/measure.ts";
import {
  type BenchRun,
  formatResults,
  formatRun,
  RESULTS_FOLDER,
  readRun,
  renderChart,
} from "../../bench/results.ts";

const SYSTEMS = ["direct", "ztunnel", "Envoy"];

function measure(name: string, unit: string, system: string, value: number): Measure {
  const samples = [{ value, stealShare: 0.123456789 }];
  return { name, unit, system, value, lowest: value / 2, highest: value * 2, samples };
}

const RUN: BenchRun = {
  startedAt: "2026-11-23T08:15:00.000Z",
  seconds: 61,
  isQuick: false,
  machine: {
    processor: "Abacus <1>",
    coreCount: 2,
    memoryGb: 1,
    kernel: "Linux 6 x64",
    node: "v26.0.0",
    openssl: "3.5.0",
    envoy: "Envoy 1.40.0",
    loadAverage: 0.25,
  },
  nodeCommands: { a: "/opt/ztunnel" },
  benches: [
    {
      bench: "path/bulk",
      measures: SYSTEMS.map((system, i) =>
        measure("up on 1 connection", "Gbit/s", system, 10 / (i + 1)),
      ),
    },
  ],
  failures: ["path/soak.bench.ts ended with 1"],
};

test("a run is written with a line a measure and read back as it was, to five digits", () => {
  const text = formatRun(RUN);
  assert.equal(text.trimEnd().split("\n").length, 1 + SYSTEMS.length);
  const [bulk] = (JSON.parse(text) as BenchRun).benches;
  assert.equal(bulk?.measures[2]?.value, 3.3333);
  assert.equal(bulk?.measures[2]?.samples?.[0]?.stealShare, 0.12346);
  assert.deepEqual(JSON.parse(text).machine, RUN.machine);
});

test("the page names what is missing, what stood on other nodes and what failed", () => {
  const page = formatResults(RUN);
  assert.match(page, /Missing: HAProxy \(apt-get install haproxy\)\./);
  assert.doesNotMatch(page, /Missing: Envoy/);
  assert.match(page, /Node a of `other`: `\/opt\/ztunnel`\./);
  assert.match(page, /Failed: path\/soak\.bench\.ts ended with 1\./);
  assert.match(page, /Abacus <1>.*load average before 0\.25, took 2 minutes/);
});

test("bars are to scale and stay inside the chart, with words that are escaped", () => {
  const chart = drawChart(COMPARISON, RUN.benches, "Abacus <1>");
  assert.match(chart, /Abacus &lt;1>/);
  const width = Number(/<svg [^>]*width="(\d+)"/.exec(chart)?.[1]);
  const bars = SYSTEMS.map((system) => {
    const [, x, length] =
      new RegExp(
        `<rect class="${system}" x="(\\d+)" y="\\d+" width="([\\d.]+)" height="\\d+"><title>`,
      ).exec(chart) ?? [];
    return { x: Number(x), length: Number(length) };
  });
  const [direct, ours, envoy] = bars;
  assert.ok(direct && ours && envoy);
  assert.ok(Math.abs(ours.length / direct.length - 1 / 2) < 0.01);
  assert.ok(Math.abs(envoy.length / direct.length - 1 / 3) < 0.01);
  for (const end of chart.matchAll(/x2="([\d.]+)"/g)) assert.ok(Number(end[1]) < width);
});

test("the chart has colours for dark pages as well", () => {
  const [, dark = ""] = drawChart(COMPARISON, RUN.benches, "").split("prefers-color-scheme: dark");
  for (const system of SYSTEMS) assert.match(dark, new RegExp(`\\.${system} \\{ fill: #`));
});

test("the published table and charts are drawn from the published run", () => {
  const run = readRun(join(RESULTS_FOLDER, "bench.json"));
  const published = (name: string): string => readFileSync(join(RESULTS_FOLDER, name), "utf8");
  const hint = "npm run bench:render";
  assert.equal(published("table.md"), formatResults(run), hint);
  assert.equal(published("chart.svg"), renderChart(COMPARISON, run), hint);
  assert.equal(published("scaling.svg"), renderChart(SCALING, run), hint);
});
