/** Opens short connections through the whole path: 100 bytes there and back, then closed. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Measure, report } from "../measure.ts";
import { alternate, cpuFigures, withCpuSeconds } from "./alternate.ts";
import { PathStage, type PathSystem } from "./path-stage.ts";

/** Until the ends of the last connections have been passed on, so that their cost is counted. */
const SETTLE_MS = 300;
/**
 * What a daemon of hours is like: V8 makes the last functions of a connect fast after some 18,000 of them.
 * A slow system has enough of it when the time is over.
 */
const WARM_UP = { count: 20_000, seconds: 10 };
const WARM_UP_STEP = 2000;
/**
 * Of clients. Each connection leaves a source port in TIME_WAIT for a minute, and once every second port of
 * the range is taken, the kernel's search for a free one is measured: here, after 32,000 connections.
 */
const PORT_RANGE = "1024 65535";
const FLOWS = [
  { name: "one by one", atATime: 1, count: 800 },
  { name: "32 at a time", atATime: 32, count: 1600 },
];

const stage = await PathStage.start("echo-server");
try {
  for (const system of stage.systems) {
    stage.lab.net.exec(
      system.client,
      "sysctl",
      "-qw",
      `net.ipv4.ip_local_port_range=${PORT_RANGE}`,
    );
  }
  await warmUp(stage.systems);
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

/** All in turn, as they are measured: none rests until the slowest is warm. */
async function warmUp(systems: readonly PathSystem[]): Promise<void> {
  const spentMs = new Map<PathSystem, number>();
  for (let count = 0; count < WARM_UP.count; count += WARM_UP_STEP) {
    for (const system of systems) {
      const before = spentMs.get(system) ?? 0;
      if (before >= WARM_UP.seconds * 1000) continue;
      const startedAt = performance.now();
      await stage.load(system, "connect-rate", WARM_UP_STEP, 8);
      spentMs.set(system, before + performance.now() - startedAt);
    }
  }
}
