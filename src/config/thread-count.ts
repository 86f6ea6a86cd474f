/** How many data threads: from CPU quantities, percentages and plain numbers. */
import type { EnvironmentReader } from "./environment-reader.ts";

/** More threads than any machine's network needs; a slip of the finger ends here. */
export const THREADS_MAX = 256;
/** Of the CPUs, when nobody says anything: the rest belongs to the applications. */
const DEFAULT_SHARE = 0.25;

/**
 * ZTUNNEL_WORKER_THREADS, else the proxy configuration's concurrency, else the container's limit,
 * else a share of the CPUs.
 *
 * @param concurrency of the proxy configuration; 0 means all CPUs.
 * @returns 0 when everything is to run in one thread.
 * @see spec control-plane 6.2; there 0 means all CPUs, which `100%` says here.
 */
export function chooseThreadCount(
  reader: EnvironmentReader,
  concurrency: number | undefined,
  machineCpuCount: number,
): number {
  const cpuCount = reader.integer("ZTUNNEL_CPU_LIMIT", machineCpuCount, { min: 1, max: 65_536 });
  const limit = cpuQuantity(reader, "ZTUNNEL_RESOURCE_CPU_LIMIT");
  const request = cpuQuantity(reader, "ZTUNNEL_RESOURCE_CPU_REQUEST") ?? 0;
  // The original starts two threads at least. Ours leave the control work to the main thread, and on
  // small nodes one measured better: a second thread splits the tunnels and the wake-ups.
  const fallback =
    limit === undefined
      ? Math.max(Math.ceil(cpuCount * DEFAULT_SHARE), request, 1)
      : Math.max(limit, request, 1);
  const configured = concurrency === 0 ? cpuCount : (concurrency ?? fallback);
  return Math.min(workerThreads(reader, cpuCount) ?? configured, THREADS_MAX);
}

function workerThreads(reader: EnvironmentReader, cpuCount: number): number | undefined {
  const name = "ZTUNNEL_WORKER_THREADS";
  const text = reader.text(name);
  if (!text?.endsWith("%")) {
    if (text === undefined) return undefined;
    return reader.integer(name, 1, { min: 0, max: THREADS_MAX });
  }
  const percentText = text.slice(0, -1);
  const percent = Number(percentText);
  if (!/^\d+(\.\d+)?$/.test(percentText)) reader.invalid(name, "invalid float literal");
  else if (percent <= 0 || percent > 100) {
    reader.invalid(name, "percentage must be between 0 and 100");
  } else return Math.ceil((cpuCount * percent) / 100);
  return undefined;
}

/** Kubernetes' `2`, `1.5` or `500m`, rounded up to whole CPUs. */
function cpuQuantity(reader: EnvironmentReader, name: string): number | undefined {
  const text = reader.text(name);
  if (text === undefined) return undefined;
  const [, number, milli] = /^(\d+(?:\.\d+)?)(m?)$/.exec(text) ?? [];
  if (number === undefined) {
    reader.invalid(name, "expected a CPU quantity such as 2, 1.5 or 500m");
    return undefined;
  }
  return Math.ceil(Number(number) / (milli === "m" ? 1000 : 1));
}
