/** Times a message and its echo through the whole path, alone and among 64 connections. */
import { isQuick, type Measure, report } from "../measure.ts";
import { alternate, cpuFigures, withCpuSeconds } from "./alternate.ts";
import { PathStage } from "./path-stage.ts";

const DURATION_MS = isQuick() ? 500 : 1000;

const stage = await PathStage.start("echo-server");
try {
  for (const system of stage.systems) await stage.load(system, "round-trip", 1024, 64, 1000);
  const measures: Measure[] = [];
  for (const connections of [1, 64]) {
    for (const bytes of [100, 1024]) {
      const flow = `${bytes} B on ${connections} connection${connections > 1 ? "s" : ""}`;
      const taken = await alternate(stage.systems, async (system) => {
        const { result, spent } = await withCpuSeconds(system, () =>
          stage.load(system, "round-trip", bytes, connections, DURATION_MS),
        );
        const { count = 0, seconds = 0, p50Us = 0, p99Us = 0 } = result;
        return [
          { name: `${flow}, p50`, unit: "µs", value: p50Us },
          { name: `${flow}, p99`, unit: "µs", value: p99Us },
          { name: `${flow}, rate`, unit: "1/s", value: count / seconds },
          ...cpuFigures(flow, spent, "CPU µs each", 1e6 / count),
        ];
      });
      measures.push(...taken, ...added(taken, `${flow}, p50`), ...added(taken, `${flow}, p99`));
    }
  }
  report(measures);
} finally {
  await stage.close();
}

/** What a proxy adds to the direct path, median from median. */
function added(taken: readonly Measure[], name: string): Measure[] {
  const direct = taken.find((one) => one.name === name && one.system === "direct");
  if (direct === undefined) return [];
  return taken
    .filter((one) => one.name === name && one !== direct)
    .map(({ samples: _, ...one }) => {
      const value = one.value - direct.value;
      return { ...one, name: `${name} added`, value, lowest: value, highest: value };
    });
}
