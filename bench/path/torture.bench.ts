/**
 * Random connections over all ways that there are, under one set of options after the other, while a
 * policy changes and certificates are renewed: is every byte right, every report, and nothing left?
 * `TORTURE_SECONDS` says how long all of it takes, `TORTURE_SEED` repeats the connections of a run.
 */
import { randomInt } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Torture, type TortureResult } from "../../test/support/torture/torture.ts";
import { TortureLab, type TortureLabOptions } from "../../test/support/torture/torture-lab.ts";
import { orGiveUp } from "../give-up.ts";
import { keepLogs } from "../kept-logs.ts";
import { isQuick, OURS, report, Samples } from "../measure.ts";
import { requireStage } from "./require-stage.ts";

/** Sockets take little at once, the daemons' and the applications'. */
const SMALL_BUFFERS = `
echo 4096 8192 16384 > /proc/sys/net/ipv4/tcp_wmem
echo 4096 8192 16384 > /proc/sys/net/ipv4/tcp_rmem`;
const SMALL_WINDOWS = {
  HTTP2_STREAM_WINDOW_SIZE: "65535",
  HTTP2_CONNECTION_WINDOW_SIZE: "65535",
  HTTP2_FRAME_SIZE: "16384",
};
const STAGES: Readonly<Record<string, TortureLabOptions>> = {
  "one data thread": { environment: { ZTUNNEL_WORKER_THREADS: "1" } },
  "two data threads, small windows": {
    environment: { ZTUNNEL_WORKER_THREADS: "2", ...SMALL_WINDOWS },
  },
  "one data thread, small buffers and windows": {
    environment: { ZTUNNEL_WORKER_THREADS: "1", ...SMALL_WINDOWS },
    prepare: SMALL_BUFFERS,
  },
  "four data threads, three streams a tunnel": {
    environment: { ZTUNNEL_WORKER_THREADS: "4", POOL_MAX_STREAMS_PER_CONNECTION: "3" },
  },
  "no data thread, small buffers": {
    environment: { ZTUNNEL_WORKER_THREADS: "0" },
    prepare: SMALL_BUFFERS,
  },
};
const CONCURRENCY = 60;
const FLIP_EVERY_MS = 1500;
/** Renewed at half of that. */
const CERTIFICATE_TTL = "20s";

const seconds = orGiveUp(() => readNumber("TORTURE_SECONDS")) ?? (isQuick() ? 30 : 300);
const seed = orGiveUp(() => readNumber("TORTURE_SEED")) ?? randomInt(2 ** 30);
const samples = new Samples();
const problems: string[] = [];
requireStage();
console.log(`TORTURE_SEED=${seed}`);
for (const [name, options] of Object.entries(STAGES)) {
  const result = await tortureStage(options);
  note(`${name}: connections`, "count", result.count);
  note(`${name}: heard`, "MB", result.bytes / 1e6);
  note(`${name}: problems`, "count", result.problems.length);
  problems.push(...result.problems.map((problem) => `${name}: ${problem}`));
}
report(samples.measures());
for (const problem of problems) console.error(problem);
if (problems.length > 0) throw new Error(`${problems.length} problems, TORTURE_SEED=${seed}`);

async function tortureStage(options: TortureLabOptions): Promise<TortureResult> {
  const lab = await TortureLab.start({
    ...options,
    environment: { SECRET_TTL: CERTIFICATE_TTL, ...options.environment },
    logFolder: keepLogs(),
  });
  const isOver = new AbortController();
  const flips = flip(lab, isOver.signal);
  try {
    const durationMs = (seconds * 1000) / Object.keys(STAGES).length;
    const countMax = Number.POSITIVE_INFINITY;
    return await new Torture(lab, { seed, concurrency: CONCURRENCY, countMax, durationMs }).run();
  } finally {
    isOver.abort();
    await flips;
    await lab.close();
  }
}

async function flip(lab: TortureLab, signal: AbortSignal): Promise<void> {
  for (let isDenied = true; !signal.aborted; isDenied = !isDenied) {
    lab.setDenied(isDenied);
    await sleep(FLIP_EVERY_MS, undefined, { signal }).catch(() => {});
  }
}

function note(name: string, unit: string, value: number): void {
  samples.note({ name, unit, system: OURS }, { value, stealShare: 0 });
}

function readNumber(variable: string): number | undefined {
  const text = process.env[variable];
  if (text === undefined) return undefined;
  if (!/^[1-9]\d*$/.test(text)) throw new Error(`${variable} must be a number, not ${text}`);
  return Number(text);
}
