/** How long a thread keeps its event loop from the next event. */
import { monitorEventLoopDelay } from "node:perf_hooks";

/** Milliseconds; all 0 when nothing was measured. */
export interface LoopDelay {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
}

/** A wake-up without JavaScript, 50 times a second: a quarter of a percent of an idle core. */
const RESOLUTION_MS = 20;

/**
 * Begins to measure on the calling thread; does not keep it running.
 *
 * @returns a function that tells how late the loop was since its last call.
 */
export function measureLoopDelay(): () => LoopDelay {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  histogram.enable();
  return () => {
    // What is recorded are the times between two wake-ups, in nanoseconds.
    const lateMs = (ns: number): number =>
      histogram.count === 0 ? 0 : Math.max(0, ns / 1e6 - RESOLUTION_MS);
    const delay = {
      p50Ms: lateMs(histogram.percentile(50)),
      p99Ms: lateMs(histogram.percentile(99)),
      p999Ms: lateMs(histogram.percentile(99.9)),
      maxMs: lateMs(histogram.max),
    };
    histogram.reset();
    return delay;
  };
}
