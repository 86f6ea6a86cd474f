/**
 * Which workloads should run here and which do: the state behind the ZDS dialogue. It reads no
 * socket and opens none; starting and stopping is the launcher's work. Everything happens in turn,
 * so a retry never overlaps a message.
 *
 * @see spec data-path 11.4 to 11.7.
 */
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Netns } from "../net/netns.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Readiness } from "../runtime/readiness.ts";
import type { Logger } from "../telemetry/logger.ts";
import { detailedText, InpodError } from "./inpod-error.ts";

/** Every so often all workloads that could not be started are tried again. */
const RETRY_MS = 5_000;

/** The name under which readiness waits for the first snapshot. */
const READINESS_TASK = "workload proxy manager";

/** Port: who opens a workload's listeners inside its network namespace. */
export interface WorkloadLauncher {
  /**
   * Settles when everything is bound.
   *
   * @param netnsFd stays open until all of {@link stopWorkload} has settled, or this has rejected.
   * @throws an error whose message is `failed to bind to address …`; nothing stays bound then.
   */
  startWorkload(workload: EnrolledWorkload, netnsFd: number): Promise<void>;
  /**
   * Closes the workload's ports; what is connected goes on until it ends.
   *
   * @param drainMs what is left then is ended; 0: everything ends at once.
   */
  stopWorkload(uid: string, drainMs: number): StoppingWorkload;
}

/** A workload on its way out. Nothing of it rejects. */
export interface StoppingWorkload {
  /** Settles when the same workload may be started again. */
  readonly portsFree: Promise<void>;
  /** Settles when its last connection has ended. */
  readonly ended: Promise<void>;
}

/** Port: the counters of {@link file://./metrics.ts}. */
export interface ReconcilerMetrics {
  started(): void;
  stopped(): void;
  counts(count: {
    readonly active: number;
    readonly pending: number;
    readonly draining: number;
  }): void;
}

export interface WorkloadReconcilerOptions {
  /** How long connections of a workload that has left may go on, milliseconds; 0: they end with it. */
  readonly drainMs: number;
}

export interface WorkloadReconcilerDeps {
  readonly launcher: WorkloadLauncher;
  readonly metrics: ReconcilerMetrics;
  readonly readiness: Pick<Readiness, "await" | "complete">;
  readonly clock: Clock;
  /** Any target; the original's two are taken from it. */
  readonly log: Logger;
}

/** A pod's namespace; whoever holds it closes it. */
export type PodNetns = Pick<Netns, "fd" | "key" | "close">;

interface Enrolment {
  readonly workload: EnrolledWorkload;
  readonly netns: PodNetns;
}

/** One that could not be started, and why the last time. */
interface PendingEnrolment extends Enrolment {
  readonly failure: string;
}

/** One that was taken back and has connections that go on. */
interface DrainingWorkload {
  readonly workload: EnrolledWorkload;
  /** Wall clock, milliseconds. */
  readonly deadline: number;
}

/** A workload that is or was handed over and still matters, for operators. */
export type WorkloadStanding = {
  readonly workload: EnrolledWorkload;
} & (
  | { readonly state: "Up" }
  /** Why it could not be started. */
  | { readonly state: "Pending"; readonly failure: string }
  /** Taken back; wall clock milliseconds when what is left of its connections is ended. */
  | { readonly state: "Draining"; readonly deadline: number }
);

export class WorkloadReconciler {
  readonly #deps: WorkloadReconcilerDeps;
  readonly #drainMs: number;
  /** Lines about workloads. */
  readonly #stateLog: Logger;
  /** Lines about the course of things. */
  readonly #courseLog: Logger;
  readonly #running = new Map<string, Enrolment>();
  readonly #pending = new Map<string, PendingEnrolment>();
  /** Key is a uid; a new start of it waits, because the ports are still taken. */
  readonly #portsTaken = new Map<string, Promise<void>>();
  /** Until when there is something left of them. */
  readonly #draining = new Map<DrainingWorkload, Promise<void>>();
  /** Uids named since the conversation began; empty once the snapshot is complete. */
  readonly #named = new Set<string>();
  #snapshotReceived = false;
  #retry: Timer | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** From here on the process is not ready until a snapshot is complete. */
  constructor(deps: WorkloadReconcilerDeps, options: WorkloadReconcilerOptions) {
    this.#deps = deps;
    this.#drainMs = options.drainMs;
    this.#stateLog = deps.log.target("ztunnel::inpod::statemanager");
    this.#courseLog = deps.log.target("ztunnel::inpod::workloadmanager");
    deps.readiness.await(READINESS_TASK);
  }

  /** Each uid once; one that came back has the connections of its former life, too. */
  workloads(): readonly WorkloadStanding[] {
    const all = new Map<string, WorkloadStanding>();
    for (const [uid, { workload }] of this.#running) all.set(uid, { workload, state: "Up" });
    for (const [uid, { workload, failure }] of this.#pending) {
      all.set(uid, { workload, state: "Pending", failure });
    }
    for (const { workload, deadline } of this.#draining.keys()) {
      if (all.has(workload.uid)) continue;
      all.set(workload.uid, { workload, state: "Draining", deadline });
    }
    return [...all.values()];
  }

  /** Open while the workload runs. @returns `undefined` for what does not run. */
  netnsFd(uid: string): number | undefined {
    return this.#running.get(uid)?.netns.fd;
  }

  /** A conversation with the agent begins: it will name all workloads anew. */
  conversationStarted(): Promise<void> {
    return this.#inTurn(async () => {
      for (const uid of [...this.#pending.keys()]) this.#dropPending(uid);
      this.#named.clear();
      this.#snapshotReceived = false;
    });
  }

  /** The agent is lost. What runs goes on running; nothing is retried until it is back. */
  conversationEnded(): Promise<void> {
    return this.#inTurn(async () => {
      this.#retry?.cancel();
      this.#retry = undefined;
      this.#deps.readiness.await(READINESS_TASK);
    });
  }

  /**
   * Takes the namespace.
   *
   * @throws InpodError `start`: kept for a retry; `protocol` without a workload.
   */
  add(
    uid: string,
    described: Omit<EnrolledWorkload, "uid"> | undefined,
    netns: PodNetns,
  ): Promise<void> {
    return this.#inTurn(async () => {
      if (described === undefined) {
        netns.close();
        throw new InpodError("protocol", "workload_info is required but not present");
      }
      const workload: EnrolledWorkload = { uid, ...described };
      this.#stateLog.write("info", "pod received, starting proxy", [
        ["uid", uid],
        ["name", workload.name],
        ["namespace", workload.namespace],
      ]);
      if (!this.#snapshotReceived) this.#named.add(uid);
      this.#dropPending(uid);
      const known = this.#running.get(uid);
      if (known?.netns.key === netns.key) {
        netns.close();
        return this.#settled();
      }
      if (known !== undefined) this.#stop(uid);
      try {
        await this.#start({ workload, netns });
      } catch (cause) {
        const error = new InpodError("start", errorText(cause), { cause });
        this.#courseLog.write("error", `failed to start proxy: ${detailedText(error)}`, [
          ["uid", { bare: uid }],
        ]);
        this.#pending.set(uid, { workload, netns, failure: error.message });
        this.#scheduleRetry();
        this.#count();
        throw error;
      }
      this.#settled();
    });
  }

  /** @throws InpodError `protocol` once the snapshot is complete. */
  keep(uid: string): Promise<void> {
    return this.#inTurn(async () => {
      this.#stateLog.write("info", "pod keep received. will not delete it when snapshot is sent", [
        ["uid", uid],
      ]);
      if (this.#snapshotReceived) {
        throw new InpodError("protocol", "pod keep received after snapshot");
      }
      this.#named.add(uid);
    });
  }

  /** Unknown uids are fine. Settles before the workload has stopped. */
  del(uid: string): Promise<void> {
    return this.#inTurn(async () => {
      this.#stateLog.write("info", "pod delete request, shutting down proxy", [["uid", uid]]);
      this.#dropPending(uid);
      if (this.#snapshotReceived) this.#stop(uid);
      else this.#named.delete(uid);
      this.#settled();
    });
  }

  /** @throws InpodError `protocol` when it was complete already. */
  snapshotSent(): Promise<void> {
    return this.#inTurn(async () => {
      this.#stateLog.write("info", "received snapshot sent");
      if (this.#snapshotReceived) {
        throw new InpodError("protocol", "pod snapshot received already");
      }
      for (const uid of [...this.#running.keys()]) {
        if (this.#named.has(uid)) continue;
        this.#stateLog.write("info", "pod is not in the snapshot, shutting down proxy", [
          ["uid", uid],
        ]);
        this.#stop(uid);
      }
      this.#named.clear();
      this.#snapshotReceived = true;
      this.#settled();
    });
  }

  /** Lets everything go and closes all namespaces; call once, after the last conversation. */
  async close(): Promise<void> {
    await this.#inTurn(async () => {
      this.#retry?.cancel();
      this.#retry = undefined;
      for (const uid of [...this.#pending.keys()]) this.#dropPending(uid);
      for (const uid of [...this.#running.keys()]) this.#stop(uid);
    });
    await Promise.all(this.#draining.values());
  }

  async #start(enrolment: Enrolment): Promise<void> {
    const { uid } = enrolment.workload;
    await this.#portsTaken.get(uid);
    await this.#deps.launcher.startWorkload(enrolment.workload, enrolment.netns.fd);
    this.#running.set(uid, enrolment);
    this.#deps.metrics.started();
  }

  /** In the background; nothing happens for what does not run. */
  #stop(uid: string): void {
    const known = this.#running.get(uid);
    if (known === undefined) return;
    this.#running.delete(uid);
    const { launcher, metrics, clock } = this.#deps;
    metrics.stopped();
    const { portsFree, ended } = launcher.stopWorkload(uid, this.#drainMs);
    const free = portsFree.then(() => {
      if (this.#portsTaken.get(uid) === free) this.#portsTaken.delete(uid);
    });
    this.#portsTaken.set(uid, free);
    const { workload, netns } = known;
    const draining = { workload, deadline: clock.now() + this.#drainMs };
    const drained = ended.then(() => {
      netns.close();
      this.#draining.delete(draining);
      this.#count();
    });
    this.#draining.set(draining, drained);
  }

  #dropPending(uid: string): void {
    this.#pending.get(uid)?.netns.close();
    this.#pending.delete(uid);
  }

  #scheduleRetry(): void {
    if (this.#retry !== undefined) return;
    this.#courseLog.write("info", "scheduling retry", [
      ["uids", { bare: JSON.stringify([...this.#pending.keys()]) }],
    ]);
    this.#retry = this.#deps.clock.after(RETRY_MS, () => {
      this.#retry = undefined;
      void this.#inTurn(() => this.#retryPending());
    });
  }

  async #retryPending(): Promise<void> {
    for (const [uid, enrolment] of [...this.#pending]) {
      this.#stateLog.write("info", "retrying workload", [["uid", uid]]);
      try {
        await this.#start(enrolment);
        this.#pending.delete(uid);
      } catch (error) {
        // Stays pending; the line is what an operator has to see.
        const failure = errorText(error);
        this.#pending.set(uid, { ...enrolment, failure });
        this.#stateLog.write("info", `retrying workload failed: ${failure}`, [["uid", uid]]);
      }
    }
    if (this.#pending.size > 0) this.#scheduleRetry();
    this.#settled();
  }

  /** Ready once the snapshot is complete and all of it runs; a later failure does not take it back. */
  #settled(): void {
    this.#count();
    if (this.#snapshotReceived && this.#pending.size === 0) {
      this.#deps.readiness.complete(READINESS_TASK);
    }
  }

  #count(): void {
    this.#deps.metrics.counts({
      active: this.#running.size,
      pending: this.#pending.size,
      draining: this.#draining.size,
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    // The failure belongs to who asked; the next in turn runs all the same.
    this.#turn = done.catch(() => {});
    return done;
  }
}
