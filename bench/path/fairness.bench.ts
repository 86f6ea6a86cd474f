/**
 * What a pod that moves bulk data as fast as it can does to another pod of the same two nodes: new
 * connections and echoes at a fixed rate, alone and beside it. The bulk's applications have the lowest
 * priority, so that what the other pod waits for is the proxies. The direct path runs the same beside
 * the same load, because the cores are still shared by everybody here.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { LabHost } from "../../test/support/netns-lab.ts";
import { type LoadResult, runLoad, startLoad } from "../load/run-load.ts";
import { processorTimes, stealShareSince } from "../machine.ts";
import { isQuick, type Measure, report, Samples } from "../measure.ts";
import { BULK_PORT, ECHO_PORT, PodsStage } from "./pods-stage.ts";

const ROUNDS = isQuick() ? 1 : 3;
const DURATION_MS = isQuick() ? 2000 : 4000;
/** Low enough to leave the cores idle when alone. */
const ECHOES = { bytes: 100, connections: 8, perSecond: 400 };
const CONNECTS_PER_SECOND = 50;
/** Until the bulk flow has its windows. */
const RAMP_MS = 300;
/** More than any tool can move before it is stopped. */
const ENDLESS_BYTES = 1e12;

const NEIGHBOURS = ["alone", "beside bulk up", "beside bulk down"] as const;
type Neighbour = (typeof NEIGHBOURS)[number];

const stage = await PodsStage.start({ podsPerNode: 2 });
try {
  const paths = [
    { system: "ztunnel", client: stage.client(1), server: stage.server(1) },
    { system: "direct", client: stage.directClient, server: stage.directServer },
  ];
  for (const { client, server } of paths) await probe(client, server, 500);
  const samples = new Samples();
  for (let round = 0; round < ROUNDS; round++) {
    for (const neighbour of NEIGHBOURS) {
      for (const { system, client, server } of paths) {
        const before = processorTimes();
        const { echo, connect } = await beside(neighbour, () => probe(client, server, DURATION_MS));
        const stealShare = stealShareSince(before);
        for (const [name, result] of Object.entries({ echo, connect })) {
          for (const [share, value] of [
            ["p50", result["p50Us"]],
            ["p99", result["p99Us"]],
          ] as const) {
            const of = { name: `${name} ${share}, ${neighbour}`, system, unit: "ms" };
            samples.note(of, { value: (value ?? Number.NaN) / 1e3, stealShare });
          }
        }
      }
    }
  }
  const measures = samples.measures();
  report([...measures, ...shares(measures)]);
} finally {
  await stage.close();
}

async function probe(
  client: LabHost,
  server: LabHost,
  durationMs: number,
): Promise<{ readonly echo: LoadResult; readonly connect: LoadResult }> {
  const { bytes, connections, perSecond } = ECHOES;
  const at = [server.ipv4, ECHO_PORT] as const;
  const [echo, connect] = await Promise.all([
    runLoad(client, "paced-echo", bytes, connections, perSecond, durationMs, 1, ...at),
    runLoad(client, "paced-connects", CONNECTS_PER_SECOND, durationMs, 1, ...at),
  ]);
  return { echo, connect };
}

async function beside<Result>(neighbour: Neighbour, work: () => Promise<Result>): Promise<Result> {
  if (neighbour === "alone") return work();
  const direction = neighbour === "beside bulk up" ? "up" : "down";
  const { ipv4 } = stage.server(0);
  const bulk = startLoad(stage.client(0), "bulk", direction, ENDLESS_BYTES, 1, ipv4, BULK_PORT);
  try {
    await sleep(RAMP_MS);
    return await work();
  } finally {
    await bulk.stop();
  }
}

/** How much of what is allowed is used up: twice the p99 alone, and a millisecond. */
function shares(measures: readonly Measure[]): Measure[] {
  return measures.flatMap((one) => {
    const [, kind, neighbour] = /^(.+) p99, (beside .+)$/.exec(one.name) ?? [];
    const alone = measures.find(
      ({ name, system }) => name === `${kind} p99, alone` && system === one.system,
    );
    if (alone === undefined) return [];
    const value = one.value / (2 * alone.value + 1);
    return [
      {
        ...one,
        name: `${kind} p99, ${neighbour}, share of 2 x alone + 1 ms`,
        unit: "ratio",
        value,
        lowest: value,
        highest: value,
      },
    ];
  });
}
