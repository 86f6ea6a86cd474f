/**
 * What V8 can tell of the thread that asks: where its time goes, and who made what is on its heap.
 * Threads can't look into each other, so each has its own.
 */
import type { HeapProfiler, Profiler } from "node:inspector";
import { type Clock, sleep } from "./clock.ts";

export type ProfileRequest =
  | { readonly kind: "cpu"; readonly durationMs: number; readonly frequencyHz: number }
  /** Begins, or ends and forgets, the sampling that `heap` reads. */
  | { readonly kind: "heap-sampling"; readonly active: boolean }
  /** What was made while sampling and is still there. */
  | { readonly kind: "heap" };

/** One function in one place of the tree of calls. Survives `structuredClone`. */
export interface CallNode {
  /** Index of the caller; -1 for a root. Callers stand before those they call. */
  readonly caller: number;
  readonly functionName: string;
  /** Empty for what is no script. */
  readonly url: string;
  /** From 1; 0 where there is none. */
  readonly line: number;
  /** Nanoseconds (CPU) or bytes (heap) of this function alone. */
  readonly value: number;
}

/** V8's own default: every so many bytes an object is noted. */
export const HEAP_INTERVAL_BYTES = 32_768;

/** Time without work; it is no use of a CPU. */
const IDLE = "(idle)";
/** Time outside of JavaScript. V8 takes a worker that waits for events for one that works here. */
const PROGRAM = "(program)";

export class ThreadProfiler {
  readonly #clock: Clock;
  #heap: InspectorSession | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * @returns empty for `heap-sampling`, and for `heap` when nothing is sampled.
   * @throws Error what V8 says.
   */
  run(request: ProfileRequest): Promise<readonly CallNode[]> {
    switch (request.kind) {
      case "cpu":
        return this.#profileCpu(request.durationMs, request.frequencyHz);
      case "heap-sampling":
        return this.#sampleHeap(request.active);
      case "heap":
        return this.#profileHeap();
    }
  }

  async #profileCpu(durationMs: number, frequencyHz: number): Promise<readonly CallNode[]> {
    const session = await openSession();
    try {
      await session.post("Profiler.enable");
      const interval = Math.round(1_000_000 / frequencyHz);
      await session.post("Profiler.setSamplingInterval", { interval });
      const before = process.threadCpuUsage();
      await session.post("Profiler.start");
      await sleep(this.#clock, durationMs);
      const { user, system } = process.threadCpuUsage(before);
      const { profile } = await session.post("Profiler.stop");
      return cpuNodes(profile, { interval, used: user + system });
    } finally {
      session.disconnect();
    }
  }

  async #sampleHeap(active: boolean): Promise<readonly CallNode[]> {
    if (active && this.#heap === undefined) {
      const session = await openSession();
      this.#heap = session;
      const samplingInterval = HEAP_INTERVAL_BYTES;
      await session.post("HeapProfiler.startSampling", { samplingInterval });
    } else if (!active) {
      this.#heap?.disconnect();
      this.#heap = undefined;
    }
    return [];
  }

  async #profileHeap(): Promise<readonly CallNode[]> {
    if (this.#heap === undefined) return [];
    const { profile } = await this.#heap.post("HeapProfiler.getSamplingProfile");
    return heapNodes(profile.head);
  }
}

type InspectorSession = Awaited<ReturnType<typeof openSession>>;

/** Few processes are ever profiled: the inspector is loaded when it is asked for. */
async function openSession() {
  // Named exports of a module of Node do not outlast the bundler when it is loaded late.
  const { default: inspector } = await import("node:inspector/promises");
  const session = new inspector.Session();
  session.connect();
  return session;
}

/** On a busy machine samples are missed, so the values are rather too small than too large. */
function cpuNodes(
  { nodes }: Profiler.Profile,
  microseconds: { readonly interval: number; readonly used: number },
): readonly CallNode[] {
  const timeOf = ({ hitCount = 0 }: Profiler.ProfileNode): number =>
    hitCount * microseconds.interval;
  let inScripts = 0;
  for (const node of nodes) {
    const { functionName } = node.callFrame;
    if (functionName !== IDLE && functionName !== PROGRAM) inScripts += timeOf(node);
  }
  const elsewhere = Math.max(0, microseconds.used - inScripts);
  const workOf = (node: Profiler.ProfileNode): number => {
    const { functionName } = node.callFrame;
    if (functionName === IDLE) return 0;
    return functionName === PROGRAM ? Math.min(timeOf(node), elsewhere) : timeOf(node);
  };
  const indexOf = new Map(nodes.map(({ id }, index) => [id, index]));
  const callers = new Map<number, number>();
  nodes.forEach(({ children = [] }, index) => {
    for (const child of children) callers.set(indexOf.get(child) ?? -1, index);
  });
  return nodes.map((node, index) => ({
    ...describe(node.callFrame),
    caller: callers.get(index) ?? -1,
    value: workOf(node) * 1000,
  }));
}

function heapNodes(head: HeapProfiler.SamplingHeapProfileNode): readonly CallNode[] {
  const nodes: CallNode[] = [];
  const rest: { node: HeapProfiler.SamplingHeapProfileNode; caller: number }[] = [
    { node: head, caller: -1 },
  ];
  for (let next = rest.pop(); next !== undefined; next = rest.pop()) {
    const { node, caller } = next;
    nodes.push({ ...describe(node.callFrame), caller, value: node.selfSize });
    for (const child of node.children) rest.push({ node: child, caller: nodes.length - 1 });
  }
  return nodes;
}

function describe(frame: {
  readonly functionName: string;
  readonly url: string;
  readonly lineNumber: number;
}): Pick<CallNode, "functionName" | "url" | "line"> {
  return { functionName: frame.functionName, url: frame.url, line: frame.lineNumber + 1 };
}
