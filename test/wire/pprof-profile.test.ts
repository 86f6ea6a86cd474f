import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { CallNode } from "../../src/runtime/thread-profiler.ts";
import { decodeMessage } from "../../src/wire/message-codec.ts";
import { encodeProfile, type ProfileMeasure } from "../../src/wire/pprof-profile.ts";
import { Profile } from "../../src/wire/proto/perftools-profiles.ts";
import { missingTool } from "../support/missing-tool.ts";

const CPU: ProfileMeasure = {
  type: "cpu",
  unit: "nanoseconds",
  period: 10_000_000,
  durationNs: 1_000_000_000,
};

const TREE: readonly CallNode[] = [
  { caller: -1, functionName: "(root)", url: "", line: 0, value: 0 },
  { caller: 0, functionName: "run", url: "file:///srv/run.ts", line: 7, value: 10_000_000 },
  { caller: 1, functionName: "work", url: "file:///srv/work.ts", line: 3, value: 30_000_000 },
  { caller: 2, functionName: "", url: "file:///srv/work.ts", line: 9, value: 0 },
  { caller: 2, functionName: "run", url: "file:///srv/run.ts", line: 7, value: 20_000_000 },
];
const THREADS = [
  { thread: "control", nodes: TREE },
  { thread: "data-0", nodes: TREE.slice(0, 2) },
];

test("equal functions and strings stand once, and only stacks that count are samples", () => {
  const profile = decodeMessage("profile", Profile, encodeProfile(THREADS, CPU));
  const text = (index: number): string => profile.stringTable[index] as string;
  assert.equal(profile.stringTable[0], "");
  assert.equal(new Set(profile.stringTable).size, profile.stringTable.length);
  assert.deepEqual(
    profile.function.map(({ id, name, filename, startLine }) => [
      id,
      text(name),
      text(filename),
      startLine,
    ]),
    [
      [1, "run", "/srv/run.ts", 7],
      [2, "work", "/srv/work.ts", 3],
    ],
  );
  assert.deepEqual(
    profile.sample.map(({ locationId, value, label }) => [
      locationId,
      value,
      label.map(({ key, str }) => [text(key), text(str)]),
    ]),
    [
      [[1], [10_000_000], [["thread", "control"]]],
      [[2, 1], [30_000_000], [["thread", "control"]]],
      [[1, 2, 1], [20_000_000], [["thread", "control"]]],
      [[1], [10_000_000], [["thread", "data-0"]]],
    ],
  );
  assert.deepEqual(
    profile.sampleType.map(({ type, unit }) => [text(type), text(unit)]),
    [["cpu", "nanoseconds"]],
  );
  assert.deepEqual([profile.period, profile.durationNanos], [10_000_000, 1_000_000_000]);
});

test("go tool pprof reads it", (t) => {
  if (spawnSync("go", ["version"]).status !== 0) return t.skip(missingTool("no go on the path"));
  const folder = mkdtempSync(join(tmpdir(), "ztunnel-pprof-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, "profile.pb");
  writeFileSync(file, encodeProfile(THREADS, CPU));
  const pprof = (...args: string[]): string =>
    spawnSync("go", ["tool", "pprof", ...args, file], { encoding: "utf8" }).stdout;
  const table = pprof("-top").split("\n");
  assert.equal(
    table.find((line) => line.startsWith("Duration")),
    "Duration: 1s, Total samples = 70ms ( 7.00%)",
  );
  assert.deepEqual(
    table.filter((line) => /(run|work)$/.test(line)).map((line) => line.trim().split(/ +/)),
    [
      ["40ms", "57.14%", "57.14%", "70ms", "100%", "run"],
      ["30ms", "42.86%", "100%", "50ms", "71.43%", "work"],
    ],
  );
  assert.match(pprof("-tags"), /60ms \(85.71%\): control\n\s+10ms \(14.29%\): data-0/);
});
