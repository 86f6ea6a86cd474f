/**
 * The slowest messages: how late a data thread is for its events at a fixed rate of messages, and
 * what the questions of operators and a big push of the control plane add. Each comes several times
 * within a sample, far more often than in a cluster, so that the 99th percentile sees it.
 */
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startDataThreads } from "../../src/dataplane/data-threads.ts";
import { WorkerDataPlane } from "../../src/dataplane/worker-data-plane.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { type LoopDelay, measureLoopDelay } from "../../src/runtime/loop-delay.ts";
import { makeAffinityMemory } from "../../src/state/affinity-table.ts";
import { DataPlaneLab, DataPlaneStage } from "../../test/conformance/data-plane.ts";
import type { LabNode } from "../../test/support/lab-node.ts";
import { asUpdate, mesh } from "../../test/support/mesh-fixture.ts";
import type { LabHost } from "../../test/support/netns-lab.ts";
import { keepLogs } from "../kept-logs.ts";
import { buildLoadTool } from "../load/build.ts";
import { firstWords, runLoad } from "../load/run-load.ts";
import { processorTimes, stealShareSince } from "../machine.ts";
import { isQuick, type Measure, report, Samples } from "../measure.ts";
import { ECHO_PORT, PodsStage } from "./pods-stage.ts";

const ROUNDS = isQuick() ? 1 : 3;
const DURATION_MS = isQuick() ? 2000 : 5000;
const ECHOES = { bytes: 100, connections: 64, perSecond: 4000 };
/** A delay is taken 50 times a second: of fewer, the last thousandth would be the longest one. */
const DELAY_MS = isQuick() ? 2000 : 40_000;
const QUESTION_EVERY_MS = 250;
const PUSH_EVERY_MS = 2000;
const PUSHED_WORKLOADS = 20_000;
const SERVICES = 1000;
const MESSAGES = `echo at ${ECHOES.perSecond}/s on ${ECHOES.connections} connections`;

const samples = new Samples();
await measureQuestions();
await measurePush();
const measures = samples.measures();
report([...measures, ...added(measures)]);

/** Of the daemon: undisturbed, scraped, and asked for everything it knows. */
async function measureQuestions(): Promise<void> {
  const stage = await PodsStage.start({ podsPerNode: 1 });
  try {
    const nodes = [...stage.lab.nodes.values()];
    const [client, server] = [stage.client(0), stage.server(0)];
    const dump = (node: LabNode): Promise<string> => node.get(15000, "/config_dump");
    const disturbances: Record<string, (() => Promise<unknown>) | undefined> = {
      undisturbed: undefined,
      "with a scrape": () => Promise.all(nodes.map((node) => node.metrics())),
    };
    if (await Promise.all(nodes.map(dump)).catch(() => undefined)) {
      disturbances["with a config dump"] = () => Promise.all(nodes.map(dump));
    }
    await echo(client, server);
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, disturb] of Object.entries(disturbances)) {
        for (const node of nodes) await node.metrics();
        await sample(name, client, server, disturb, QUESTION_EVERY_MS);
      }
    }
    for (const node of nodes) await node.metrics();
    const idle = measureLoopDelay();
    await echo(client, server, DELAY_MS);
    await noteDelays(nodes, idle());
  } finally {
    await stage.close();
  }
}

/** Of a data thread that serves both pods, and gets the mesh from this process. */
async function measurePush(): Promise<void> {
  const lab = await DataPlaneLab.open();
  const stage = new DataPlaneStage(
    lab,
    (parts, options) =>
      new WorkerDataPlane(
        {
          clock: systemClock,
          certificateFor: parts.certificateFor,
          addressesOf: parts.addressesOf,
          learn: parts.learn,
          outlierChanged: () => {},
          writeLog: (text) => appendFileSync(join(keepLogs(), "data-plane.log"), text),
          threadFailed: (error) => {
            throw error;
          },
        },
        {
          threads: startDataThreads(1),
          mesh: parts.memory.buffer,
          affinity: makeAffinityMemory(64),
          options,
          log: { format: "plain", filter: "info" },
        },
      ),
    {},
  );
  try {
    await stage.startBoth();
    const program = buildLoadTool("echo-server");
    await firstWords(lab.net.spawn(lab.server, program, String(ECHO_PORT)));
    // Two versions in turn, so that each push changes every workload.
    const versions = [bigMesh("v1"), bigMesh("v2")];
    let pushed = 0;
    const push = async (): Promise<void> => stage.apply(versions[pushed++ & 1] ?? []);
    await push();
    await echo(lab.client, lab.server);
    for (let round = 0; round < ROUNDS; round++) {
      await sample("undisturbed, one thread for both ends", lab.client, lab.server);
      const name = `with a push of ${PUSHED_WORKLOADS} workloads, one thread for both ends`;
      await sample(name, lab.client, lab.server, push, PUSH_EVERY_MS);
      // Until the last one is through.
      await stage.dataPlane.collect();
    }
  } finally {
    await stage.close();
    lab.close();
  }
}

async function sample(
  name: string,
  client: LabHost,
  server: LabHost,
  disturb?: () => Promise<unknown>,
  everyMs = 0,
): Promise<void> {
  const before = processorTimes();
  let isDone = false;
  const disturbed = (async () => {
    while (disturb !== undefined && !isDone) {
      await sleep(everyMs);
      await disturb();
    }
  })();
  const result = await echo(client, server);
  isDone = true;
  await disturbed;
  const stealShare = stealShareSince(before);
  for (const [share, key] of [
    ["p50", "p50Us"],
    ["p99", "p99Us"],
    ["p99.9", "p999Us"],
  ] as const) {
    const of = { name: `${MESSAGES} ${name}, ${share}`, unit: "ms", system: "ztunnel" };
    samples.note(of, { value: (result[key] ?? Number.NaN) / 1e3, stealShare });
  }
}

function echo(
  client: LabHost,
  server: LabHost,
  durationMs = DURATION_MS,
): ReturnType<typeof runLoad> {
  const { bytes, connections, perSecond } = ECHOES;
  const load = [bytes, connections, perSecond, durationMs, 1] as const;
  return runLoad(client, "paced-echo", ...load, server.ipv4, ECHO_PORT);
}

/**
 * How late the data threads were since the last scrape.
 *
 * @param idle how late this process was meanwhile, which had nothing to do: what the machine's other
 *   work costs whoever is to run.
 */
async function noteDelays(nodes: readonly LabNode[], idle: LoopDelay): Promise<void> {
  const note = (name: string, value: number): void => {
    samples.note({ name, unit: "ms", system: "ztunnel" }, { value, stealShare: 0 });
  };
  const at = `at ${ECHOES.perSecond} messages/s`;
  for (const [i, node] of nodes.entries()) {
    const text = await node.metrics();
    for (const [quantile, share] of [
      ["0.99", "p99"],
      ["0.999", "p99.9"],
    ] as const) {
      const line = `data_thread_event_loop_delay_seconds{thread="0",quantile="${quantile}"} `;
      const value = Number(text.split(line)[1]?.split("\n")[0]) * 1e3;
      const side = i === 0 ? "client" : "server";
      note(`event-loop delay of a data thread ${at}, ${share}, ${side}'s proxy`, value);
    }
  }
  note(`event-loop delay of a process that does nothing ${at}, p99`, idle.p99Ms);
  note(`event-loop delay of a process that does nothing ${at}, p99.9`, idle.p999Ms);
}

function bigMesh(revision: string): ReturnType<typeof asUpdate>[] {
  const services = Array.from({ length: SERVICES }, (_, i) =>
    mesh
      .service(`svc-${i}`)
      .at(`10.96.${i >> 8}.${i & 255}`)
      .port(80, 8080),
  );
  const pods = Array.from({ length: PUSHED_WORKLOADS }, (_, i) => {
    const pod = mesh.workload(`w-${i}`).at(`10.${128 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`);
    return pod.hbone().behind(services[i % SERVICES] as (typeof services)[number], { 80: 8080 });
  });
  const updates = [...services, ...pods].map(asUpdate);
  return updates.map((update) =>
    update.kind === "workload"
      ? { ...update, workload: { ...update.workload, canonicalRevision: revision } }
      : update,
  );
}

/** What each disturbance adds to the p99 of the same connections without it, median from median. */
function added(measures: readonly Measure[]): Measure[] {
  return measures.flatMap((one) => {
    const [, what, where = ""] =
      /(with a .+?)(, one thread for both ends)?, p99$/.exec(one.name) ?? [];
    const calm = measures.find(({ name }) => name === `${MESSAGES} undisturbed${where}, p99`);
    if (what === undefined || calm === undefined) return [];
    const value = one.value - calm.value;
    return [
      { ...one, name: `${MESSAGES} ${what}, p99 added`, value, lowest: value, highest: value },
    ];
  });
}
