/**
 * One workload, in the daemon's own network namespace: no node agent, nothing to enter. Whatever
 * redirects its connections here, or a client that speaks SOCKS5, is somebody else's work.
 *
 * @see spec data-path 1.6
 */
import type { DedicatedModeConfig } from "../config/config.ts";
import type { DataPlane } from "../dataplane/data-plane.ts";
import type { SocketSampler } from "../inpod/socket-sampler.ts";
import type { WorkloadStanding } from "../inpod/workload-reconciler.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Mode } from "./mode.ts";

export interface DedicatedModeDeps {
  readonly dataPlane: DataPlane;
  readonly sockets: SocketSampler;
  readonly log: Logger;
}

export class DedicatedMode implements Mode {
  readonly #deps: DedicatedModeDeps;
  readonly #config: DedicatedModeConfig;

  constructor(deps: DedicatedModeDeps, config: DedicatedModeConfig) {
    this.#deps = deps;
    this.#config = config;
  }

  async prepare(): Promise<void> {
    const { dataPlane, log } = this.#deps;
    log.target("ztunnel::app").write("info", "proxy mode enabled");
    await dataPlane.listenDedicated(this.#config.workload);
  }

  run(): Promise<void> {
    const { dataPlane, sockets } = this.#deps;
    sockets.add(this.#config.workload, undefined);
    return dataPlane.serveDedicated();
  }

  workloads(): readonly WorkloadStanding[] {
    return [{ workload: this.#config.workload, state: "Up", failure: undefined }];
  }

  nodeAgent(): "none" {
    return "none";
  }

  /** The daemon's own connections are not captured. */
  netnsFd(): undefined {
    return undefined;
  }
}
