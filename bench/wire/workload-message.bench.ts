/**
 * Decodes 50,000 Workload messages with each protobuf library, and counts what the results keep in
 * memory. Each library runs in a process of its own: fresh heap, fresh machine code.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Bench } from "tinybench";
import { decoderMakers } from "./workload-decoders.ts";
import { encodedWorkloads } from "./workload-fixture.ts";

const COUNT = 50_000;

const [, script = "", library] = process.argv;
if (library === undefined) {
  const rows = Object.keys(decoderMakers).map((name) =>
    JSON.parse(execFileSync(process.execPath, [script, name], { encoding: "utf8" })),
  );
  console.table(Object.fromEntries(rows.map(({ library, ...row }) => [library, row])));
} else console.log(JSON.stringify(await measure(library)));

async function measure(name: string): Promise<Record<string, string | number>> {
  const decode = await (decoderMakers[name] as (typeof decoderMakers)[string])();
  const messages = encodedWorkloads(COUNT);
  const bytes = messages.reduce((sum, message) => sum + message.length, 0);
  const sample = decode(messages[3] as Uint8Array) as Record<string, unknown>;
  assert.equal(sample["clusterId"] ?? sample["cluster_id"], "Kubernetes");
  assert.match(JSON.stringify(sample), /team-3.*eu-central-1/s);

  const bench = new Bench({ iterations: 8, time: 3000, warmupIterations: 2, warmupTime: 0 });
  bench.add(`decode ${COUNT} workloads`, () => {
    for (const message of messages) decode(message);
  });
  await bench.run();
  const result = bench.tasks[0]?.result;
  assert(result?.state === "completed");

  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  collect();
  const heapBefore = process.memoryUsage();
  const kept = messages.map(decode);
  collect();
  const heapAfter = process.memoryUsage();
  assert.equal(kept.length, COUNT);
  return {
    library: name,
    inputMb: round(bytes / 1e6),
    fastestMs: round(result.latency.min),
    medianMs: round(result.latency.p50),
    fastestUsPerMessage: round((result.latency.min * 1000) / COUNT),
    keptHeapMb: round((heapAfter.heapUsed - heapBefore.heapUsed) / 1e6),
    peakRssMb: round(process.resourceUsage().maxRSS / 1000),
  };
}

function round(value: number): number {
  return Number(value.toPrecision(3));
}
