/** Times pure functions with tinybench; the inputs are built, and a result checked, by the bench. */
import assert from "node:assert/strict";
import { Bench } from "tinybench";
import { isQuick, type Measure } from "./measure.ts";

const TIME_MS = { full: 500, quick: 100 };

/**
 * @param cases name → the work; names are sentences with the size in them.
 * @returns the median time of one run, from the fastest to the 75th of 100.
 * @throws what a case throws.
 */
export async function timeCases(
  cases: Readonly<Record<string, () => void | Promise<void>>>,
): Promise<readonly Measure[]> {
  const time = isQuick() ? TIME_MS.quick : TIME_MS.full;
  const bench = new Bench({ time, warmupTime: time / 5, throws: true });
  for (const [name, work] of Object.entries(cases)) bench.add(name, work);
  await bench.run();
  return bench.tasks.map(({ name, result }) => {
    assert(result.state === "completed", `${name} is ${result.state}`);
    const { p50, min, p75 } = result.latency;
    // Milliseconds become microseconds.
    return { name, unit: "µs", value: p50 * 1e3, lowest: min * 1e3, highest: p75 * 1e3 };
  });
}
