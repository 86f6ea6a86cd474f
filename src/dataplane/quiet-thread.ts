/** The memory of the calling thread, given back when it has become quiet. */
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { native } from "../net/native.ts";
import type { Clock } from "../runtime/clock.ts";
import { threadCpuMs } from "../runtime/cpu-time.ts";
import { QuietMemory } from "../runtime/quiet-memory.ts";

/** Looks after it as long as the thread lives; does not keep it running. */
export function giveBackWhenQuiet(clock: Clock): void {
  // V8's collector has no other door, and contexts that are there already do not get this one.
  setFlagsFromString("--expose-gc");
  const collectGarbage = runInNewContext("gc") as (how: object) => void;
  new QuietMemory({
    clock,
    cpuMs: threadCpuMs,
    allocatedBytes: () => getHeapStatistics().total_allocated_bytes,
    collect: () => {
      // Any other collection leaves pages half empty, and keeps empty ones for a time of V8's choice.
      collectGarbage({ type: "major", execution: "sync", flavor: "last-resort" });
      native.releaseResidentMemory();
    },
  });
}
