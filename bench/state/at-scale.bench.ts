/**
 * A control plane's whole mesh of a large cluster, then its churn, as the daemon takes them in: what
 * they cost in time, in processor and in resident memory of the process, and how late the data
 * threads are meanwhile. Both are made beforehand, in another process than the one that is measured.
 */
import { fork } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isQuick, type Measure, report } from "../measure.ts";
import type { ScaleResult } from "./at-scale-process.ts";
import { MeshGenerator } from "./mesh-generator.ts";

const SIZE = { workloads: 55_000, services: 5000, policies: 1000 };
const CHANGES_PER_SECOND = 100;
const CHURN_SECONDS = isQuick() ? 10 : 60;

const folder = mkdtempSync(join(tmpdir(), "ztunnel-at-scale-"));
try {
  const script = join(folder, "responses");
  writeScript(script);
  const result = await measure(script);
  const one = (name: string, unit: string, value: number): Measure => {
    return { name, unit, value, lowest: value, highest: value };
  };
  const size = "55k workloads, 5k services and 1k policies";
  report([
    one(`take in ${size}`, "s", result.pushSeconds),
    one(`take in ${size}: resident memory`, "MB", result.grownMb),
    one(`take in ${size}: resident memory at the peak`, "MB", result.peakGrownMb),
    one(`take in ${size}: data thread late, p99`, "ms", result.pushLateP99Ms),
    one(`take in ${size}: data thread late, at most`, "ms", result.pushLateMaxMs),
    one(`${CHANGES_PER_SECOND} changed endpoints/s: share of a core`, "%", result.churnCpuPercent),
    one(
      `${CHANGES_PER_SECOND} changed endpoints/s: data thread late, p99`,
      "ms",
      result.churnLateP99Ms,
    ),
    one(`after ${CHURN_SECONDS} s of changes: resident memory`, "MB", result.churnedMb),
  ]);
} finally {
  rmSync(folder, { recursive: true });
}

/** Responses in the order of their coming, each after its length. */
function writeScript(path: string): void {
  const generator = new MeshGenerator(SIZE);
  const file = openSync(path, "w");
  const append = (response: Uint8Array): void => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(response.length);
    writeSync(file, length);
    writeSync(file, response);
  };
  append(generator.addresses());
  append(generator.authorizations());
  for (let i = 0; i < CHURN_SECONDS * CHANGES_PER_SECOND; i++) append(generator.change(i));
  closeSync(file);
}

function measure(script: string): Promise<ScaleResult> {
  return new Promise((resolve, reject) => {
    const entry = join(import.meta.dirname, "at-scale-process.ts");
    const child = fork(entry, [script, String(CHANGES_PER_SECOND)]);
    let result: ScaleResult | undefined;
    child.on("message", (message) => {
      result = message as ScaleResult;
    });
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      if (code === 0 && result !== undefined) resolve(result);
      else reject(new Error(`the measured process ended with ${code ?? signal}`));
    });
  });
}
