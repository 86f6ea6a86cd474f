/** The entry of a data thread: takes commands from the main thread, runs one {@link DataThread}. */
import { type MessagePort, parentPort } from "node:worker_threads";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { WorkloadCertificate } from "../mesh/workload-certificate.ts";
import { systemClock } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import { invariant } from "../runtime/invariant.ts";
import { measureLoopDelay } from "../runtime/loop-delay.ts";
import { Pace } from "../runtime/pace.ts";
import { systemRandom } from "../runtime/random.ts";
import { ThreadProfiler } from "../runtime/thread-profiler.ts";
import { AffinityTable } from "../state/affinity-table.ts";
import { MeshMemory } from "../state/mesh-memory.ts";
import { MeshState } from "../state/mesh-state.ts";
import { SessionAffinity } from "../state/session-affinity.ts";
import { createRootLogger, type RootLogger } from "../telemetry/root-logger.ts";
import { Calls } from "./calls.ts";
import { CertificateStore } from "./certificate-store.ts";
import type { ThreadSample } from "./data-plane.ts";
import { DataThread, type DataThreadDeps } from "./data-thread.ts";
import { makeEngine } from "./make-engine.ts";
import { giveBackWhenQuiet } from "./quiet-thread.ts";
import { ThreadLogSink } from "./thread-log-sink.ts";
import type { ThreadCommand, ThreadReport, ThreadStart } from "./thread-message.ts";

/** How long connections or series are told of at a time, and how many in one message. */
const SLICE_MS = 1;
const PORTION_CONNECTIONS = 128;
const PORTION_SERIES = 256;

const port = parentPort;
invariant(port !== null, "a data thread is started by the main thread");
let take = (start: unknown): void => {
  const worker = new DataWorker(port, start as ThreadStart);
  take = (command) => worker.take(command as ThreadCommand);
};
port.on("message", (message) => take(message));

class DataWorker {
  readonly #port: MessagePort;
  readonly #sink: ThreadLogSink;
  readonly #logger: RootLogger;
  readonly #thread: DataThread;
  readonly #profiler = new ThreadProfiler(systemClock);
  /** Asks the main thread, as the next two do. */
  readonly #signing = new Calls<WorkloadCertificate>();
  readonly #learning = new Calls<void>();
  readonly #lookups = new Calls<readonly IpAddress[]>();
  readonly #certificates = new CertificateStore(
    (identity) =>
      this.#signing.ask((call) => this.#report({ kind: "certificate", call, identity })),
    systemClock,
  );

  constructor(port: MessagePort, start: ThreadStart) {
    this.#port = port;
    this.#sink = new ThreadLogSink(systemClock, (text) => this.#report({ kind: "log", text }));
    this.#logger = createRootLogger({ ...start.log, sink: this.#sink, clock: systemClock });
    this.#thread = this.#makeThread(start);
    giveBackWhenQuiet(systemClock);
  }

  #makeThread({ mesh, affinity, options }: ThreadStart): DataThread {
    const log = this.#logger.root;
    const learn = (key: string): Promise<void> =>
      this.#learning.ask((call) => this.#report({ kind: "learn", call, key }));
    const deps: DataThreadDeps = {
      engine: makeEngine(systemClock, log, options),
      mesh: new MeshState(new MeshMemory(mesh)),
      certificateFor: (identity) => this.#certificates.certificate(identity),
      addressesOf: (hostname) =>
        this.#lookups.ask((call) => this.#report({ kind: "addresses", call, hostname })),
      learn: options.onDemand ? learn : undefined,
      affinity: new SessionAffinity(
        new AffinityTable(affinity, systemClock),
        options.proxy.affinity.services,
      ),
      outlierChanged: (change) => this.#report({ kind: "outlier", change }),
      log,
      clock: systemClock,
      random: systemRandom(),
      loopDelay: measureLoopDelay(),
    };
    return new DataThread(deps, options);
  }

  take(command: ThreadCommand): void {
    const thread = this.#thread;
    switch (command.kind) {
      case "mesh-changed":
        thread.meshChanged(command.change);
        break;
      case "certificate":
        if (command.certificate !== undefined) {
          this.#signing.answer(command.call, command.certificate);
        } else this.#signing.fail(command.call, new Error(command.error ?? "no certificate"));
        break;
      case "learnt":
        this.#learning.answer(command.call);
        break;
      case "addresses":
        if (command.ips !== undefined) this.#lookups.answer(command.call, command.ips);
        else this.#lookups.fail(command.call, new Error(command.error ?? "no answer"));
        break;
      case "renewed":
        this.#certificates.renewed(command.certificate);
        break;
      case "forgotten":
        this.#certificates.forgotten(command.identity);
        break;
      case "revocations":
        thread.revocationsChanged(command.lists);
        break;
      case "log-filter":
        this.#logger.setFilter(command.filter);
        break;
      case "start-workload":
      case "start-self":
      case "listen-dedicated":
      case "serve-dedicated":
      case "stop-listening":
      case "stop-workload":
      case "collect":
      case "connections":
      case "dns-datagrams":
      case "profile":
      case "drain":
      case "close":
        void this.#answer(command);
    }
  }

  /** Says when the command is done and what came of it, behind what was logged meanwhile; or why not. */
  async #answer(command: AnsweredCommand): Promise<void> {
    const { call } = command;
    try {
      const outcome = await this.#perform(command);
      this.#sink.flush();
      this.#report({ kind: "answer", call, ...outcome });
    } catch (error) {
      this.#report({ kind: "answer", call, error: errorText(error) });
    }
  }

  async #perform(command: AnsweredCommand): Promise<Outcome> {
    const thread = this.#thread;
    switch (command.kind) {
      case "start-workload":
        thread.startWorkload(command.workload, command.netnsFd, command.withDns);
        break;
      case "start-self":
        thread.startSelf(command.workload);
        break;
      case "listen-dedicated":
        thread.listenDedicated(command.workload, command.withDns);
        break;
      case "serve-dedicated":
        thread.serveDedicated();
        break;
      case "stop-listening":
        thread.stopListening(command.uid);
        break;
      case "stop-workload":
        await thread.stopWorkload(command.uid, command.drainMs);
        break;
      case "collect":
        return { sample: await this.#collect(command.call) };
      case "connections":
        await this.#tellConnections(command.call, command.uid);
        break;
      case "dns-datagrams":
        return { datagrams: await thread.dnsDatagrams(command.uid) };
      case "profile":
        return { profile: await this.#profiler.run(command.request) };
      case "drain":
        await thread.drain(command.deadlineMs);
        break;
      case "close":
        await thread.close();
    }
    return {};
  }

  async #tellConnections(call: number, uid: string): Promise<void> {
    const pace = new Pace(systemClock, SLICE_MS);
    const { inbound, outbound } = this.#thread.connections(uid);
    for (let at = 0; at < Math.max(inbound.length, outbound.length); at += PORTION_CONNECTIONS) {
      const end = at + PORTION_CONNECTIONS;
      const some = { inbound: inbound.slice(at, end), outbound: outbound.slice(at, end) };
      this.#report({ kind: "connections", call, some });
      if (pace.isOver) await pace.rest();
    }
  }

  /** @returns what the answer brings: with the last of the series, the others are told before. */
  async #collect(call: number): Promise<ThreadSample> {
    const pace = new Pace(systemClock, SLICE_MS);
    const sample = this.#thread.collect();
    const { series } = sample;
    let at = 0;
    for (; at + PORTION_SERIES < series.length; at += PORTION_SERIES) {
      this.#report({ kind: "series", call, some: series.slice(at, at + PORTION_SERIES) });
      if (pace.isOver) await pace.rest();
    }
    return { ...sample, series: series.slice(at) };
  }

  #report(report: ThreadReport): void {
    this.#port.postMessage(report);
  }
}

type AnsweredCommand = Exclude<
  Extract<ThreadCommand, { readonly call: number }>,
  { kind: "certificate" | "learnt" | "addresses" }
>;

/** What an answer brings. */
type Outcome = Omit<Extract<ThreadReport, { kind: "answer" }>, "kind" | "call" | "error">;
