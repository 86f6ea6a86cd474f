/** Moves bulk data through the whole path and past the mesh, every byte compared. */
import { isQuick, type Measure, report } from "../measure.ts";
import { alternate, cpuFigures, withCpuSeconds } from "./alternate.ts";
import { PathStage, type PathSystem } from "./path-stage.ts";

const GB = isQuick() ? 0.2 : 0.5;
const WARM_UP_BYTES = 100e6;
const DIRECTIONS = { up: "up", down: "down", both: "both ways" };

type Direction = keyof typeof DIRECTIONS;

const stage = await PathStage.start("bulk", "serve");
try {
  for (const system of [...stage.systems, ...stage.outside]) {
    await stage.load(system, "bulk", "both", WARM_UP_BYTES, 8);
  }
  const measures: Measure[] = [];
  for (const count of [1, 8]) {
    const on = count === 1 ? "on 1 connection" : `on ${count} connections`;
    for (const direction of ["up", "down", "both"] as const) {
      const flow = `${DIRECTIONS[direction]} ${on}`;
      measures.push(
        ...(await alternate(stage.systems, (system) => move(flow, system, direction, count))),
      );
    }
  }
  for (const direction of ["up", "down"] as const) {
    const flow = `${DIRECTIONS[direction]} past the mesh on 1 connection`;
    measures.push(
      ...(await alternate(stage.outside, (system) => move(flow, system, direction, 1))),
    );
  }
  report(measures);
} finally {
  await stage.close();
}

async function move(
  flow: string,
  system: PathSystem,
  direction: Direction,
  connections: number,
): ReturnType<Parameters<typeof alternate>[1]> {
  const { result, spent } = await withCpuSeconds(system, () =>
    stage.load(system, "bulk", direction, GB * 1e9, connections),
  );
  const { bytes = 0, seconds = 0 } = result;
  return [
    { name: flow, unit: "Gbit/s", value: (bytes * 8) / seconds / 1e9 },
    ...cpuFigures(flow, spent, "CPU s/GB", 1e9 / bytes),
  ];
}
