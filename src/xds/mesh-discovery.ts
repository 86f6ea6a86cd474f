/**
 * The mesh from a control plane: a discovery conversation with istiod whose answers are written into
 * the mesh's memory.
 */
import { IstiodLine, type IstiodLineOptions } from "../istiod/istiod-line.ts";
import type { Clock } from "../runtime/clock.ts";
import { FileWatch } from "../runtime/file-watch.ts";
import type { Random } from "../runtime/random.ts";
import type { MeshWriter } from "../state/mesh-writer.ts";
import type { Logger } from "../telemetry/logger.ts";
import { ADDRESS_TYPE } from "../wire/delta-discovery.ts";
import { DeltaClient, type DeltaClientOptions } from "./delta-client.ts";
import {
  DiscoveryClient,
  type DiscoveryMetrics,
  type DiscoveryStatus,
} from "./discovery-client.ts";
import { GrpcTransport } from "./grpc-transport.ts";
import { type MeshCommitted, meshSubscription } from "./mesh-subscription.ts";
import { StateKeeper, type StateKeeperOptions } from "./state-keeper.ts";

export interface MeshDiscoveryDeps {
  readonly writer: MeshWriter;
  readonly committed: MeshCommitted;
  readonly metrics: (status: () => DiscoveryStatus) => DiscoveryMetrics;
  /** The first answer of a conversation has come. */
  readonly connected: () => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface MeshDiscoveryOptions extends DeltaClientOptions {
  readonly line: IstiodLineOptions;
  /** Ask for single workloads and services when they are needed, instead of for all. */
  readonly onDemand: boolean;
  /** Name, TCP and TLS together, milliseconds. */
  readonly connectMs: number;
  /** Until the server says something, milliseconds. */
  readonly firstAnswerMs: number;
  /** Of one message. */
  readonly receivedBytesMax: number;
  /** How long a connection waits for an answer on demand, milliseconds. */
  readonly demandMs: number;
  /** Where the mesh is kept for a restart; `undefined`: nowhere. */
  readonly state: StateKeeperOptions | undefined;
}

/** Data threads and operators get the thread back in between. */
const SLICE_MS = 5;
/** istiod judges a token when a stream begins; the kubelet renews it hours before it ends. */
const FILES_EVERY_MS = 5000;

export class MeshDiscovery {
  readonly #client: DiscoveryClient;
  readonly #options: MeshDiscoveryOptions;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #keeper: StateKeeper | undefined;
  readonly #line: IstiodLine;
  /** Half a mesh lets through what its other half denies: that is not kept. */
  #isWhole = false;

  /** @throws TypeError when the address is no URL. */
  constructor(deps: MeshDiscoveryDeps, options: MeshDiscoveryOptions) {
    const { writer, clock, random, log } = deps;
    this.#options = options;
    this.#clock = clock;
    this.#log = log.target("ztunnel::xds::client");
    this.#keeper = options.state && new StateKeeper(deps, options.state);
    const committed: MeshCommitted = (commit) => {
      deps.committed(commit);
      if (this.#isWhole) this.#keeper?.changed();
    };
    this.#line = new IstiodLine(options.line);
    const types = meshSubscription({ writer, committed }, options);
    this.#client = new DiscoveryClient(
      {
        transport: new GrpcTransport({ line: this.#line, clock }, options),
        client: new DeltaClient(types, options),
        metrics: deps.metrics(() => this.status()),
        connected: deps.connected,
        clock,
        random,
        log,
      },
      {
        address: options.line.address,
        firstAnswerMs: options.firstAnswerMs,
        sliceMs: SLICE_MS,
      },
    );
    void this.#client.synced.then(() => {
      this.#isWhole = true;
      this.#keeper?.changed();
    });
  }

  /** Resolves once the whole mesh, or on demand all policies, are known. */
  get synced(): Promise<void> {
    return this.#client.synced;
  }

  /**
   * Serves what an earlier process kept, before the control plane says anything.
   *
   * @returns whether there was something.
   */
  async restore(): Promise<boolean> {
    const takenAt = await this.#keeper?.restore();
    if (takenAt === undefined) return false;
    this.#client.resume(takenAt);
    this.#isWhole = true;
    return true;
  }

  status(): DiscoveryStatus {
    return this.#client.status();
  }

  /**
   * Asks for a workload or service by `network/ip`, `namespace/hostname` or uid. Settles when the
   * answer has been applied, or none came in time. Only on demand.
   */
  async learn(key: string): Promise<void> {
    await this.#client.demand(ADDRESS_TYPE, key, this.#options.demandMs);
  }

  /** Converses until the signal is aborted; begins anew when roots or token change. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { roots, token } = this.#options.line;
    const watches = [
      ...(roots.kind === "file" ? [this.#watch(roots.path, () => this.#line.rootsInUse)] : []),
      ...(token?.kind === "file" ? [this.#watch(token.path, () => this.#line.tokenInUse)] : []),
    ];
    await this.#client.run(signal);
    for (const watch of await Promise.all(watches)) watch.close();
    await this.#keeper?.close();
  }

  /** @param inUse what the conversation that is under way, or is tried, began with. */
  #watch(path: string, inUse: () => string | undefined): Promise<FileWatch> {
    const changed = (content: Buffer): void => {
      // It has begun since: the file came late, or the last conversation just ended.
      if (content.toString().trim() === inUse()?.trim()) return;
      this.#log.write("info", `${path} has changed, beginning anew`);
      this.#client.reconnect();
    };
    return FileWatch.open(this.#clock, changed, { path, everyMs: FILES_EVERY_MS });
  }
}
