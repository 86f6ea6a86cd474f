/**
 * New tunnelled connections at a fixed rate for minutes: do memory and descriptors stay where they
 * are, and does a burst of five times the rate wait its turn and pass? Four pods connect to four, so
 * that the source ports in TIME_WAIT (a minute each) are few for each pair.
 */
import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type LoadResult, runLoad } from "../load/run-load.ts";
import { processorTimes, stealShareSince } from "../machine.ts";
import { isQuick, report, Samples } from "../measure.ts";
import { type Proxy as ProxyProcess, residentMb } from "./path-stage.ts";
import { ECHO_PORT, PodsStage } from "./pods-stage.ts";

const POD_COUNT = 4;
const CONNECTS_PER_SECOND = 1200;
const BURST_FACTOR = 5;
const SOAK_MS = isQuick() ? 25_000 : 300_000;
/** Growth counts from here on: until then the heaps find their size. */
const SETTLED_AFTER_MS = SOAK_MS / 5;
const BURST_MS = 2000;
const RECOVERED_MS = isQuick() ? 3000 : 10_000;
/** Compiles the code and opens the tunnels. */
const WARM_UP_MS = 5000;
/** After the last connection its ends are passed on. */
const REST_MS = 2000;

const samples = new Samples();
const stage = await PodsStage.start({ podsPerNode: POD_COUNT });
try {
  const { proxies } = stage;
  note("resident before", "MB", proxies.map(residentMb));
  await connect(CONNECTS_PER_SECOND / 4, WARM_UP_MS);
  await sleep(REST_MS);
  // Tunnels, which stay, are open now.
  const startFds = proxies.map(openFdCount);
  note("descriptors before", "count", startFds);

  let settledMb: readonly number[] = [];
  const soak = connect(CONNECTS_PER_SECOND, SOAK_MS);
  const watched = sleep(SETTLED_AFTER_MS).then(() => {
    settledMb = proxies.map(residentMb);
    note(`resident after ${SETTLED_AFTER_MS / 1000} s`, "MB", settledMb);
    note(`descriptors after ${SETTLED_AFTER_MS / 1000} s`, "count", proxies.map(openFdCount));
  });
  noteLatency(`${CONNECTS_PER_SECOND} connects/s for ${SOAK_MS / 1000} s`, await soak);
  await watched;
  await sleep(REST_MS);
  const endMb = proxies.map(residentMb);
  note(`resident after ${SOAK_MS / 1000} s`, "MB", endMb);
  note(
    `resident after ${SOAK_MS / 1000} s, to that after ${SETTLED_AFTER_MS / 1000} s`,
    "ratio",
    endMb.map((mb, i) => mb / (settledMb[i] ?? Number.NaN)),
  );
  const left = proxies.map((proxy, i) => openFdCount(proxy) - (startFds[i] ?? 0));
  note(`descriptors left over after ${SOAK_MS / 1000} s`, "count", left);

  noteLatency(
    `burst of ${CONNECTS_PER_SECOND * BURST_FACTOR} connects/s for ${BURST_MS / 1000} s`,
    await connect(CONNECTS_PER_SECOND * BURST_FACTOR, BURST_MS),
  );
  noteLatency(
    `${CONNECTS_PER_SECOND} connects/s after the burst`,
    await connect(CONNECTS_PER_SECOND, RECOVERED_MS),
  );
  report(samples.measures());
} finally {
  await stage.close();
}

interface Soaked {
  /** Of each client pod. @throws when one connection failed: there are none of these here. */
  readonly results: readonly LoadResult[];
  readonly stealShare: number;
}

async function connect(perSecond: number, durationMs: number): Promise<Soaked> {
  const before = processorTimes();
  const servers = Array.from({ length: POD_COUNT }, (_, i) => stage.server(i).ipv4).join(",");
  const results = await Promise.all(
    Array.from({ length: POD_COUNT }, (_, i) => {
      const rate = perSecond / POD_COUNT;
      return runLoad(stage.client(i), "paced-connects", rate, durationMs, 1, servers, ECHO_PORT);
    }),
  );
  return { results, stealShare: stealShareSince(before) };
}

/** Percentiles are the median of the client pods', whose load is the same; the longest is of all. */
function noteLatency(flow: string, { results, stealShare }: Soaked): void {
  const of = (name: string, unit: string, value: number): void =>
    samples.note({ name: `${flow}, ${name}`, unit, system: "ztunnel" }, { value, stealShare });
  const seconds = Math.max(...results.map((one) => one["seconds"] ?? 0));
  of("done", "1/s", results.reduce((sum, one) => sum + (one["count"] ?? 0), 0) / seconds);
  for (const [name, key] of [
    ["p50", "p50Us"],
    ["p99", "p99Us"],
    ["p99.9", "p999Us"],
  ] as const) {
    const values = results.map((one) => one[key] ?? Number.NaN).sort((a, b) => a - b);
    of(name, "ms", (values[values.length >> 1] ?? Number.NaN) / 1e3);
  }
  of("longest", "ms", Math.max(...results.map((one) => one["maxUs"] ?? Number.NaN)) / 1e3);
}

function openFdCount({ pid }: ProxyProcess): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** One value per daemon, in the order of the stage's proxies. */
function note(name: string, unit: string, values: readonly number[]): void {
  for (const [i, { side }] of stage.proxies.entries()) {
    const of = { name: `${name}, ${side}'s proxy`, unit, system: "ztunnel" };
    samples.note(of, { value: values[i] ?? Number.NaN, stealShare: 0 });
  }
}
