/**
 * Does a byte, a new connection or an idle pod cost more when there are many of them? The same work,
 * first shared among more and more connections of one pair of pods, then among more and more pods.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type GatedRoundTrips, openRoundTrips, runLoad } from "../load/run-load.ts";
import { processorTimes, stealShareSince } from "../machine.ts";
import { isQuick, report, Samples } from "../measure.ts";
import { cpuSeconds, residentMb } from "./path-stage.ts";
import { ECHO_PORT, PodsStage } from "./pods-stage.ts";

const CONNECTIONS = isQuick() ? [1, 64, 512] : [1, 8, 64, 512, 4096];
const POD_COUNTS = isQuick() ? [1, 10, 40] : [1, 10, 100, 250];
const ROUNDS = isQuick() ? 1 : 2;
/** Large enough that the bytes count, small enough to be in flight on every connection. */
const MESSAGE_BYTES = 16_384;
const DURATION_MS = isQuick() ? 500 : 2000;
/** New connections of a sample, at least. */
const CONNECT_COUNT = 2000;
/** Until the ends of the last connections have been passed on. */
const SETTLE_MS = 500;
const IDLE_MS = isQuick() ? 1000 : 5000;
/** How many pods open connections at the same time. */
const BUSY_PODS = 8;

const samples = new Samples();
const stage = await PodsStage.start({
  podsPerNode: Math.max(...POD_COUNTS),
  enrolledPerNode: 1,
});
try {
  // First what makes memory grow little by little, then what fills it at once.
  await measurePods();
  await measureConnections();
  report(samples.measures());
} finally {
  await stage.close();
}

/** Between the first pods. */
async function measureConnections(): Promise<void> {
  await connects([0], CONNECT_COUNT, 8);
  for (let round = 0; round < ROUNDS; round++) {
    for (const count of CONNECTIONS) {
      await noteBytes(`on ${count} connection${count > 1 ? "s" : ""}`, [0], count);
    }
  }
  for (const count of CONNECTIONS) {
    await noteConnects(`${count} at a time`, [0], Math.max(count, CONNECT_COUNT), count);
  }
}

/** Each pod with its partner. */
async function measurePods(): Promise<void> {
  for (const count of POD_COUNTS) {
    await stage.enrol(count);
    const pods = Array.from({ length: count }, (_, i) => i);
    const name = `among ${count} pod${count > 1 ? "s" : ""} per node`;
    // Certificates and tunnels are there before the clock starts.
    await connects(pods, count, 1);
    await sleep(SETTLE_MS);
    note(`resident ${name}`, "MB", stage.proxies.map(residentMb), 0);
    for (let round = 0; round < ROUNDS; round++) await noteBytes(name, pods, 1);
    await noteConnects(name, pods, CONNECT_COUNT, BUSY_PODS);
    const idle = await spent(() => sleep(IDLE_MS));
    const perSecond = idle.seconds.map((one) => (one * 1e6) / (IDLE_MS + SETTLE_MS));
    note(`idle ${name}`, "CPU ms/s", perSecond, idle.stealShare);
  }
}

/** Round trips on so many connections of each pod, all at the same time. */
async function noteBytes(
  name: string,
  pods: readonly number[],
  connectionsEach: number,
): Promise<void> {
  const load = { bytes: MESSAGE_BYTES, connections: connectionsEach, durationMs: DURATION_MS };
  const open: GatedRoundTrips[] = [];
  await inTurns(pods, async (pod) => {
    const server = { ip: stage.server(pod).ipv4, port: ECHO_PORT };
    open.push(await openRoundTrips(stage.client(pod), load, server));
  });
  await sleep(SETTLE_MS);
  let gigabytes = 0;
  const { seconds, stealShare } = await spent(async () => {
    const results = await Promise.all(open.map((one) => one.run()));
    const count = results.reduce((sum, result) => sum + (result["count"] ?? 0), 0);
    // There and back.
    gigabytes = (2 * count * MESSAGE_BYTES) / 1e9;
  });
  await Promise.all(open.map((one) => one.release()));
  const perGb = seconds.map((one) => one / gigabytes);
  note(`messages of 16 KiB ${name}`, "CPU s/GB", perGb, stealShare);
}

/** New connections shared among the pods, at least one of each. */
function connects(pods: readonly number[], total: number, atATime: number): Promise<void> {
  const count = Math.ceil(total / pods.length);
  const each = Math.max(1, Math.floor(atATime / pods.length));
  return inTurns(pods, async (pod) => {
    const server = stage.server(pod).ipv4;
    await runLoad(stage.client(pod), "connect-rate", count, each, server, ECHO_PORT);
  });
}

/** With every pod, also when some fail: one of 250 is another fault than all from the 180th on. */
async function inTurns(
  pods: readonly number[],
  work: (pod: number) => Promise<void>,
): Promise<void> {
  const waiting = [...pods];
  const failures: unknown[] = [];
  const runner = async (): Promise<void> => {
    for (let pod = waiting.shift(); pod !== undefined; pod = waiting.shift()) {
      await work(pod).catch((error: unknown) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: BUSY_PODS }, runner));
  if (failures.length === 0) return;
  throw new AggregateError(failures, `${failures.length} of ${pods.length} pods failed`);
}

async function noteConnects(
  name: string,
  pods: readonly number[],
  total: number,
  atATime: number,
): Promise<void> {
  const { seconds, stealShare } = await spent(() => connects(pods, total, atATime));
  const per1000 = seconds.map((one) => (one * 1000) / total);
  note(`new connections ${name}`, "CPU s per 1,000", per1000, stealShare);
}

async function spent(
  work: () => Promise<void>,
): Promise<{ readonly seconds: readonly number[]; readonly stealShare: number }> {
  const times = processorTimes();
  const before = stage.proxies.map(cpuSeconds);
  await work();
  await sleep(SETTLE_MS);
  const seconds = stage.proxies.map((proxy, i) => cpuSeconds(proxy) - (before[i] ?? 0));
  return { seconds, stealShare: stealShareSince(times) };
}

/** One value per daemon, in the order of the stage's proxies. */
function note(name: string, unit: string, values: readonly number[], stealShare: number): void {
  for (const [i, { side }] of stage.proxies.entries()) {
    const of = { name: `${name}, ${side}'s proxy`, unit, system: "ztunnel" };
    samples.note(of, { value: values[i] ?? Number.NaN, stealShare });
  }
}
