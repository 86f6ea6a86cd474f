/**
 * The composition root of the daemon: builds every room, connects their ports, starts in the order
 * of the original and stops in its order.
 *
 * @see spec data-path 1.7 and 7.4, control-plane 11.
 */
import type { DrainTimes } from "./admin/drain-report.ts";
import type { Config } from "./config/config.ts";
import { DaemonCertificates } from "./daemon/daemon-certificates.ts";
import { type DataPlaneThreads, makeDataPlane } from "./daemon/daemon-data-plane.ts";
import { DaemonMesh } from "./daemon/daemon-mesh.ts";
import { DedicatedMode } from "./daemon/dedicated-mode.ts";
import type { Mode } from "./daemon/mode.ts";
import { OperatorServers } from "./daemon/operator-servers.ts";
import { releaseWhenQuiet } from "./daemon/quiet-process.ts";
import { SharedMode } from "./daemon/shared-mode.ts";
import type { DataPlane } from "./dataplane/data-plane.ts";
import type { StartedThread } from "./dataplane/data-threads.ts";
import { makeOutlierFamilies } from "./dataplane/metrics.ts";
import { OutlierList } from "./dataplane/outlier-list.ts";
import { giveBackWhenQuiet } from "./dataplane/quiet-thread.ts";
import { createCertificateMetrics } from "./identity/metrics.ts";
import { SocketSampler } from "./inpod/socket-sampler.ts";
import { native } from "./net/native.ts";
import { takeCensus } from "./net/socket-census.ts";
import { systemClock } from "./runtime/clock.ts";
import { counted } from "./runtime/counted.ts";
import { threadCpuMs } from "./runtime/cpu-time.ts";
import { errorText } from "./runtime/error-text.ts";
import { systemRandom } from "./runtime/random.ts";
import { Readiness } from "./runtime/readiness.ts";
import { AffinityTable, makeAffinityMemory } from "./state/affinity-table.ts";
import type { MeshCommit } from "./state/mesh-writer.ts";
import { SessionAffinity } from "./state/session-affinity.ts";
import { buildInfo } from "./telemetry/build-info.ts";
import { LogDestination } from "./telemetry/log-destination.ts";
import type { Logger } from "./telemetry/logger.ts";
import { makeRegistry } from "./telemetry/registry.ts";
import { createRootLogger } from "./telemetry/root-logger.ts";
import { createDiscoveryMetrics } from "./xds/metrics.ts";

const STDOUT_FD = 1;

/** From ready on; by then the first certificates are there, and nothing is loaded any more. */
const START_MEMORY_MS = 1000;

/**
 * From ready on. What makes certificates takes longer to load than all else, so pods get their listeners and
 * the readiness probe its answer first; a connection that needs a certificate does not wait for this.
 */
const PREFETCH_AFTER_MS = 250;

/** A running daemon. */
export interface App {
  /** Begins to stop because of a signal. Idempotent. */
  shutDown(signal: string): void;
  /** Settles when what was logged has been written. */
  flushLog(): Promise<void>;
  /** The exit code, when everything has ended. Never rejects. */
  readonly ended: Promise<number>;
}

/**
 * Settles when the daemon has begun; it may not be ready yet.
 *
 * @param threads as many as configured; the data path runs on them, without any on this thread.
 * @throws what stands in the way: a port that is taken, a mesh file that can't be read, a missing
 *   privilege. Nothing is left running that would keep the process alive.
 */
export async function startApp(config: Config, threads: readonly StartedThread[]): Promise<App> {
  native.forbidMemoryDumps();
  // What moves bytes is loaded on the thread that moves them.
  const inline =
    threads.length === 0 ? await import("./dataplane/inline-data-plane.ts") : undefined;
  const daemon = new Daemon(config, { threads, openInline: inline?.openInlineDataPlane });
  try {
    await daemon.start();
  } catch (error) {
    await daemon.flushLog();
    throw error;
  }
  return daemon;
}

class Daemon implements App {
  readonly #config: Config;
  readonly #clock = systemClock;
  readonly #random = systemRandom();
  readonly #sink: LogDestination;
  readonly #log: Logger;
  readonly #readiness: Readiness;
  readonly #mesh: DaemonMesh;
  readonly #certificates: DaemonCertificates;
  readonly #affinity: SessionAffinity;
  readonly #outliers: OutlierList;
  readonly #dataPlane: DataPlane;
  readonly #sockets: SocketSampler;
  readonly #mode: Mode;
  readonly #servers: OperatorServers;
  readonly #ready = Promise.withResolvers<void>();
  readonly #mayPrefetch = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<number>();
  readonly #end = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #stopping = false;
  #hasCrashed = false;
  #drainTimes: DrainTimes | undefined;

  constructor(config: Config, dataPlaneThreads: DataPlaneThreads) {
    this.#config = config;
    const clock = this.#clock;
    const random = this.#random;
    const registry = makeRegistry();
    this.#sink = new LogDestination(
      { clock, dropped: (count) => this.#reportDropped(count) },
      { fd: STDOUT_FD, bufferBytesMax: config.logging.bufferBytesMax },
    );
    const logger = createRootLogger({
      format: config.logging.format,
      filter: config.logging.filter,
      sink: this.#sink,
      clock,
    });
    const log = logger.root;
    this.#log = log;
    this.#readiness = new Readiness(
      () => clock.monotonic(),
      (task, afterMs, pending) => this.#reportReady(task, afterMs, pending),
    );
    this.#readiness.await("state manager");
    if (config.proxyEnabled) this.#readiness.await("proxy");
    if (config.dns !== undefined) this.#readiness.await("dns proxy");
    this.#mesh = new DaemonMesh(
      {
        committed: (commit) => this.#committed(commit),
        metrics: (status) => createDiscoveryMetrics(registry, status, clock),
        connected: () => this.#certificates.retryUnanswered(),
        clock,
        random,
        log,
      },
      config,
    );
    this.#certificates = new DaemonCertificates(
      { clock, random, log, metrics: (counts) => createCertificateMetrics(registry, counts) },
      config,
    );
    const { affinity } = config.proxy;
    const affinityMemory = makeAffinityMemory(affinity.clientsMax);
    const table = new AffinityTable(affinityMemory, clock);
    this.#affinity = new SessionAffinity(table, affinity.services);
    this.#outliers = new OutlierList({ log, families: makeOutlierFamilies(registry) });
    this.#dataPlane = makeDataPlane(
      {
        mesh: this.#mesh,
        certificateFor: (identity) => this.#certificates.certificate(identity),
        affinity: this.#affinity,
        affinityMemory,
        outliers: this.#outliers,
        clock,
        random,
        log,
        writeLog: (text) => this.#sink.write(text),
        threadFailed: (error) => this.#crash(error),
      },
      config,
      dataPlaneThreads,
    );
    this.#sockets = this.#makeSocketSampler();
    this.#mode = this.#makeMode(registry);
    this.#servers = new OperatorServers(
      {
        mesh: this.#mesh,
        certificates: this.#certificates,
        dataPlane: this.#dataPlane,
        outliers: this.#outliers,
        affinity: this.#affinity,
        mode: this.#mode,
        sockets: this.#sockets,
        readiness: this.#readiness,
        registry,
        logger,
        clock,
        quit: () => this.#begin("received explicit shutdown signal"),
        drainTimes: () => this.#drainTimes,
      },
      config,
    );
  }

  get ended(): Promise<number> {
    return this.#ended.promise;
  }

  async flushLog(): Promise<void> {
    await this.#sink.flush();
  }

  async start(): Promise<void> {
    const log = this.#log;
    log.write("info", `version: ${buildInfo(this.#config.istioVersion)}`);
    log.write("info", `running with config: ${describe(this.#config)}`);
    await this.#servers.listenReadiness();
    const updates = this.#mesh.readFile();
    await this.#servers.listenAdmin();
    this.#mesh.apply(updates);
    await this.#servers.listenMetrics();
    await this.#certificates.tell(this.#dataPlane);
    await this.#mode.prepare();
    this.#running = this.#run();
    this.#readiness.complete("proxy");
    this.#readiness.complete("dns proxy");
    void this.#ready.promise.then(() => {
      this.#clock.after(PREFETCH_AFTER_MS, () => this.#mayPrefetch.resolve());
      this.#clock.after(START_MEMORY_MS, () => native.releaseResidentMemory());
    });
    giveBackWhenQuiet(this.#clock);
    releaseWhenQuiet(this.#clock);
  }

  shutDown(signal: string): void {
    this.#begin(`received signal ${signal}, starting shutdown`);
  }

  #begin(message: string): void {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#log.target("ztunnel::signal::imp").write("info", message);
    this.#stop().catch((error: unknown) => this.#crash(error));
  }

  /**
   * Ends in the order of spec data-path 7.4.
   *
   * @throws what a data thread died of meanwhile.
   */
  async #stop(): Promise<void> {
    const { drainMs } = this.#config;
    const since = this.#clock.now();
    this.#drainTimes = { since, deadline: since + drainMs };
    const closing = this.#servers.closeEarly();
    this.#end.abort();
    this.#sockets.close();
    await this.#running;
    await this.#dataPlane.drain(drainMs);
    await this.#servers.close();
    await this.#dataPlane.close();
    await this.#mesh.close();
    this.#certificates.close();
    await closing;
    await this.flushLog();
    this.#ended.resolve(0);
  }

  /** Something that must not happen happened: say so, once, and end; the kubelet starts us anew. */
  #crash(error: unknown): void {
    if (this.#hasCrashed) return;
    this.#hasCrashed = true;
    this.#log.write("error", `ending because of a failure: ${errorText(error)}`);
    this.#stopping = true;
    void this.flushLog().then(() => this.#ended.resolve(1));
  }

  /** Carries once the mesh is known: before, everything would pass as plain text. Never rejects. */
  async #run(): Promise<void> {
    const { signal } = this.#end;
    await this.#mesh.learnAll(signal);
    if (this.#stopping) return;
    this.#readiness.complete("state manager");
    try {
      await this.#mode.run(signal);
    } catch (error) {
      this.#crash(error);
    }
  }

  #makeMode(registry: ReturnType<typeof makeRegistry>): Mode {
    const { mode, proxy } = this.#config;
    const deps = {
      native,
      dataPlane: this.#dataPlane,
      certificates: this.#certificates,
      sockets: this.#sockets,
      readiness: this.#readiness,
      registry,
      clock: this.#clock,
      random: this.#random,
      log: this.#log,
    };
    if (mode.kind === "shared") return new SharedMode(deps, mode);
    return new DedicatedMode(deps, mode, proxy);
  }

  #makeSocketSampler(): SocketSampler {
    const { mode, proxy, podSocketsMs } = this.#config;
    // What a dedicated proxy has accepted has no mark.
    const mark = mode.kind === "shared" ? proxy.mark || undefined : undefined;
    const { state } = this.#mesh;
    return new SocketSampler(
      {
        takeCensus: (netnsFd) => takeCensus(native, { netnsFd, mark }),
        dnsDatagrams: (uid) => this.#dataPlane.dnsDatagrams(uid),
        cpuMs: threadCpuMs,
        workloadName: (workload) => state.findLocalWorkload(workload)?.workloadName || "unknown",
        clock: this.#clock,
        log: this.#log,
      },
      { intervalMs: podSocketsMs },
    );
  }

  #committed(commit: MeshCommit): void {
    const { policiesChanged, workloadsChanged, localWorkloads } = commit;
    if (!policiesChanged && !workloadsChanged) return;
    this.#dataPlane.meshChanged({ policiesChanged, workloadsChanged });
    void this.#mayPrefetch.promise.then(() => this.#certificates.prefetch(localWorkloads));
  }

  #reportReady(task: string, afterMs: number, pending: number): void {
    if (pending === 0) this.#ready.resolve();
    const rest = pending === 0 ? "marking server ready" : `still awaiting ${pending} tasks`;
    this.#log
      .target("ztunnel::readiness")
      .write("info", `Task '${task}' complete (${afterMs.toFixed(3)}ms), ${rest}`);
  }

  #reportDropped(count: number): void {
    this.#log.write("warn", `dropped ${counted(count, "log line")} that nobody read`);
  }
}

/** One line; a literal token and the values of headers, which may be as secret, are left out. */
function describe(config: Config): string {
  return JSON.stringify(config, (key, value: unknown) => {
    if (key === "token") return undefined;
    return key === "headers" && Array.isArray(value) ? value.map(([name]) => name) : value;
  });
}
