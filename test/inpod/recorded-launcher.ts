/** A launcher that remembers what it was asked for, and the log and readiness around a reconciler. */
import {
  type PodNetns,
  type StoppingWorkload,
  type WorkloadLauncher,
  WorkloadReconciler,
} from "../../src/inpod/workload-reconciler.ts";
import type { EnrolledWorkload } from "../../src/mesh/enrolled-workload.ts";
import { Readiness } from "../../src/runtime/readiness.ts";
import {
  eachField,
  type LogFields,
  type Logger,
  type LogLevel,
  type LogValue,
} from "../../src/telemetry/logger.ts";
import { FakeClock } from "../support/fake-clock.ts";

export const DRAIN_MS = 5000;

export class RecordedLauncher implements WorkloadLauncher {
  /** `start uid` and `stop uid`, in order. */
  readonly calls: string[] = [];
  /** Texts of the next failures by uid; each is used once. */
  readonly failures: Map<string, string[]> = new Map();
  /** Ports are free only when this is. */
  portsGate: Promise<void> = Promise.resolve();
  /** The last connection ends only when this is set free. */
  stopGate: Promise<void> = Promise.resolve();
  /** What the last stop was given. */
  drainMs: number | undefined;

  async startWorkload(workload: EnrolledWorkload): Promise<void> {
    const failure = this.failures.get(workload.uid)?.shift();
    this.calls.push(`start ${workload.uid}${failure === undefined ? "" : " failed"}`);
    if (failure !== undefined) throw new Error(failure);
  }

  stopWorkload(uid: string, drainMs: number): StoppingWorkload {
    this.drainMs = drainMs;
    const portsFree = this.portsGate.then(() => void this.calls.push(`stop ${uid}`));
    return { portsFree, ended: Promise.all([portsFree, this.stopGate]).then(() => {}) };
  }
}

/** A namespace that knows whether it was closed, for tests without descriptors. */
export class FakeNetns implements PodNetns {
  readonly fd = -1;
  readonly key: string;
  closeCount = 0;

  constructor(key: string) {
    this.key = key;
  }

  close(): void {
    this.closeCount++;
  }
}

/** Lines as `target level message key=value`. */
export function capturedLog(): { log: Logger; lines: string[] } {
  const lines: string[] = [];
  const logger = (target: string): Logger => ({
    enabled: () => true,
    write(level: LogLevel, message: string, fields: LogFields = []) {
      const tail = eachField(fields)
        .map(([name, value]) => ` ${name}=${valueText(value)}`)
        .join("");
      lines.push(`${target} ${level} ${message}${tail}`);
    },
    target: (name) => logger(name.replace(/^ztunnel::/, "")),
    span: () => logger(target),
  });
  return { log: logger("ztunnel"), lines };
}

function valueText(value: LogValue): string {
  if (typeof value === "string") return JSON.stringify(value);
  return typeof value === "object" ? value.bare : String(value);
}

/** A reconciler with everything around it recorded. */
export class ReconcilerBench {
  readonly clock: FakeClock = new FakeClock();
  readonly launcher: RecordedLauncher = new RecordedLauncher();
  readonly readiness: Readiness = new Readiness(
    () => this.clock.monotonic(),
    () => {},
  );
  readonly counted: Record<"started" | "stopped" | "active" | "pending" | "draining", number> = {
    started: 0,
    stopped: 0,
    active: 0,
    pending: 0,
    draining: 0,
  };
  readonly log: Logger;
  readonly lines: string[];
  readonly reconciler: WorkloadReconciler;

  constructor() {
    ({ log: this.log, lines: this.lines } = capturedLog());
    const { counted } = this;
    this.reconciler = new WorkloadReconciler(
      {
        launcher: this.launcher,
        readiness: this.readiness,
        clock: this.clock,
        log: this.log,
        metrics: {
          started: () => void counted.started++,
          stopped: () => void counted.stopped++,
          counts: (count) => void Object.assign(counted, count),
        },
      },
      { drainMs: DRAIN_MS },
    );
  }

  get isReady(): boolean {
    return this.readiness.pending().length === 0;
  }

  /** `uid state`, sorted. */
  get workloads(): string[] {
    return this.reconciler
      .workloads()
      .map(({ workload, state }) => `${workload.uid} ${state}`)
      .sort();
  }
}
