/** The resident memory of the process, given back when it has become quiet. */
import { readFileSync } from "node:fs";
import { native } from "../net/native.ts";
import type { Clock } from "../runtime/clock.ts";
import { processCpuMs } from "../runtime/cpu-time.ts";
import { ResidentMemory } from "../runtime/resident-memory.ts";

/** Looks after it as long as the process lives; does not keep it running. */
export function releaseWhenQuiet(clock: Clock): void {
  new ResidentMemory({
    clock,
    cpuMs: processCpuMs,
    programBytes,
    release: native.releaseResidentMemory,
  });
}

/** What proc(5) calls RssFile. */
function programBytes(): number {
  const [, kib] = /^RssFile:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "latin1")) ?? [];
  return Number(kib ?? 0) * 1024;
}
