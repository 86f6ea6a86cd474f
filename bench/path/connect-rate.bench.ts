/** Opens short connections through the whole path: 100 bytes there and back, then closed. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Measure, report } from "../measure.ts";
import { alternate, cpuFigures, withCpuSeconds } from "./alternate.ts";
import { PathStage } from "./path-stage.ts";

/** Until the ends of the last connections have been passed on, so that their cost is counted. */
const SETTLE_MS = 300;
/**
 * Together fewer than 14,000 a system: each leaves a source port in TIME_WAIT for a minute, and once
 * every second one of the 28,000 ports is taken, the kernel's search for a free one is measured.
 */
const FLOWS = [
  { name: "one by one", atATime: 1, count: 800 },
  { name: "32 at a time", atATime: 32, count: 1600 },
];

const stage = await PathStage.start("echo-server");
try {
  for (const system of stage.systems) await stage.load(system, "connect-rate", 1000, 8);
  const measures: Measure[] = [];
  for (const { name, atATime, count } of FLOWS) {
    measures.push(
      ...(await alternate(stage.systems, async (system) => {
        const { result, spent } = await withCpuSeconds(system, async () => {
          const loaded = await stage.load(system, "connect-rate", count, atATime);
          await sleep(SETTLE_MS);
          return loaded;
        });
        const { seconds = 0, p50Us = 0, p99Us = 0 } = result;
        const flow = `${count} connections ${name}`;
        return [
          { name: flow, unit: "1/s", value: count / seconds },
          { name: `${flow}, p50`, unit: "µs", value: p50Us },
          { name: `${flow}, p99`, unit: "µs", value: p99Us },
          ...cpuFigures(flow, spent, "CPU s per 1,000", 1000 / count),
        ];
      })),
    );
  }
  report(measures);
} finally {
  await stage.close();
}
