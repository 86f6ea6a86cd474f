/**
 * The composition root of the daemon: builds every room, connects their ports, starts in the order
 * of the original and stops in its order.
 *
 * @see spec data-path 1.7 and 7.4, control-plane 11.
 */
import { listenAdmin } from "./admin/admin-server.ts";
import type { HttpListenerOptions } from "./admin/http-listener.ts";
import { listenMetrics } from "./admin/metrics-server.ts";
import type { Profiler } from "./admin/profile-pages.ts";
import type { ReadinessStanding } from "./admin/readiness-report.ts";
import { listenReadiness } from "./admin/readiness-server.ts";
import type { Config, DiscoveryConfig, IdentityConfig, ServerConfig } from "./config/config.ts";
import { parseLocalMesh, readLocalMeshFile } from "./config/local-mesh-file.ts";
import type { CertificateSource, DataPlane } from "./dataplane/data-plane.ts";
import type { DataThreadOptions } from "./dataplane/data-thread.ts";
import type { openInlineDataPlane } from "./dataplane/inline-data-plane.ts";
import { makeLoopDelayFamily, setLoopDelays } from "./dataplane/metrics.ts";
import { giveBackWhenQuiet } from "./dataplane/quiet-thread.ts";
import { WorkerDataPlane } from "./dataplane/worker-data-plane.ts";
import type { CertificateAuthority } from "./identity/certificate-authority.ts";
import { CertificateCache } from "./identity/certificate-cache.ts";
import { certificateOrder } from "./identity/certificate-order.ts";
import { ClockSkew } from "./identity/clock-skew.ts";
import { registerClockSkew } from "./identity/metrics.ts";
import type { RevocationFile } from "./identity/revocation-file.ts";
import { AccountWatch } from "./inpod/account-watch.ts";
import { createInpodMetrics } from "./inpod/metrics.ts";
import { WorkloadReconciler } from "./inpod/workload-reconciler.ts";
import { ZdsClient } from "./inpod/zds-client.ts";
import { SeqpacketConnection } from "./inpod/zds-connection.ts";
import type { IstiodLineOptions } from "./istiod/istiod-line.ts";
import type { EnrolledWorkload } from "./mesh/enrolled-workload.ts";
import type { MeshUpdate } from "./mesh/mesh-update.ts";
import { formatHostPort } from "./mesh/socket-address.ts";
import { type Workload, workloadIdentity } from "./mesh/workload.ts";
import { native } from "./net/native.ts";
import { checkSharedModePrivileges } from "./net/privileges.ts";
import { makeTrafficFamilies, mergeTraffic } from "./proxy/metrics.ts";
import { systemClock } from "./runtime/clock.ts";
import { systemRandom } from "./runtime/random.ts";
import { Readiness } from "./runtime/readiness.ts";
import { ThreadProfiler } from "./runtime/thread-profiler.ts";
import { MeshMemory } from "./state/mesh-memory.ts";
import { MeshState } from "./state/mesh-state.ts";
import { type MeshCommit, MeshWriter } from "./state/mesh-writer.ts";
import { buildFacts, buildInfo, registerBuildMetric } from "./telemetry/build-info.ts";
import { LogDestination } from "./telemetry/log-destination.ts";
import type { Logger } from "./telemetry/logger.ts";
import { registerProcessMetrics } from "./telemetry/process-metrics.ts";
import { makeRegistry, renderMetrics } from "./telemetry/registry.ts";
import { createRootLogger, type RootLogger } from "./telemetry/root-logger.ts";
import type { MeshDiscovery } from "./xds/mesh-discovery.ts";
import { createDiscoveryMetrics } from "./xds/metrics.ts";

const STDOUT_FD = 1;

/** From ready on; by then the first certificates are there, and nothing is loaded any more. */
const START_MEMORY_MS = 1000;

/** The thread that this file runs on, among those that can be profiled. */
const CONTROL_THREAD = "control";

/** A running daemon. */
export interface App {
  /** Begins to stop because of a signal. Idempotent. */
  shutDown(signal: string): void;
  /** The exit code, when everything has ended. Never rejects. */
  readonly ended: Promise<number>;
}

/**
 * Settles when the daemon takes workloads from the node agent; it may not be ready yet.
 *
 * @throws what stands in the way: a port that is taken, a mesh file that can't be read, a missing
 *   privilege. Nothing is left running that would keep the process alive.
 */
export async function startApp(config: Config): Promise<App> {
  native.forbidMemoryDumps();
  // What moves bytes is loaded on the thread that moves them.
  const inline =
    config.dataThreadCount === 0 ? await import("./dataplane/inline-data-plane.ts") : undefined;
  const daemon = new Daemon(config, inline?.openInlineDataPlane);
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
  readonly #logger: RootLogger;
  readonly #log: Logger;
  readonly #registry = makeRegistry();
  readonly #readiness: Readiness;
  readonly #clockSkew: ClockSkew;
  #revocations: RevocationFile | undefined;
  readonly #certificates: CertificateCache;
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<number>();
  readonly #agent = new AbortController();
  readonly #servers: { close(): Promise<void> }[] = [];
  readonly #memory = new MeshMemory();
  readonly #state = new MeshState(this.#memory);
  readonly #writer: MeshWriter;
  readonly #dataPlane: DataPlane;
  #conversation: Promise<void> = Promise.resolve();
  #mesh: MeshDiscovery | undefined;
  #agentClient: ZdsClient | undefined;
  #discovery: Promise<void> = Promise.resolve();
  readonly #discoveryEnd = new AbortController();
  #stopping = false;

  /** @param openInline given when there are no data threads. */
  constructor(config: Config, openInline: typeof openInlineDataPlane | undefined) {
    this.#config = config;
    this.#sink = new LogDestination(
      { clock: this.#clock, dropped: (count) => this.#reportDropped(count) },
      { fd: STDOUT_FD, bufferBytesMax: config.logging.bufferBytesMax },
    );
    this.#logger = createRootLogger({
      format: config.logging.format,
      filter: config.logging.filter,
      sink: this.#sink,
      clock: this.#clock,
    });
    this.#log = this.#logger.root;
    this.#readiness = new Readiness(
      () => this.#clock.monotonic(),
      (task, afterMs, pending) => this.#reportReady(task, afterMs, pending),
    );
    this.#clockSkew = new ClockSkew({ clock: this.#clock, log: this.#identityLog() });
    this.#certificates = this.#makeCertificates();
    this.#writer = new MeshWriter(this.#memory, { localNode: config.mesh.localNode });
    this.#dataPlane = this.#makeDataPlane(openInline);
  }

  get ended(): Promise<number> {
    return this.#ended.promise;
  }

  async flushLog(): Promise<void> {
    await this.#sink.flush();
  }

  async start(): Promise<void> {
    const { admin, istioVersion } = this.#config;
    const log = this.#log;
    const http = { clock: this.#clock, log };
    log.write("info", `version: ${buildInfo(istioVersion)}`);
    log.write("info", `running with config: ${describe(this.#config)}`);
    this.#readiness.await("state manager");
    this.#readiness.await("proxy");
    const reconciler = this.#makeReconciler();
    this.#servers.push(
      await listenReadiness(
        { ...http, standing: () => this.#standing(reconciler) },
        this.#anywhere(admin.readinessPort),
      ),
    );

    const updates = readMesh(this.#config);
    this.#servers.push(
      await listenAdmin(
        {
          ...http,
          logging: {
            filter: () => this.#logger.filter,
            setFilter: (filter) => this.#setLogFilter(filter),
          },
          configDump: () => this.#configDump(reconciler),
          profiler: this.#makeProfiler(),
          quit: () => this.#begin("received explicit shutdown signal"),
        },
        {
          ...this.#anywhere(admin.adminPort),
          hosts: admin.ipv6 ? ["127.0.0.1", "::1"] : ["127.0.0.1"],
          defaultLogFilter: this.#config.logging.filter,
        },
      ),
    );
    checkSharedModePrivileges(native);
    log.target("ztunnel::app").write("info", "shared proxy mode - in-pod mode enabled");

    const dataPlane = this.#dataPlane;
    this.#writer.apply(updates);
    this.#committed(this.#writer.commit());
    this.#certificates.onRenewed((certificate) => dataPlane.certificateRenewed(certificate));
    this.#servers.push(
      await listenMetrics({ ...http, render: this.#metrics() }, this.#anywhere(admin.statsPort)),
    );
    await this.#watchRevocations();
    const { self } = this.#config.inpod;
    if (self !== undefined) await dataPlane.startSelf(self);
    this.#conversation = this.#learnMesh().then(() => this.#talkToAgent(reconciler));
    this.#readiness.complete("proxy");
    void this.#ready.promise.then(() =>
      this.#clock.after(START_MEMORY_MS, () => native.releaseResidentMemory()),
    );
    giveBackWhenQuiet(this.#clock);
  }

  shutDown(signal: string): void {
    this.#begin(`received signal ${signal}, starting shutdown`);
  }

  #begin(message: string): void {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#log.target("ztunnel::signal::imp").write("info", message);
    void this.#stop();
  }

  /** Ends in the order of spec data-path 7.4. Never rejects. */
  async #stop(): Promise<void> {
    const closing = this.#servers.map((server) => server.close());
    this.#agent.abort();
    await this.#conversation;
    await this.#dataPlane.drain(this.#config.drainMs);
    await this.#dataPlane.close();
    this.#discoveryEnd.abort();
    await this.#discovery;
    this.#certificates.close();
    this.#revocations?.close();
    await Promise.allSettled(closing);
    await this.flushLog();
    this.#ended.resolve(0);
  }

  /** Something that must not happen happened: say so and end, the kubelet starts us anew. */
  #crash(error: Error): void {
    this.#log.write("error", `ending because of a failure: ${error.message}`);
    this.#stopping = true;
    void this.flushLog().then(() => this.#ended.resolve(1));
  }

  #makeReconciler(): WorkloadReconciler {
    const launcher = new AccountWatch(
      { launcher: this.#dataPlane, lastLeft: (workload) => this.#forgetCertificates(workload) },
      this.#config.inpod.self,
    );
    return new WorkloadReconciler({
      launcher,
      metrics: createInpodMetrics(this.#registry),
      readiness: this.#readiness,
      clock: this.#clock,
      log: this.#log,
    });
  }

  /** Pods are taken once the mesh is known: before, everything would pass as plain text. Never rejects. */
  async #learnMesh(): Promise<void> {
    const { discovery } = this.#config.mesh;
    if (discovery !== undefined) {
      const mesh = await this.#makeDiscovery(discovery);
      if (this.#stopping) return;
      this.#mesh = mesh;
      const restored = await mesh.restore();
      this.#discovery = mesh.run(this.#discoveryEnd.signal);
      if (!restored) await Promise.race([mesh.synced, aborted(this.#agent.signal)]);
      if (this.#stopping) return;
    }
    this.#readiness.complete("state manager");
  }

  async #makeDiscovery(discovery: DiscoveryConfig): Promise<MeshDiscovery> {
    const { MeshDiscovery } = await import("./xds/mesh-discovery.ts");
    const { identity, proxy } = this.#config;
    return new MeshDiscovery(
      {
        writer: this.#writer,
        committed: (commit) => this.#committed(commit),
        metrics: (status) =>
          createDiscoveryMetrics(this.#registry, status, () => this.#clock.now()),
        clock: this.#clock,
        random: this.#random,
        log: this.#log,
      },
      { ...discovery, line: lineOptions(discovery.server, discovery.headers, identity, proxy) },
    );
  }

  /** Never rejects. */
  async #talkToAgent(reconciler: WorkloadReconciler): Promise<void> {
    const client = new ZdsClient(
      {
        dial: (path) => new SeqpacketConnection(native, native.connectSeqpacket(path)),
        reconciler,
        clock: this.#clock,
        random: this.#random,
        log: this.#log,
      },
      { path: this.#config.inpod.socketPath },
    );
    this.#agentClient = client;
    try {
      await client.run(this.#agent.signal);
    } catch (error) {
      // Only a broken promise of the agent gets here; going on would mean guessing.
      this.#crash(asError(error));
    }
  }

  #makeCertificates(): CertificateCache {
    const { identity, proxy } = this.#config;
    const log = this.#identityLog();
    const clock = this.#clock;
    const authority = lateAuthority(async () => {
      const { IstioCaClient } = await import("./identity/istio-ca-client.ts");
      return new IstioCaClient(
        { clock, log },
        {
          ...lineOptions(identity.authority, identity.headers, identity, proxy),
          validitySeconds: Math.round(identity.certificateTtlMs / 1000),
          impersonate: true,
        },
      );
    });
    return new CertificateCache(
      {
        fetch: certificateOrder({ authority, log }, { checkIdentity: true }),
        clock,
        random: this.#random,
        log,
        skew: this.#clockSkew,
      },
      { waitMs: identity.certificateWaitMs },
    );
  }

  #identityLog(): Logger {
    return this.#log.target("ztunnel::identity");
  }

  #makeDataPlane(openInline: typeof openInlineDataPlane | undefined): DataPlane {
    const config = this.#config;
    const certificateFor: CertificateSource = (identity) =>
      this.#certificates.certificate(identity, "real-time");
    const options: DataThreadOptions = {
      onDemand: config.mesh.discovery?.onDemand ?? false,
      proxy: config.proxy,
    };
    const learn = async (key: string): Promise<void> => this.#mesh?.learn(key);
    if (openInline !== undefined) {
      return openInline(
        {
          mesh: this.#state,
          certificateFor,
          learn: options.onDemand ? learn : undefined,
          log: this.#log,
          clock: this.#clock,
          random: this.#random,
        },
        options,
      );
    }
    return new WorkerDataPlane(
      {
        clock: this.#clock,
        certificateFor,
        learn,
        writeLog: (text) => this.#sink.write(text),
        threadFailed: (error) => this.#crash(error),
      },
      {
        threadCount: config.dataThreadCount,
        mesh: this.#memory.buffer,
        options,
        log: { format: config.logging.format, filter: config.logging.filter },
      },
    );
  }

  async *#configDump(reconciler: WorkloadReconciler): AsyncGenerator<string> {
    const { configDump } = await import("./admin/config-dump.ts");
    const { dumpConfig } = await import("./config/config-dump.ts");
    yield* configDump(
      {
        mesh: this.#state,
        certificates: () => this.#certificates.dump(),
        workloads: () => reconciler.workloads(),
        connections: (uid) => this.#dataPlane.connections(uid),
        localMesh: () => this.#rereadMesh(),
        clock: this.#clock,
      },
      { config: dumpConfig(this.#config), version: buildFacts(this.#config.istioVersion) },
    );
  }

  /** What the mesh file says by now. */
  #rereadMesh(): readonly MeshUpdate[] {
    try {
      return readMesh(this.#config);
    } catch (error) {
      this.#log.write("error", `the mesh file can't be dumped: ${asError(error).message}`);
      return [];
    }
  }

  #makeProfiler(): Profiler {
    const dataPlane = this.#dataPlane;
    const control = new ThreadProfiler(this.#clock);
    return {
      threads: [CONTROL_THREAD, ...dataPlane.threads],
      profile: (thread, request) =>
        thread === CONTROL_THREAD ? control.run(request) : dataPlane.profile(thread, request),
    };
  }

  #standing(reconciler: WorkloadReconciler): ReadinessStanding {
    const { mesh, inpod } = this.#config;
    const { discovery } = mesh;
    const status = this.#mesh?.status();
    const lastAnswerAt = status?.lastAnswerAt;
    return {
      pending: this.#readiness.pending(),
      controlPlane: discovery && {
        address: addressOf(discovery.server),
        connected: status?.connected ?? false,
        lastError: status?.lastError,
        ageMs: lastAnswerAt === undefined ? undefined : this.#clock.now() - lastAnswerAt,
      },
      nodeAgent: this.#agentClient && {
        address: inpod.socketPath,
        ...this.#agentClient.status(),
      },
      workloads: reconciler.workloads(),
      mesh: this.#state.counts(),
    };
  }

  async #watchRevocations(): Promise<void> {
    const { revocationPath } = this.#config.identity;
    if (revocationPath === undefined) return;
    const { RevocationFile } = await import("./identity/revocation-file.ts");
    this.#revocations = await RevocationFile.open(
      {
        clock: this.#clock,
        log: this.#identityLog(),
        changed: (lists) => this.#dataPlane.revocationsChanged(lists),
      },
      revocationPath,
    );
  }

  #metrics(): () => Promise<string> {
    registerProcessMetrics(this.#registry);
    registerClockSkew(this.#registry, () => this.#clockSkew.seconds);
    registerBuildMetric(this.#registry, this.#config.istioVersion);
    const families = makeTrafficFamilies(this.#registry);
    const loopDelays = makeLoopDelayFamily(this.#registry);
    return async () => {
      const samples = await this.#dataPlane.collect();
      mergeTraffic(families, samples);
      setLoopDelays(
        loopDelays,
        samples.map(({ loopDelay }) => loopDelay),
      );
      return renderMetrics(this.#registry);
    };
  }

  #committed(commit: MeshCommit): void {
    const { policiesChanged, workloadsChanged, localWorkloads } = commit;
    if (!policiesChanged && !workloadsChanged) return;
    this.#dataPlane.meshChanged({ policiesChanged, workloadsChanged });
    void this.#ready.promise.then(() => this.#prefetch(localWorkloads));
  }

  /**
   * Certificates of this node's workloads are there before most first connections. What makes them
   * takes longer to load than all else, so it waits until the pods have their listeners.
   */
  #prefetch(workloads: readonly Workload[]): void {
    for (const workload of workloads) {
      if (speaksHbone(workload)) this.#certificates.prefetch(workloadIdentity(workload));
    }
  }

  /** Keys of pods that are gone are neither renewed nor kept. */
  #forgetCertificates(workload: EnrolledWorkload): void {
    for (const identity of this.#certificates.forget(workload)) {
      this.#dataPlane.certificateForgotten(identity);
    }
  }

  #setLogFilter(filter: string): void {
    this.#logger.setFilter(filter);
    this.#dataPlane.setLogFilter(filter);
  }

  #anywhere(port: number): Omit<HttpListenerOptions, "component"> {
    const { ipv6, http } = this.#config.admin;
    return { hosts: [ipv6 ? "::" : "0.0.0.0"], port, ...http };
  }

  #reportReady(task: string, afterMs: number, pending: number): void {
    if (pending === 0) this.#ready.resolve();
    const rest = pending === 0 ? "marking server ready" : `still awaiting ${pending} tasks`;
    this.#log
      .target("ztunnel::readiness")
      .write("info", `Task '${task}' complete (${afterMs.toFixed(3)}ms), ${rest}`);
  }

  #reportDropped(count: number): void {
    this.#log.write("warn", `dropped ${count} log lines because nobody read them`);
  }
}

function speaksHbone(workload: Workload): boolean {
  return workload.nativeTunnel || workload.protocol === "HBONE";
}

/** gRPC is loaded with the first request for a certificate: nobody waits for it at the start. */
function lateAuthority(open: () => Promise<CertificateAuthority>): CertificateAuthority {
  let opened: Promise<CertificateAuthority> | undefined;
  return {
    async sign(identity, csrPem) {
      opened ??= open();
      return (await opened).sign(identity, csrPem);
    },
  };
}

function readMesh(config: Config): readonly MeshUpdate[] {
  const { file } = config.mesh;
  if (file === undefined) return [];
  return file.kind === "file"
    ? readLocalMeshFile(file.path)
    : parseLocalMesh(file.text, "LOCAL_XDS");
}

function lineOptions(
  server: ServerConfig,
  headers: IdentityConfig["headers"],
  { token, clusterId }: IdentityConfig,
  { tls12, postQuantumOnly }: Config["proxy"],
): IstiodLineOptions {
  return {
    address: addressOf(server),
    roots: server.roots,
    alternateHostname: server.alternativeHost,
    token,
    clusterId,
    headers,
    tls: { tls12, postQuantumOnly },
  };
}

function addressOf({ host, port }: ServerConfig): string {
  return `https://${formatHostPort(host, port)}`;
}

/** One line; a literal token and the values of headers, which may be as secret, are left out. */
function describe(config: Config): string {
  return JSON.stringify(config, (key, value: unknown) => {
    if (key === "token") return undefined;
    return key === "headers" && Array.isArray(value) ? value.map(([name]) => name) : value;
  });
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
