/**
 * Decodes 50,000 Workload messages with each protobuf library, and counts what the results keep in
 * memory. Each library runs in a process of its own: fresh heap, fresh machine code.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Bench } from "tinybench";
import { isQuick, type Measure, report } from "../measure.ts";
import { decoderMakers } from "./workload-decoders.ts";
import { encodedWorkloads } from "./workload-fixture.ts";

const COUNT = 50_000;
const SIZE = "50,000 Workload messages (15.5 MB)";

/** In this process alone, when the name of a library comes along. */
const library = process.argv[2];
if (library !== undefined && library in decoderMakers) {
  console.log(JSON.stringify(await measure(library)));
} else {
  const flags = isQuick() ? ["--quick"] : [];
  report(
    Object.keys(decoderMakers).flatMap((name) => {
      const args = [import.meta.filename, name, ...flags];
      return JSON.parse(execFileSync(process.execPath, args, { encoding: "utf8" }));
    }),
  );
}

async function measure(name: string): Promise<readonly Measure[]> {
  const decode = await (decoderMakers[name] as (typeof decoderMakers)[string])();
  const messages = encodedWorkloads(COUNT);
  const bytes = messages.reduce((sum, message) => sum + message.length, 0);
  assert.equal(Math.round(bytes / 1e5), 155);
  const sample = decode(messages[3] as Uint8Array) as Record<string, unknown>;
  assert.equal(sample["clusterId"] ?? sample["cluster_id"], "Kubernetes");
  assert.match(JSON.stringify(sample), /team-3.*eu-central-1/s);

  const bench = new Bench({
    iterations: isQuick() ? 2 : 8,
    time: isQuick() ? 300 : 3000,
    warmupIterations: 2,
    warmupTime: 0,
  });
  bench.add(name, () => {
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
  const { p50, min, p75 } = result.latency;
  const megabytes = (bytes: number): Pick<Measure, "unit" | "value" | "lowest" | "highest"> => {
    const value = bytes / 1e6;
    return { unit: "MB", value, lowest: value, highest: value };
  };
  return [
    { name: `${name}: decode ${SIZE}`, unit: "ms", value: p50, lowest: min, highest: p75 },
    {
      name: `${name}: heap that the results hold`,
      ...megabytes(heapAfter.heapUsed - heapBefore.heapUsed),
    },
    {
      name: `${name}: resident memory at most`,
      ...megabytes(process.resourceUsage().maxRSS * 1024),
    },
  ];
}
