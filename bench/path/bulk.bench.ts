/** Moves bulk data through the whole path, every byte compared, in both directions. */
import { isQuick, type Measure, report } from "../measure.ts";
import { alternate, withCpuSeconds } from "./alternate.ts";
import { PathStage } from "./path-stage.ts";

const GB = isQuick() ? 0.25 : 1;
const WARM_UP_BYTES = 100e6;

const stage = await PathStage.start("bulk", "serve");
try {
  for (const system of stage.systems) {
    for (const direction of ["up", "down"]) {
      await stage.load(system, "bulk", direction, WARM_UP_BYTES, 8);
    }
  }
  const measures: Measure[] = [];
  for (const connections of [1, 8]) {
    for (const direction of ["up", "down"]) {
      const flow = `${GB} GB ${direction} on ${connections} connection${connections > 1 ? "s" : ""}`;
      measures.push(
        ...(await alternate(stage.systems, async (system) => {
          const { result, spent } = await withCpuSeconds(system, () =>
            stage.load(system, "bulk", direction, GB * 1e9, connections),
          );
          const { bytes = 0, seconds = 0 } = result;
          return [
            { name: flow, unit: "Gbit/s", value: (bytes * 8) / seconds / 1e9 },
            ...spent.map((one) => ({
              name: `${flow}, ${one.side}'s proxy`,
              unit: "CPU s/GB",
              value: one.seconds / (bytes / 1e9),
            })),
          ];
        })),
      );
    }
  }
  report(measures);
} finally {
  await stage.close();
}
