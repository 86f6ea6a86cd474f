/**
 * The data path on worker threads. Each thread opens its own SO_REUSEPORT listeners, so the kernel
 * spreads connections over them; without port reuse a workload lives on one thread only.
 */
import type { Worker } from "node:worker_threads";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Identity } from "../mesh/identity.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import type { LiveConnections } from "../proxy/connection-report.ts";
import type { AddressesOf } from "../proxy/proxy-options.ts";
import type { TrafficDelta } from "../proxy/traffic-metrics.ts";
import type { Clock } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import { invariant } from "../runtime/invariant.ts";
import type { CallNode, ProfileRequest } from "../runtime/thread-profiler.ts";
import type { OutlierChange } from "../state/endpoint-outliers.ts";
import type { MeshChange } from "../state/mesh-writer.ts";
import type { RevocationList } from "../tls/revocation-list.ts";
import { Calls } from "./calls.ts";
import type { CertificateSource, DataPlane, StoppingWorkload, ThreadSample } from "./data-plane.ts";
import type { StartedThread } from "./data-threads.ts";
import type { ThreadCommand, ThreadReport, ThreadStart } from "./thread-message.ts";

/**
 * Waking a thread costs more than a change of the mesh, and threads read it without being told: word of
 * further changes waits this long for more, milliseconds.
 */
const NEWS_EVERY_MS = 50;

export interface WorkerDataPlaneDeps {
  readonly clock: Clock;
  readonly certificateFor: CertificateSource;
  /** Settles when the answer, if one came, has been applied; called where the mesh is on demand. */
  readonly learn: (key: string) => Promise<void>;
  readonly addressesOf: AddressesOf;
  /** An endpoint is left out by the thread of that name, or no longer. */
  readonly outlierChanged: (thread: string, change: OutlierChange) => void;
  /** Takes finished log lines. */
  readonly writeLog: (text: string) => void;
  /** A thread died of a bug; the process can't serve its listeners any more. */
  readonly threadFailed: (error: Error) => void;
}

export interface WorkerDataPlaneOptions extends ThreadStart {
  /** At least one; they are this data path's from now on. */
  readonly threads: readonly StartedThread[];
}

type Answer = Extract<ThreadReport, { kind: "answer" }>;

export class WorkerDataPlane implements DataPlane {
  readonly #threads: readonly WorkerThread[];
  readonly #reusePort: boolean;
  readonly #threadsOf = new Map<string, readonly WorkerThread[]>();
  #nextThread = 0;
  readonly #clock: Clock;
  /** What the threads have not been told yet. */
  #news: MeshChange | undefined;
  /** Whether something was told a moment ago. */
  #isNewsFresh = false;

  constructor(deps: WorkerDataPlaneDeps, options: WorkerDataPlaneOptions) {
    this.#clock = deps.clock;
    const { mesh, affinity, options: threadOptions, log } = options;
    const start: ThreadStart = { mesh, affinity, options: threadOptions, log };
    this.#reusePort = threadOptions.proxy.reusePort;
    this.#threads = options.threads.map((thread) => new WorkerThread(deps, start, thread));
  }

  get threads(): readonly string[] {
    return this.#threads.map(({ name }) => name);
  }

  meshChanged(change: MeshChange): void {
    this.#news = {
      policiesChanged: change.policiesChanged || this.#news?.policiesChanged === true,
      workloadsChanged: change.workloadsChanged || this.#news?.workloadsChanged === true,
    };
    if (!this.#isNewsFresh) this.#tellNews();
  }

  /** Now, and what comes meanwhile once a while has passed. */
  #tellNews(): void {
    const change = this.#news;
    this.#isNewsFresh = change !== undefined;
    if (change === undefined) return;
    this.#news = undefined;
    for (const thread of this.#threads) thread.post({ kind: "mesh-changed", change });
    this.#clock.after(NEWS_EVERY_MS, () => this.#tellNews());
  }

  async startWorkload(workload: EnrolledWorkload, netnsFd: number): Promise<void> {
    const threads = this.#reusePort ? this.#threads : [this.#nextOf(this.#threads)];
    this.#threadsOf.set(workload.uid, threads);
    // One socket hears all of a workload's queries, so that equal ones are asked once.
    const answering = this.#nextOf(threads);
    const outcomes = await Promise.allSettled(
      threads.map((thread) => {
        const withDns = thread === answering;
        return thread.call((call) => ({
          kind: "start-workload",
          call,
          workload,
          netnsFd,
          withDns,
        }));
      }),
    );
    const failure = outcomes.find((outcome) => outcome.status === "rejected");
    if (failure === undefined) return;
    await this.stopWorkload(workload.uid, 0).ended;
    throw failure.reason;
  }

  async startSelf(workload: EnrolledWorkload): Promise<void> {
    await this.#nextOf(this.#threads).call((call) => ({ kind: "start-self", call, workload }));
  }

  async listenDedicated(workload: EnrolledWorkload): Promise<void> {
    this.#threadsOf.set(workload.uid, this.#threads);
    const answering = this.#nextOf(this.#threads);
    await Promise.all(
      this.#threads.map((thread) => {
        const withDns = thread === answering;
        return thread.call((call) => ({ kind: "listen-dedicated", call, workload, withDns }));
      }),
    );
  }

  async serveDedicated(): Promise<void> {
    await this.#callAll(this.#threads, (call) => ({ kind: "serve-dedicated", call }));
  }

  stopWorkload(uid: string, drainMs: number): StoppingWorkload {
    const threads = this.#threadsOf.get(uid) ?? [];
    this.#threadsOf.delete(uid);
    const tell = async (command: (call: number) => ThreadCommand): Promise<void> => {
      // A thread that died holds nothing any more.
      await this.#callAll(threads, command).catch(() => {});
    };
    return {
      portsFree: tell((call) => ({ kind: "stop-listening", call, uid })),
      ended: tell((call) => ({ kind: "stop-workload", call, uid, drainMs })),
    };
  }

  certificateRenewed(certificate: WorkloadCertificate): void {
    for (const thread of this.#threads) thread.post({ kind: "renewed", certificate });
  }

  certificateForgotten(identity: Identity): void {
    for (const thread of this.#threads) thread.post({ kind: "forgotten", identity });
  }

  revocationsChanged(lists: readonly RevocationList[]): void {
    for (const thread of this.#threads) thread.post({ kind: "revocations", lists });
  }

  setLogFilter(filter: string): void {
    for (const thread of this.#threads) thread.post({ kind: "log-filter", filter });
  }

  async collect(): Promise<readonly ThreadSample[]> {
    const samples = await Promise.all(this.#threads.map((thread) => thread.collect()));
    return samples.filter((sample) => sample !== undefined);
  }

  async connections(uid: string): Promise<LiveConnections> {
    // Those that have outlived the workload may be on any thread.
    const all = await Promise.all(this.#threads.map((thread) => thread.connections(uid)));
    return {
      inbound: all.flatMap(({ inbound }) => inbound),
      outbound: all.flatMap(({ outbound }) => outbound),
    };
  }

  async dnsDatagrams(uid: string): Promise<Datagrams> {
    const answers = await this.#callAll(this.#threadsOf.get(uid) ?? [], (call) => ({
      kind: "dns-datagrams",
      call,
      uid,
    }));
    const sum = { received: 0, sent: 0 };
    for (const { datagrams } of answers) {
      sum.received += datagrams?.received ?? 0;
      sum.sent += datagrams?.sent ?? 0;
    }
    return sum;
  }

  async profile(thread: string, request: ProfileRequest): Promise<readonly CallNode[]> {
    const asked = this.#threads.find(({ name }) => name === thread);
    invariant(asked !== undefined, `there is no data thread ${thread}`);
    const { profile } = await asked.call((call) => ({ kind: "profile", call, request }));
    return profile ?? [];
  }

  async drain(deadlineMs: number): Promise<void> {
    await this.#callAll(this.#threads, (call) => ({ kind: "drain", call, deadlineMs }));
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  #callAll(
    threads: readonly WorkerThread[],
    command: (call: number) => ThreadCommand,
  ): Promise<Answer[]> {
    return Promise.all(threads.map((thread) => thread.call(command)));
  }

  /** Each in its turn. */
  #nextOf(threads: readonly WorkerThread[]): WorkerThread {
    return threads[this.#nextThread++ % threads.length] as WorkerThread;
  }
}

/** The main thread's end of one data thread. */
class WorkerThread {
  readonly name: string;
  readonly #worker: Worker;
  readonly #calls = new Calls<Answer>();
  /** By the call that asked for them. */
  readonly #connections = new Map<number, LiveConnections[]>();
  readonly #series = new Map<number, (readonly TrafficDelta[])[]>();
  readonly #deps: WorkerDataPlaneDeps;
  #ended = false;

  constructor(deps: WorkerDataPlaneDeps, start: ThreadStart, thread: StartedThread) {
    this.name = thread.name;
    this.#deps = deps;
    this.#worker = thread.worker;
    this.#worker.on("message", (report: ThreadReport) => this.#take(report));
    void thread.died.then((error) => this.#gone(error));
    this.#worker.postMessage(start);
  }

  post(command: ThreadCommand): void {
    this.#worker.postMessage(command);
  }

  call(command: (call: number) => ThreadCommand): Promise<Answer> {
    return this.#calls.ask((call) => this.post(command(call)));
  }

  async connections(uid: string): Promise<LiveConnections> {
    const portions: LiveConnections[] = [];
    await this.#callInPortions(this.#connections, portions, (call) => ({
      kind: "connections",
      call,
      uid,
    }));
    return {
      inbound: portions.flatMap(({ inbound }) => inbound),
      outbound: portions.flatMap(({ outbound }) => outbound),
    };
  }

  async collect(): Promise<ThreadSample | undefined> {
    const portions: (readonly TrafficDelta[])[] = [];
    const { sample } = await this.#callInPortions(this.#series, portions, (call) => ({
      kind: "collect",
      call,
    }));
    return sample && { ...sample, series: [...portions.flat(), ...sample.series] };
  }

  /** Idempotent; nothing is left to do for a thread that died. */
  async close(): Promise<void> {
    if (this.#ended) return;
    await this.call((call) => ({ kind: "close", call }));
    this.#ended = true;
    await this.#worker.terminate();
    this.#calls.failAll(new Error("the data thread is closed"));
  }

  /** @param waiting where reports of this call find the portions that they add to. */
  async #callInPortions<Portion>(
    waiting: Map<number, Portion[]>,
    portions: Portion[],
    command: (call: number) => ThreadCommand,
  ): Promise<Answer> {
    let asked = 0;
    try {
      return await this.call((call) => {
        asked = call;
        waiting.set(call, portions);
        return command(call);
      });
    } finally {
      waiting.delete(asked);
    }
  }

  #take(report: ThreadReport): void {
    switch (report.kind) {
      case "log":
        this.#deps.writeLog(report.text);
        break;
      case "answer":
        if (report.error !== undefined) this.#calls.fail(report.call, new Error(report.error));
        else this.#calls.answer(report.call, report);
        break;
      case "connections":
        this.#connections.get(report.call)?.push(report.some);
        break;
      case "outlier":
        this.#deps.outlierChanged(this.name, report.change);
        break;
      case "series":
        this.#series.get(report.call)?.push(report.some);
        break;
      case "certificate": {
        const { call } = report;
        this.#deps.certificateFor(report.identity).then(
          (certificate) => this.post({ kind: "certificate", call, certificate }),
          (error: unknown) => this.post({ kind: "certificate", call, error: errorText(error) }),
        );
        break;
      }
      case "learn": {
        const { call } = report;
        void this.#deps.learn(report.key).then(() => this.post({ kind: "learnt", call }));
        break;
      }
      case "addresses": {
        const { call } = report;
        this.#deps.addressesOf(report.hostname).then(
          (ips) => this.post({ kind: "addresses", call, ips }),
          (error: unknown) => this.post({ kind: "addresses", call, error: errorText(error) }),
        );
      }
    }
  }

  #gone(error: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#calls.failAll(error);
    this.#deps.threadFailed(error);
  }
}
