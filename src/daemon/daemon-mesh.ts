/** The mesh of the daemon: one memory, filled from a file, a control plane, or both. */
import type { ReadinessStanding } from "../admin/readiness-report.ts";
import type { Config, DiscoveryConfig } from "../config/config.ts";
import { parseLocalMesh, readLocalMeshFile } from "../config/local-mesh-file.ts";
import type { MeshUpdate } from "../mesh/mesh-update.ts";
import { aborted, type Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import { MeshMemory } from "../state/mesh-memory.ts";
import { MeshState } from "../state/mesh-state.ts";
import { type MeshCommit, MeshWriter } from "../state/mesh-writer.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { DiscoveryMetrics, DiscoveryStatus } from "../xds/discovery-client.ts";
import type { MeshDiscovery } from "../xds/mesh-discovery.ts";
import { istiodLineOptions, serverUrl } from "./istiod-line-options.ts";

export interface DaemonMeshDeps {
  /** Told of what a file or an answer changed; readers could see it before. */
  readonly committed: (commit: MeshCommit) => void;
  readonly metrics: (status: () => DiscoveryStatus) => DiscoveryMetrics;
  /** The control plane answers, at first and after each time that it did not. */
  readonly connected: () => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export class DaemonMesh {
  readonly state: MeshState;
  readonly #deps: DaemonMeshDeps;
  readonly #config: Config;
  readonly #memory = new MeshMemory();
  readonly #writer: MeshWriter;
  readonly #end = new AbortController();
  #discovery: MeshDiscovery | undefined;
  #conversation: Promise<void> = Promise.resolve();

  constructor(deps: DaemonMeshDeps, config: Config) {
    this.#deps = deps;
    this.#config = config;
    this.state = new MeshState(this.#memory);
    this.#writer = new MeshWriter(this.#memory, { localNode: config.mesh.localNode });
  }

  /** What other threads read. */
  get buffer(): SharedArrayBuffer {
    return this.#memory.buffer;
  }

  /** What the mesh file says by now. @throws LocalMeshError */
  readFile(): readonly MeshUpdate[] {
    const { file } = this.#config.mesh;
    if (file === undefined) return [];
    return file.kind === "file"
      ? readLocalMeshFile(file.path)
      : parseLocalMesh(file.text, "LOCAL_XDS");
  }

  apply(updates: readonly MeshUpdate[]): void {
    this.#writer.apply(updates);
    this.#deps.committed(this.#writer.commit());
  }

  /**
   * Begins to learn from the control plane, if there is one. Settles when the mesh is known, be it as
   * it was before a restart, or the signal is aborted. Never rejects.
   */
  async learnAll(signal: AbortSignal): Promise<void> {
    const { discovery } = this.#config.mesh;
    if (discovery === undefined) return;
    const made = await this.#makeDiscovery(discovery);
    if (signal.aborted) return;
    this.#discovery = made;
    const restored = await made.restore();
    this.#conversation = made.run(this.#end.signal);
    if (!restored) await Promise.race([made.synced, aborted(signal)]);
  }

  /** See {@link MeshDiscovery.learn}. */
  async learn(key: string): Promise<void> {
    await this.#discovery?.learn(key);
  }

  /** `undefined`: the mesh comes from a file alone. */
  controlPlane(): ReadinessStanding["controlPlane"] {
    const { discovery } = this.#config.mesh;
    if (discovery === undefined) return undefined;
    const status = this.#discovery?.status();
    const { lastAnswerAt, awaySince } = status ?? {};
    const { clock } = this.#deps;
    return {
      address: serverUrl(discovery.server),
      connected: status?.connected ?? false,
      lastError: status?.lastError,
      refusal: status?.refusal,
      awayMs: awaySince === undefined ? undefined : clock.monotonic() - awaySince,
      ageMs: lastAnswerAt === undefined ? undefined : clock.now() - lastAnswerAt,
    };
  }

  /** Ends the conversation with the control plane; what is known stays. */
  async close(): Promise<void> {
    this.#end.abort();
    await this.#conversation;
  }

  async #makeDiscovery(discovery: DiscoveryConfig): Promise<MeshDiscovery> {
    const { MeshDiscovery } = await import("../xds/mesh-discovery.ts");
    const line = istiodLineOptions(discovery.server, discovery.headers, this.#config);
    return new MeshDiscovery({ ...this.#deps, writer: this.#writer }, { ...discovery, line });
  }
}
