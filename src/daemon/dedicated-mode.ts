/**
 * One workload, in the daemon's own network namespace: no node agent, nothing to enter. Whatever
 * redirects its connections here, or a client that speaks SOCKS5, is somebody else's work.
 *
 * @see spec data-path 1.6
 */
import type { Config, DedicatedModeConfig } from "../config/config.ts";
import type { DataPlane } from "../dataplane/data-plane.ts";
import type { SocketSampler } from "../inpod/socket-sampler.ts";
import type { WorkloadStanding } from "../inpod/workload-reconciler.ts";
import type { Native } from "../net/native.ts";
import { checkDedicatedModePrivileges } from "../net/privileges.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Mode } from "./mode.ts";

export interface DedicatedModeDeps {
  readonly native: Native;
  readonly dataPlane: DataPlane;
  readonly sockets: SocketSampler;
  readonly log: Logger;
}

export class DedicatedMode implements Mode {
  readonly #deps: DedicatedModeDeps;
  readonly #config: DedicatedModeConfig;
  readonly #proxy: Config["proxy"];

  constructor(deps: DedicatedModeDeps, config: DedicatedModeConfig, proxy: Config["proxy"]) {
    this.#deps = deps;
    this.#config = config;
    this.#proxy = proxy;
  }

  async prepare(): Promise<void> {
    const { native, dataPlane, log } = this.#deps;
    const { mark, originalSource } = this.#proxy;
    checkDedicatedModePrivileges(native, { mark, originalSource: originalSource === "required" });
    log.target("ztunnel::app").write("info", "proxy mode enabled");
    await dataPlane.listenDedicated(this.#config.workload);
  }

  run(): Promise<void> {
    const { dataPlane, sockets } = this.#deps;
    sockets.add(this.#config.workload, undefined);
    return dataPlane.serveDedicated();
  }

  workloads(): readonly WorkloadStanding[] {
    return [{ workload: this.#config.workload, state: "Up" }];
  }

  nodeAgent(): "none" {
    return "none";
  }

  /** The daemon's own connections are not captured. */
  netnsFd(): undefined {
    return undefined;
  }
}
