/**
 * What the daemons keep: resident memory with the default number of data threads, what an idle
 * tunnelled connection adds when there are many, and whether bursts leave something behind. A burst
 * is all those connections, opened, used once, and closed.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { holdConnections } from "../load/run-load.ts";
import { processorTimes, stealShareSince } from "../machine.ts";
import { isQuick, report, Samples } from "../measure.ts";
import { residentMb } from "./path-stage.ts";
import { ECHO_PORT, PodsStage } from "./pods-stage.ts";

const CONNECTION_COUNT = isQuick() ? 2000 : 10_000;
const POD_COUNT = 4;
/** Idle means: nothing has happened for so long. */
const SETTLE_MS = 20_000;
/** From the end of each burst to the look at what is left. */
const REST_MS = isQuick() ? [5000, 5000, 5000] : [60_000, 10_000, 60_000];

const samples = new Samples();
const stage = await PodsStage.start({ podsPerNode: POD_COUNT });
try {
  await sleep(SETTLE_MS);
  const startMb = stage.proxies.map(residentMb);
  note("resident after the start", "MB", startMb);
  for (const [index, restMs] of REST_MS.entries()) {
    const before = processorTimes();
    const heldMb = await burst();
    if (index === 0) {
      const added = heldMb.map((mb, i) => mb - (startMb[i] ?? 0));
      const of = `resident per idle connection (of ${CONNECTION_COUNT})`;
      note(of, "KB", eachKb(added), stealShareSince(before));
    }
    await sleep(restMs);
    const leftMb = stage.proxies.map(residentMb);
    const when = `${restMs / 1000} s after burst ${index + 1}`;
    note(`resident ${when}`, "MB", leftMb);
    note(
      `resident ${when}, to the start`,
      "ratio",
      leftMb.map((mb, i) => mb / (startMb[i] ?? Number.NaN)),
    );
  }
  report(samples.measures());
} finally {
  await stage.close();
}

/** @returns the resident memory of each daemon while all connections were open. */
async function burst(): Promise<readonly number[]> {
  const held = await Promise.all(
    Array.from({ length: POD_COUNT }, (_, i) => {
      const server = { ip: stage.server(i).ipv4, port: ECHO_PORT };
      return holdConnections(stage.client(i), CONNECTION_COUNT / POD_COUNT, server);
    }),
  );
  await sleep(SETTLE_MS);
  const residentMbs = stage.proxies.map(residentMb);
  await Promise.all(held.map((one) => one.release()));
  return residentMbs;
}

function eachKb(megabytes: readonly number[]): number[] {
  return megabytes.map((mb) => (mb * 1000) / CONNECTION_COUNT);
}

/** One value per daemon, in the order of the stage's proxies. */
function note(name: string, unit: string, values: readonly number[], stealShare = 0): void {
  for (const [i, { side }] of stage.proxies.entries()) {
    const value = values[i] ?? Number.NaN;
    samples.note(
      { name: `${name}, ${side}'s proxy`, unit, system: "ztunnel" },
      { value, stealShare },
    );
  }
}
