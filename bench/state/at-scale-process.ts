/** The process that `at-scale.bench.ts` measures: the daemon's way from a response to its data threads. */
import { openSync, readFileSync, readSync } from "node:fs";
import { parseConfig } from "../../src/config/config-parser.ts";
import { startDataThreads } from "../../src/dataplane/data-threads.ts";
import { giveBackWhenQuiet } from "../../src/dataplane/quiet-thread.ts";
import { WorkerDataPlane } from "../../src/dataplane/worker-data-plane.ts";
import { native } from "../../src/net/native.ts";
import { systemClock as clock, sleep } from "../../src/runtime/clock.ts";
import type { LoopDelay } from "../../src/runtime/loop-delay.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { makeAffinityMemory } from "../../src/state/affinity-table.ts";
import { MeshMemory } from "../../src/state/mesh-memory.ts";
import { type MeshCommit, MeshWriter } from "../../src/state/mesh-writer.ts";
import { decodeDeltaResponse } from "../../src/wire/delta-discovery.ts";
import { DeltaClient } from "../../src/xds/delta-client.ts";
import { DiscoveryClient } from "../../src/xds/discovery-client.ts";
import type { DiscoveryStream, ReceivedResponse } from "../../src/xds/discovery-transport.ts";
import { meshSubscription } from "../../src/xds/mesh-subscription.ts";
import { silentLogger } from "../../test/support/silent-logger.ts";

export interface ScaleResult {
  readonly pushSeconds: number;
  /** Resident beyond the empty state: with the mesh, while it came, and after the changes. */
  readonly grownMb: number;
  readonly peakGrownMb: number;
  readonly churnedMb: number;
  /** Of the data thread that was latest. */
  readonly pushLateP99Ms: number;
  readonly pushLateMaxMs: number;
  readonly churnLateP99Ms: number;
  readonly churnCpuPercent: number;
}

const [script = "", rate = ""] = process.argv.slice(2);
const PUSH_RESPONSES = 2;
/** Longer than a thread takes to notice that it is quiet, and to give back what it does not need. */
const SETTLE_MS = 35_000;

const { proxy } = parseConfig({ LOCAL_XDS: "{}" }, undefined);
const memory = new MeshMemory();
const writer = new MeshWriter(memory, { localNode: "gke-production-pool-00000001" });
const dataPlane = new WorkerDataPlane(
  {
    clock,
    certificateFor: () => Promise.reject(new Error("nobody asks")),
    addressesOf: () => Promise.resolve([]),
    learn: () => Promise.reject(new Error("nobody asks")),
    outlierChanged: () => {},
    writeLog: () => {},
    threadFailed: (error) => {
      throw error;
    },
  },
  {
    threads: startDataThreads(2),
    mesh: memory.buffer,
    affinity: makeAffinityMemory(64),
    options: { onDemand: false, proxy, proxyEnabled: true, dns: undefined },
    log: { format: "plain", filter: "info" },
  },
);

/** The conversation's other side: hands out the script's responses when they are due. */
class ScriptedStream implements DiscoveryStream {
  readonly #file = openSync(script, "r");
  #count = 0;
  readonly pushed = Promise.withResolvers<void>();
  readonly ended = Promise.withResolvers<void>();
  #churnStart: number | undefined;
  #go = Promise.withResolvers<void>();

  send(): void {}

  start(): void {
    this.#go.resolve();
    this.#go = Promise.withResolvers();
  }

  async next(): Promise<ReceivedResponse | undefined> {
    if (this.#count === 0) await this.#go.promise;
    if (this.#count === PUSH_RESPONSES) {
      this.pushed.resolve();
      await this.#go.promise;
      this.#churnStart = clock.monotonic();
    }
    if (this.#churnStart !== undefined) {
      const dueAt = this.#churnStart + ((this.#count - PUSH_RESPONSES) * 1000) / Number(rate);
      const leftMs = dueAt - clock.monotonic();
      if (leftMs > 0) await sleep(clock, leftMs);
    }
    this.#count++;
    const bytes = this.#read();
    if (bytes !== undefined) return received(bytes);
    this.ended.resolve();
    return new Promise(() => {});
  }

  close(): void {}

  #read(): Buffer | undefined {
    const length = Buffer.alloc(4);
    if (readSync(this.#file, length) < 4) return undefined;
    const bytes = Buffer.alloc(length.readUInt32LE());
    readSync(this.#file, bytes);
    return bytes;
  }
}

const committed = ({ policiesChanged, workloadsChanged }: MeshCommit): void =>
  dataPlane.meshChanged({ policiesChanged, workloadsChanged });
const stream = new ScriptedStream();
const client = new DiscoveryClient(
  {
    transport: { open: async () => stream },
    client: new DeltaClient(meshSubscription({ writer, committed }, { onDemand: false }), {
      node: { id: "bench", metadata: {} },
      offeredBytesMax: 3_500_000,
    }),
    metrics: { received() {}, terminated() {} },
    connected() {},
    clock,
    random: systemRandom(),
    log: silentLogger,
  },
  { address: "https://bench", firstAnswerMs: 600_000, sliceMs: 5 },
);
const end = new AbortController();
void client.run(end.signal);
giveBackWhenQuiet(clock);

await dataPlane.collect();
const emptyMb = await settledMb();
await dataPlane.collect();
const startedAt = clock.monotonic();
stream.start();
await stream.pushed.promise;
const push = latest((await dataPlane.collect()).map(({ loopDelay }) => loopDelay));
const pushSeconds = (clock.monotonic() - startedAt) / 1000;
const peakMb = statusMb("VmHWM");
const grownMb = await settledMb();
await dataPlane.collect();
const cpu = process.cpuUsage();
const churnStartedAt = clock.monotonic();
stream.start();
await stream.ended.promise;
const { user, system } = process.cpuUsage(cpu);
const churnCpuPercent = (user + system) / 10 / (clock.monotonic() - churnStartedAt);
const churn = latest((await dataPlane.collect()).map(({ loopDelay }) => loopDelay));
const churnedMb = await settledMb();
const result: ScaleResult = {
  pushSeconds,
  grownMb: grownMb - emptyMb,
  peakGrownMb: peakMb - emptyMb,
  churnedMb: churnedMb - emptyMb,
  pushLateP99Ms: push.p99Ms,
  pushLateMaxMs: push.maxMs,
  churnLateP99Ms: churn.p99Ms,
  churnCpuPercent,
};
end.abort();
if (process.send === undefined) console.log(result);
else process.send(result);
process.exit(0);

function received(bytes: Uint8Array): ReceivedResponse {
  const response = decodeDeltaResponse(bytes);
  return { response, byteCount: bytes.length };
}

/** Resident memory once the daemon has given back what it does not need. */
async function settledMb(): Promise<number> {
  await sleep(clock, SETTLE_MS);
  native.releaseResidentMemory();
  return statusMb("VmRSS");
}

function statusMb(key: "VmRSS" | "VmHWM"): number {
  const line = new RegExp(`^${key}:\\s+(\\d+) kB$`, "m").exec(
    readFileSync("/proc/self/status", "utf8"),
  );
  return Number(line?.[1]) / 1000;
}

function latest(delays: readonly LoopDelay[]): LoopDelay {
  return delays.reduce((worst, delay) => (delay.p99Ms > worst.p99Ms ? delay : worst));
}
