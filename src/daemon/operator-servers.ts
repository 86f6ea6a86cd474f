/** The servers for operators, and what each of the pages is made of. */
import { AdminError } from "../admin/admin-error.ts";
import { listenAdmin } from "../admin/admin-server.ts";
import { type DrainReport, type DrainTimes, reportDrain } from "../admin/drain-report.ts";
import type { HttpListener, HttpListenerOptions } from "../admin/http-listener.ts";
import { listenMetrics } from "../admin/metrics-server.ts";
import type { Profiler } from "../admin/profile-pages.ts";
import type { ReadinessStanding } from "../admin/readiness-report.ts";
import { listenReadiness } from "../admin/readiness-server.ts";
import { reportSockets } from "../admin/socket-report.ts";
import type { WhyQuestion, WhyReport } from "../admin/why-report.ts";
import type { Config } from "../config/config.ts";
import type { DataPlane } from "../dataplane/data-plane.ts";
import { makeLoopDelayFamily, setLoopDelays } from "../dataplane/metrics.ts";
import type { OutlierList } from "../dataplane/outlier-list.ts";
import { makeDnsFamilies, mergeDns } from "../dns/metrics.ts";
import { registerClockSkew } from "../identity/metrics.ts";
import { registerSocketMetrics } from "../inpod/metrics.ts";
import type { SocketSampler } from "../inpod/socket-sampler.ts";
import type { MeshUpdate } from "../mesh/mesh-update.ts";
import { native } from "../net/native.ts";
import { makeTrafficFamilies, mergeTraffic } from "../proxy/metrics.ts";
import { illegalPorts } from "../proxy/proxy-options.ts";
import { type Clock, sleep } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import { systemRandom } from "../runtime/random.ts";
import type { Readiness } from "../runtime/readiness.ts";
import { ThreadProfiler } from "../runtime/thread-profiler.ts";
import type { SessionAffinity } from "../state/session-affinity.ts";
import { buildFacts, registerBuildMetric } from "../telemetry/build-info.ts";
import { registerProcessMetrics } from "../telemetry/process-metrics.ts";
import { type makeRegistry, renderMetrics } from "../telemetry/registry.ts";
import type { RootLogger } from "../telemetry/root-logger.ts";
import type { DaemonCertificates } from "./daemon-certificates.ts";
import type { DaemonMesh } from "./daemon-mesh.ts";
import type { Mode } from "./mode.ts";

/** The main thread, for operators. */
export const CONTROL_THREAD = "control";

/** A predecessor that is told to end lets its ports go at any moment. */
const PORT_RETRY_MS = 50;

export interface OperatorServersDeps {
  readonly mesh: DaemonMesh;
  readonly certificates: DaemonCertificates;
  readonly dataPlane: DataPlane;
  readonly outliers: OutlierList;
  readonly affinity: SessionAffinity;
  readonly mode: Mode;
  readonly sockets: SocketSampler;
  readonly readiness: Readiness;
  readonly registry: ReturnType<typeof makeRegistry>;
  readonly logger: RootLogger;
  readonly clock: Clock;
  /** Somebody asked the daemon to stop. */
  readonly quit: () => void;
  /** `undefined`: it is not ending. */
  readonly drainTimes: () => DrainTimes | undefined;
}

export class OperatorServers {
  readonly #deps: OperatorServersDeps;
  readonly #config: Config;
  /** Those that end as soon as the daemon begins to. */
  readonly #early: HttpListener[] = [];
  #admin: HttpListener | undefined;
  readonly #closing = new AbortController();

  constructor(deps: OperatorServersDeps, config: Config) {
    this.#deps = deps;
    this.#config = config;
  }

  /** @throws AdminError when the port is taken and not waited for; so do the others. */
  async listenReadiness(): Promise<void> {
    await this.#open(
      () =>
        listenReadiness(
          { ...this.#http(), standing: () => this.#standing() },
          this.#anywhere(this.#config.admin.readinessPort),
        ),
      (listener) => this.#early.push(listener),
    );
  }

  async listenAdmin(): Promise<void> {
    const { admin, logging } = this.#config;
    const { logger, dataPlane, sockets, quit } = this.#deps;
    await this.#open(
      () =>
        listenAdmin(
          {
            ...this.#http(),
            logging: {
              filter: () => logger.filter,
              setFilter(filter) {
                logger.setFilter(filter);
                dataPlane.setLogFilter(filter);
              },
            },
            configDump: () => this.#configDump(),
            drain: () => this.#drain(),
            why: (question) => this.#why(question),
            outliers: () => this.#deps.outliers.all(),
            sockets: () => reportSockets(sockets.samples()),
            profiler: this.#makeProfiler(),
            quit,
          },
          {
            ...this.#anywhere(admin.adminPort),
            hosts: admin.ipv6 ? ["127.0.0.1", "::1"] : ["127.0.0.1"],
            defaultLogFilter: logging.filter,
          },
        ),
      (listener) => {
        this.#admin = listener;
      },
    );
  }

  async listenMetrics(): Promise<void> {
    const render = this.#makeMetrics();
    await this.#open(
      () =>
        listenMetrics({ ...this.#http(), render }, this.#anywhere(this.#config.admin.statsPort)),
      (listener) => this.#early.push(listener),
    );
  }

  /** Closes what probes and scrapers ask, so that they turn to a successor. Never rejects. */
  async closeEarly(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled(this.#early.map((listener) => listener.close()));
  }

  /** Closes the rest. Never rejects. */
  async close(): Promise<void> {
    await this.#admin?.close();
  }

  /** Settles when it listens, or waits for its port. */
  async #open(
    listen: () => Promise<HttpListener>,
    opened: (listener: HttpListener) => void,
  ): Promise<void> {
    try {
      opened(await listen());
    } catch (error) {
      if (!this.#config.admin.waitsForPorts || !isTaken(error)) throw error;
      this.#deps.logger.root.write("warn", `${error.message}, waiting for it`);
      void this.#openLater(listen, opened);
    }
  }

  /** Never rejects. */
  async #openLater(
    listen: () => Promise<HttpListener>,
    opened: (listener: HttpListener) => void,
  ): Promise<void> {
    const { clock, logger } = this.#deps;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        const listener = await listen();
        opened(listener);
        if (signal.aborted) await listener.close();
        return;
      } catch (error) {
        if (!isTaken(error)) {
          logger.root.write("error", errorText(error));
          return;
        }
      }
      await sleep(clock, PORT_RETRY_MS, signal).catch(() => {});
    }
  }

  async #why(question: WhyQuestion): Promise<WhyReport> {
    const { reportWhy } = await import("../admin/why-report.ts");
    const { probeConnection } = await import("../net/connection-probe.ts");
    const { mesh, outliers, affinity, certificates, mode, clock } = this.#deps;
    const { network, unknownPolicy } = this.#config.proxy;
    return reportWhy(
      {
        mesh: mesh.state,
        outliers,
        affinity,
        certificates: () => certificates.dump(),
        workloads: () => mode.workloads(),
        probe: (uid, target) => {
          const netnsFd = mode.netnsFd(uid);
          return netnsFd === undefined
            ? undefined
            : probeConnection({ native, clock }, { netnsFd, target });
        },
        random: systemRandom(),
      },
      {
        network,
        unknownPolicy,
        illegalPorts: illegalPorts(this.#config.proxy),
        onDemand: this.#config.mesh.discovery?.onDemand ?? false,
      },
      question,
    );
  }

  #drain(): Promise<DrainReport> {
    const { mode, dataPlane, clock, drainTimes } = this.#deps;
    return reportDrain({
      times: drainTimes(),
      workloads: mode.workloads(),
      connections: (uid) => dataPlane.connections(uid),
      now: clock.now(),
    });
  }

  #http(): Pick<OperatorServersDeps, "clock"> & { readonly log: RootLogger["root"] } {
    const { clock, logger } = this.#deps;
    return { clock, log: logger.root };
  }

  #anywhere(port: number): Omit<HttpListenerOptions, "component"> {
    const { ipv6, http } = this.#config.admin;
    return { hosts: [ipv6 ? "::" : "0.0.0.0"], port, ...http };
  }

  #standing(): ReadinessStanding {
    const { mesh, readiness, mode } = this.#deps;
    return {
      pending: readiness.pending(),
      controlPlane: mesh.controlPlane(),
      nodeAgent: mode.nodeAgent(),
      workloads: mode.workloads(),
      mesh: mesh.state.counts(),
    };
  }

  async *#configDump(): AsyncGenerator<string> {
    const { configDump } = await import("../admin/config-dump.ts");
    const { dumpConfig } = await import("../config/config-dump.ts");
    const { mesh, certificates, mode, dataPlane, clock } = this.#deps;
    yield* configDump(
      {
        mesh: mesh.state,
        certificates: () => certificates.dump(),
        workloads: () => mode.workloads(),
        connections: (uid) => dataPlane.connections(uid),
        localMesh: () => this.#rereadMesh(),
        clock,
      },
      { config: dumpConfig(this.#config), version: buildFacts(this.#config.istioVersion) },
    );
  }

  #rereadMesh(): readonly MeshUpdate[] {
    const { mesh, logger } = this.#deps;
    try {
      return mesh.readFile();
    } catch (error) {
      logger.root.write("error", `the mesh file can't be dumped: ${errorText(error)}`);
      return [];
    }
  }

  #makeProfiler(): Profiler {
    const { dataPlane, clock } = this.#deps;
    const control = new ThreadProfiler(clock);
    return {
      threads: [CONTROL_THREAD, ...dataPlane.threads],
      profile: (thread, request) =>
        thread === CONTROL_THREAD ? control.run(request) : dataPlane.profile(thread, request),
    };
  }

  #makeMetrics(): () => Promise<string> {
    const { registry, certificates, dataPlane, sockets } = this.#deps;
    registerProcessMetrics(registry);
    registerClockSkew(registry, () => certificates.skewSeconds);
    registerBuildMetric(registry, this.#config.istioVersion);
    const families = makeTrafficFamilies(registry);
    const dnsFamilies = makeDnsFamilies(registry);
    const loopDelays = makeLoopDelayFamily(registry);
    registerSocketMetrics(registry, () => sockets.samples());
    return async () => {
      const samples = await dataPlane.collect();
      mergeTraffic(families, samples);
      for (const { dns } of samples) mergeDns(dnsFamilies, dns);
      setLoopDelays(
        loopDelays,
        samples.map(({ loopDelay }) => loopDelay),
      );
      return renderMetrics(registry);
    };
  }
}

function isTaken(error: unknown): error is AdminError {
  const cause = error instanceof AdminError ? error.cause : undefined;
  return cause instanceof Error && "code" in cause && cause.code === "EADDRINUSE";
}
