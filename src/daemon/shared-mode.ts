/**
 * The pods of a node, as the node agent hands them over, and the daemon's own pod.
 *
 * @see spec data-path 1.6 and 11
 */
import type { LineStanding } from "../admin/readiness-report.ts";
import type { SharedModeConfig } from "../config/config.ts";
import type { DataPlane } from "../dataplane/data-plane.ts";
import { AccountWatch } from "../inpod/account-watch.ts";
import { createInpodMetrics } from "../inpod/metrics.ts";
import type { SocketSampler } from "../inpod/socket-sampler.ts";
import { WorkloadReconciler, type WorkloadStanding } from "../inpod/workload-reconciler.ts";
import { ZdsClient } from "../inpod/zds-client.ts";
import { SeqpacketConnection } from "../inpod/zds-connection.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Native } from "../net/native.ts";
import { checkSharedModePrivileges } from "../net/privileges.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import type { Readiness } from "../runtime/readiness.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { makeRegistry } from "../telemetry/registry.ts";
import type { DaemonCertificates } from "./daemon-certificates.ts";
import type { Mode } from "./mode.ts";

export interface SharedModeDeps {
  readonly native: Native;
  readonly dataPlane: DataPlane;
  readonly certificates: DaemonCertificates;
  readonly sockets: SocketSampler;
  readonly readiness: Readiness;
  readonly registry: ReturnType<typeof makeRegistry>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export class SharedMode implements Mode {
  readonly #deps: SharedModeDeps;
  readonly #config: SharedModeConfig;
  readonly #reconciler: WorkloadReconciler;
  #agent: ZdsClient | undefined;

  /** From here on the daemon is not ready until the agent has named all pods. */
  constructor(deps: SharedModeDeps, config: SharedModeConfig) {
    this.#deps = deps;
    this.#config = config;
    this.#reconciler = new WorkloadReconciler(
      {
        launcher: new AccountWatch(
          {
            launcher: deps.sockets.watching(deps.dataPlane),
            lastLeft: (workload) => this.#forgetCertificates(workload),
          },
          config.self,
        ),
        metrics: createInpodMetrics(deps.registry),
        readiness: deps.readiness,
        clock: deps.clock,
        log: deps.log,
      },
      { drainMs: config.podDrainMs },
    );
  }

  async prepare(): Promise<void> {
    const { native, dataPlane, log } = this.#deps;
    const { self } = this.#config;
    checkSharedModePrivileges(native);
    log.target("ztunnel::app").write("info", "shared proxy mode - in-pod mode enabled");
    if (self !== undefined) await dataPlane.startSelf(self);
  }

  /** @throws Error only for a broken promise of the agent: going on would mean guessing. */
  async run(signal: AbortSignal): Promise<void> {
    const { native, clock, random, log } = this.#deps;
    this.#agent = new ZdsClient(
      {
        dial: (path) => SeqpacketConnection.dial(native, path),
        reconciler: this.#reconciler,
        clock,
        random,
        log,
      },
      { path: this.#config.socketPath },
    );
    await this.#agent.run(signal);
  }

  workloads(): readonly WorkloadStanding[] {
    return this.#reconciler.workloads();
  }

  nodeAgent(): LineStanding | undefined {
    return this.#agent && { address: this.#config.socketPath, ...this.#agent.status() };
  }

  netnsFd(uid: string): number | undefined {
    return this.#reconciler.netnsFd(uid);
  }

  #forgetCertificates(workload: EnrolledWorkload): void {
    const { certificates, dataPlane } = this.#deps;
    for (const identity of certificates.forget(workload)) dataPlane.certificateForgotten(identity);
  }
}
