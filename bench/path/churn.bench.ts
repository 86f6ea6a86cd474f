/**
 * Half an hour in which everything changes: pods come and go behind a service, policies flip, the
 * control plane ends and starts again each minute, certificates live for two minutes. Meanwhile known
 * pairs of pods talk, on new connections and on old ones, and every answer is held against policy.
 *
 * Fails when policy and answer differ, when memory or descriptors grow, when a certificate runs out,
 * when a resource is refused. `CHURN_SECONDS` shortens it, and what is scaled to it.
 */
import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { orGiveUp } from "../give-up.ts";
import { type LoadResult, runLoad } from "../load/run-load.ts";
import { isQuick, OURS, report, Samples } from "../measure.ts";
import { PairLedger } from "./churn-ledger.ts";
import { type ChurnPod, GUARDED, POOL_VIP } from "./churn-mesh.ts";
import {
  ChurnStage,
  DATA_THREAD_MS,
  ECHO_PORT,
  type NodeName,
  type ProbeLoad,
} from "./churn-stage.ts";
import { residentMb } from "./path-stage.ts";

const DURATION_MS = orGiveUp(() => readSeconds(process.env["CHURN_SECONDS"])) * 1000;
/** Growth counts from here on: five minutes of thirty. */
const SETTLED_MS = DURATION_MS / 6;
const RESTART_EVERY_MS = Math.min(60_000, DURATION_MS / 3);
/** How long the control plane is away, in turn: between nothing and what back-off has to grow for. */
const AWAY_MS = [0, 3000, 8000] as const;
const FLIP_EVERY_MS = 4000;
const STEADY_PER_SECOND = 40;
const GUARDED_PER_SECOND = 10;
const ECHO_CONNECTIONS = 8;
/** How long a pod that comes and goes is there. */
const VISIT_MS = 3000;
/** Their addresses are used again by the next, with the same account: tunnels to the last are dead. */
const VISITOR_ADDRESSES = 3;
/** In a shorter run the heaps have not found their size: growth is told and not judged. */
const GROWTH_JUDGED_MS = 300_000;
const SAMPLE_EVERY_MS = 1000;
const CERTIFICATES_EVERY_MS = 5000;
/** Of the lowest value in the last sixth to the lowest in the first that counts. */
const RESIDENT_GROWTH_MAX = 1.1;
/** A tunnel or two and what is under way. */
const DESCRIPTOR_GROWTH_MAX = 8;

interface Footprint {
  readonly at: number;
  readonly residentMb: number;
  readonly descriptors: number;
}

const samples = new Samples();
const problems: string[] = [];
const counts = { flips: 0, visitors: 0, restarts: 0 };
const stage = await ChurnStage.start();
const daemons = (["node-a", "node-b"] as const).map((name) => {
  const { pid } = stage.lab.node(name).process;
  if (pid === undefined) throw new Error(`${name} has no process`);
  return { name, pid, footprints: [] as Footprint[] };
});
const startedAt = monotonicMs();
try {
  const ledgers = await runAll();
  await stage.lookAtCertificates();
  conclude(ledgers);
} finally {
  await stage.close();
}
report(samples.measures());
for (const [complaint, count] of stage.complaints) console.error(`${count} times: ${complaint}`);
for (const problem of problems) console.error(problem);
if (problems.length > 0) throw new Error(`${problems.length} problems: ${problems[0]}`);

/** @returns the ledgers of all pairs. */
async function runAll(): Promise<readonly PairLedger[]> {
  const steady: ProbeLoad = { kind: "new", perSecond: STEADY_PER_SECOND, durationMs: DURATION_MS };
  const fresh: ProbeLoad = { kind: "new", perSecond: GUARDED_PER_SECOND, durationMs: DURATION_MS };
  const kept: ProbeLoad = { ...fresh, kind: "kept" };
  const client = (index: number) => stage.lab.host(`client-${index}`);
  const ip = (name: string) => stage.lab.host(name).ipv4;
  const open = new PairLedger("client-0 to server-0", true);
  const pooled = new PairLedger("client-1 to the service", true);
  const never = new PairLedger(`client-3 to ${GUARDED.steady}`, false);
  const ruled = ["new", "kept"].map(
    (kind) => new PairLedger(`client-2 to ${GUARDED.ruled}, ${kind}`, true),
  );
  // Connections that exist when a policy begins to select their server stay, as with the original.
  const denied = new PairLedger(`client-2 to ${GUARDED.denied}`, true);
  const visiting = new PairLedger("to and from pods that come and go", true);
  const probes = [
    stage.probe(client(0), ip("server-0"), steady, open),
    stage.probe(client(1), POOL_VIP, steady, pooled),
    stage.probe(client(3), ip(GUARDED.steady), fresh, never),
    ...ruled.map((one, i) =>
      stage.probe(client(2), ip(GUARDED.ruled), i === 0 ? fresh : kept, one),
    ),
    stage.probe(client(2), ip(GUARDED.denied), fresh, denied),
  ];
  const echoes = holdEchoes();
  await Promise.all([
    ...probes,
    echoes,
    watched("flips", flip(ruled, [denied])),
    watched("visits", visit(visiting)),
    watched("restarts", restart()),
    watched("samples", sample()),
  ]);
  return [open, pooled, never, ...ruled, denied, visiting];
}

/** Long-lived connections, every byte compared; the first that fails ends them all. */
async function holdEchoes(): Promise<void> {
  const load = [100, ECHO_CONNECTIONS, STEADY_PER_SECOND, DURATION_MS, 1];
  const server = stage.lab.host(GUARDED.steady).ipv4;
  try {
    const client = stage.lab.host("client-1");
    const result = await runLoad(client, "paced-echo", ...load, server, ECHO_PORT);
    noteLatency(`echoes on ${ECHO_CONNECTIONS} connections that stay`, result);
  } catch (error) {
    problems.push(`${elapsed()} connections that stay: ${describe(error)}`);
  }
}

/** One rule changes, a policy comes or goes, in turn. */
async function flip(ruled: readonly PairLedger[], denied: readonly PairLedger[]): Promise<void> {
  for (let turn = 0; !isOver(FLIP_EVERY_MS); turn++) {
    const pairs = turn % 2 === 0 ? ruled : denied;
    const isAllowed = turn % 4 >= 2;
    const settle = pairs.map((pair) => pair.change(isAllowed, monotonicMs()));
    await stage.change(() =>
      turn % 2 === 0 ? { isAllowedByRule: isAllowed } : { isDeniedByPolicy: !isAllowed },
    );
    for (const settled of settle) settled(monotonicMs() + DATA_THREAD_MS);
    counts.flips++;
    await sleep(FLIP_EVERY_MS);
  }
}

/** A client and a server that stay for a few seconds, again and again. */
async function visit(ledger: PairLedger): Promise<void> {
  const load: ProbeLoad = { kind: "new", perSecond: GUARDED_PER_SECOND, durationMs: VISIT_MS };
  for (let turn = 0; !isOver(VISIT_MS); turn++) {
    const caller = await stage.bringUp(visitor(turn, "node-a"));
    const called = await stage.bringUp(visitor(turn, "node-b"));
    await Promise.all([
      stage.probe(caller.host, stage.lab.host("server-0").ipv4, load, ledger),
      stage.probe(caller.host, called.host.ipv4, load, ledger),
      stage.probe(stage.lab.host("client-0"), called.host.ipv4, load, ledger),
    ]);
    await stage.takeAway(called);
    await stage.takeAway(caller);
    counts.visitors += 2;
  }
}

function visitor(turn: number, node: NodeName): ChurnPod {
  const isServer = node === "node-b";
  return {
    name: `${isServer ? "called" : "caller"}-${turn}`,
    ip: `10.82.${isServer ? 4 : 3}.${1 + (turn % VISITOR_ADDRESSES)}`,
    node,
    serviceAccount: isServer ? "called" : "caller",
    isPooled: isServer,
    isReady: true,
  };
}

async function restart(): Promise<void> {
  for (let turn = 0; !isOver(RESTART_EVERY_MS); turn++) {
    await sleep(RESTART_EVERY_MS * 0.5);
    const awayMs = AWAY_MS[turn % AWAY_MS.length] ?? 0;
    const ms = await stage.restartControlPlane(turn % 2 === 0 ? "SIGTERM" : "SIGKILL", awayMs);
    counts.restarts++;
    note("control plane away", "s", ms / 1000);
    await sleep(RESTART_EVERY_MS * 0.5);
  }
}

async function sample(): Promise<void> {
  let looksAt = 0;
  while (!isOver(0)) {
    for (const { pid, footprints, name } of daemons) {
      const proxy = { side: name === "node-a" ? "client" : "server", pid } as const;
      footprints.push({
        at: monotonicMs() - startedAt,
        residentMb: residentMb(proxy),
        descriptors: readdirSync(`/proc/${pid}/fd`).length,
      });
    }
    if (monotonicMs() >= looksAt) {
      await stage.lookAtCertificates();
      looksAt = monotonicMs() + CERTIFICATES_EVERY_MS;
    }
    await sleep(SAMPLE_EVERY_MS);
  }
}

/** A churn that fails is a problem, and the others go on. */
async function watched(name: string, churn: Promise<void>): Promise<void> {
  try {
    await churn;
  } catch (error) {
    problems.push(`${elapsed()} ${name}: ${describe(error)}`);
  }
}

function conclude(ledgers: readonly PairLedger[]): void {
  note("policy flips", "count", counts.flips);
  note("pods that came and went", "count", counts.visitors);
  note("restarts of the control plane", "count", counts.restarts);
  for (const ms of stage.arrivals) note("a change reaches both daemons", "s", ms / 1000);
  for (const ledger of ledgers) {
    const { allowed, denied, undecided, wrong } = ledger.judge();
    for (const [what, count] of Object.entries({ allowed, denied, "during a change": undecided })) {
      if (count > 0) note(`${ledger.name}: ${what}`, "count", count);
    }
    note(`${ledger.name}: against policy`, "count", wrong.length);
    if (allowed + denied === 0) problems.push(`${ledger.name}: nothing was tried`);
    if (wrong.length === 0) continue;
    const [{ begunAt, endedAt, outcome }] = wrong as [(typeof wrong)[0] & object];
    problems.push(
      `${ledger.name}: ${wrong.length} against policy, the first ${outcome} at ` +
        `${at(begunAt)} after ${Math.round(endedAt - begunAt)} ms`,
    );
  }
  for (const { name, footprints } of daemons) judgeFootprints(name, footprints);
  note("certificates seen", "count", stage.certificates.size);
  note("shortest time that a certificate had left", "s", stage.shortestLeftMs / 1000);
  if (stage.shortestLeftMs <= 0) problems.push("a certificate ran out");
  note("resources refused", "count", stage.nackCount);
  if (stage.nackCount > 0) problems.push(`${stage.nackCount} responses were refused`);
}

/** The lowest of a while, because collections and connections under way come on top. */
function judgeFootprints(name: string, footprints: readonly Footprint[]): void {
  const lowest = (of: "residentMb" | "descriptors", fromMs: number): number => {
    const those = footprints.filter(({ at: ms }) => ms >= fromMs && ms < fromMs + SETTLED_MS);
    return Math.min(...those.map((one) => one[of]));
  };
  for (const [of, unit, limit] of [
    ["residentMb", "MB", (before: number) => before * RESIDENT_GROWTH_MAX],
    ["descriptors", "count", (before: number) => before + DESCRIPTOR_GROWTH_MAX],
  ] as const) {
    const before = lowest(of, SETTLED_MS);
    const after = lowest(of, DURATION_MS - SETTLED_MS);
    const what = `${of === "residentMb" ? "resident memory" : "descriptors"} of ${name}`;
    note(`${what}, settled`, unit, before);
    note(`${what}, at the end`, unit, after);
    if (DURATION_MS >= GROWTH_JUDGED_MS && after > limit(before))
      problems.push(`${what} grew from ${before} to ${after}`);
  }
}

function noteLatency(flow: string, result: LoadResult): void {
  note(`${flow}, done`, "count", result["count"] ?? Number.NaN);
  note(`${flow}, p99`, "ms", (result["p99Us"] ?? Number.NaN) / 1e3);
  note(`${flow}, longest`, "ms", (result["maxUs"] ?? Number.NaN) / 1e3);
}

function note(name: string, unit: string, value: number): void {
  samples.note({ name, unit, system: OURS }, { value, stealShare: 0 });
}

/** Whether something that takes so long would end too late. */
function isOver(takesMs: number): boolean {
  return monotonicMs() + takesMs >= startedAt + DURATION_MS;
}

/** The clock of the probes. */
function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

function elapsed(): string {
  return at(monotonicMs());
}

function at(tick: number): string {
  return `${((tick - startedAt) / 1000).toFixed(1)} s`;
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function readSeconds(text: string | undefined): number {
  if (text === undefined) return isQuick() ? 60 : 1800;
  if (!/^[1-9]\d*$/.test(text))
    throw new Error(`CHURN_SECONDS must be a number of seconds, not ${text}`);
  return Number(text);
}
