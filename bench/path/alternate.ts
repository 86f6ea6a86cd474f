/** Takes the samples of a flow: systems alternate, so that a slow minute slows them all. */
import { processorTimes, stealShareSince } from "../machine.ts";
import { isQuick, type Measure, Samples } from "../measure.ts";
import { cpuSeconds, type PathSystem } from "./path-stage.ts";

const ROUNDS = { full: 5, quick: 1 };

/** One figure of one sample. */
export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
}

/**
 * @param run takes one sample.
 * @returns per figure and system the median; disturbed samples are left out as `measure.ts` says.
 */
export async function alternate(
  systems: readonly PathSystem[],
  run: (system: PathSystem) => Promise<readonly Figure[]>,
): Promise<readonly Measure[]> {
  const samples = new Samples();
  for (let round = 0; round < (isQuick() ? ROUNDS.quick : ROUNDS.full); round++) {
    for (const system of systems) {
      const before = processorTimes();
      const figures = await run(system);
      const stealShare = stealShareSince(before);
      for (const { name, unit, value } of figures) {
        samples.note({ name, unit, system: system.name }, { value, stealShare });
      }
    }
  }
  return samples.measures();
}

/** What one proxy spent. */
export interface Spent {
  readonly side: "client" | "server";
  readonly seconds: number;
}

/** What each proxy of the system spent meanwhile, by side. */
export async function withCpuSeconds<Result>(
  system: PathSystem,
  work: () => Promise<Result>,
): Promise<{ readonly result: Result; readonly spent: readonly Spent[] }> {
  const before = system.proxies.map(cpuSeconds);
  const result = await work();
  const spent = system.proxies.map((proxy, i) => ({
    side: proxy.side,
    seconds: cpuSeconds(proxy) - (before[i] ?? 0),
  }));
  return { result, spent };
}

/**
 * A figure of each proxy, and before them one of both together.
 *
 * @param perSecond from CPU seconds to the unit.
 */
export function cpuFigures(
  flow: string,
  spent: readonly Spent[],
  unit: string,
  perSecond: number,
): readonly Figure[] {
  const figure = (whose: string, seconds: number): Figure => ({
    name: `${flow}, ${whose}`,
    unit,
    value: seconds * perSecond,
  });
  const each = spent.map(({ side, seconds }) => figure(`${side}'s proxy`, seconds));
  if (each.length < 2) return each;
  return [
    figure(
      "both proxies",
      spent.reduce((sum, one) => sum + one.seconds, 0),
    ),
    ...each,
  ];
}
