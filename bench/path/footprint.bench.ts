/**
 * What a proxy costs while nothing moves: resident memory, what idle connections add, and how long a
 * start takes. Processes do not give memory back, so every sample is taken from new ones.
 */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { waitUntil } from "../../test/support/wait-until.ts";
import { processorTimes, stealShareSince } from "../machine.ts";
import { isQuick, report, Samples } from "../measure.ts";
import { PathStage, type PathSystem, residentMb } from "./path-stage.ts";

const SAMPLE_COUNT = isQuick() ? 1 : 3;
const CONNECTION_COUNT = 2000;
/** After this long nothing of the start or of the opening is under way any more. */
const SETTLE_MS = 2000;

const samples = new Samples();
for (let i = 0; i < SAMPLE_COUNT; i++) {
  const stage = await PathStage.start("echo-server");
  try {
    await sleep(SETTLE_MS);
    for (const system of stage.systems) {
      if (system.proxies.length > 0) await sampleMemory(stage, system);
    }
    await sampleStart(stage);
  } finally {
    await stage.close();
  }
}
report(samples.measures());

async function sampleMemory(stage: PathStage, system: PathSystem): Promise<void> {
  const before = processorTimes();
  const idleMb = system.proxies.map(residentMb);
  const loadedMb = await stage.holdIdle(system, CONNECTION_COUNT, async () => {
    await sleep(SETTLE_MS);
    return system.proxies.map(residentMb);
  });
  const stealShare = stealShareSince(before);
  for (const [i, { side }] of system.proxies.entries()) {
    const idle = idleMb[i] ?? 0;
    const each = ((loadedMb[i] ?? 0) - idle) / (CONNECTION_COUNT / 1000);
    samples.note(
      { name: `resident memory after the start, ${side}'s proxy`, unit: "MB", system: system.name },
      { value: idle, stealShare },
    );
    samples.note(
      {
        name: `resident memory per 1,000 idle connections (of ${CONNECTION_COUNT}), ${side}'s proxy`,
        unit: "MB",
        system: system.name,
      },
      { value: each, stealShare },
    );
  }
}

/** The client's daemon is killed and the same command started again; its agent hands it the pods. */
async function sampleStart(stage: PathStage): Promise<void> {
  const system = stage.systems.find(({ name }) => name === "ztunnel");
  const node = stage.lab.node("node-a");
  const { pid } = node.process;
  if (system === undefined || pid === undefined) throw new Error("no daemon to start again");
  const command = nullSeparated(`/proc/${pid}/cmdline`);
  const environment = nullSeparated(`/proc/${pid}/environ`);
  const gone = new Promise((resolve) => node.process.once("exit", resolve));
  node.process.kill("SIGKILL");
  await gone;
  const before = processorTimes();
  const startedAt = performance.now();
  const child = stage.lab.net.spawn(node.host, "env", "-i", ...environment, ...command);
  child.stdout?.resume();
  const isReady = (): Promise<boolean> =>
    node.get(15021, "/healthz/ready").then(
      () => true,
      () => false,
    );
  await waitUntil(isReady, "the daemon never became ready again");
  samples.note(
    { name: "start to ready with 4 pods", unit: "ms", system: system.name },
    { value: performance.now() - startedAt, stealShare: stealShareSince(before) },
  );
}

function nullSeparated(file: string): string[] {
  return readFileSync(file, "utf8").split("\0").slice(0, -1);
}
