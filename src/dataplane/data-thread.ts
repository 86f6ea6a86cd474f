/**
 * The data path of one thread: an engine, a view of the mesh, and a proxy for each enrolled
 * workload. The same class runs on a worker and on the main thread.
 */
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { LiveConnections } from "../proxy/connection-report.ts";
import type { ProxyDeps, ProxyOptions } from "../proxy/proxy-options.ts";
import { RevocationGuard } from "../proxy/revocation-guard.ts";
import { TrafficMetrics } from "../proxy/traffic-metrics.ts";
import { WorkloadProxy } from "../proxy/workload-proxy.ts";
import { invariant } from "../runtime/invariant.ts";
import type { LoopDelay } from "../runtime/loop-delay.ts";
import type { MeshChange } from "../state/mesh-writer.ts";
import type { RevocationList } from "../tls/revocation-list.ts";
import type { ThreadSample } from "./data-plane.ts";

export interface DataThreadDeps extends Omit<ProxyDeps, "traffic" | "revocations"> {
  /** How late this thread was since the last call. */
  readonly loopDelay: () => LoopDelay;
}

/** Plain data: it is sent to worker threads. */
export interface DataThreadOptions {
  /** The mesh is learnt piece by piece, as connections need it. */
  readonly onDemand: boolean;
  /**
   * Descriptor, of the whole process, by which listeners that close hand their queues to those of a
   * successor; left out where the kernel does not allow it.
   */
  readonly queueMigrationFd?: number;
  readonly proxy: ProxyOptions;
}

export class DataThread {
  readonly #deps: ProxyDeps;
  readonly #loopDelay: () => LoopDelay;
  readonly #options: ProxyOptions;
  readonly #traffic: TrafficMetrics;
  /** Key is the uid. */
  readonly #proxies = new Map<string, WorkloadProxy>();

  constructor(deps: DataThreadDeps, options: DataThreadOptions) {
    this.#traffic = new TrafficMetrics();
    const { loopDelay, ...rest } = deps;
    const revocations = new RevocationGuard(this.#traffic);
    this.#deps = { ...rest, traffic: this.#traffic, revocations };
    this.#loopDelay = loopDelay;
    this.#options = options.proxy;
  }

  /** What the memory of the mesh holds was changed; proxies look again. */
  meshChanged(change: MeshChange): void {
    this.#deps.mesh.announce(change);
  }

  revocationsChanged(lists: readonly RevocationList[]): void {
    this.#deps.revocations.update(lists);
  }

  /** @throws ProxyError when a port can't be bound; nothing stays bound then. */
  startWorkload(workload: EnrolledWorkload, netnsFd: number): void {
    invariant(!this.#proxies.has(workload.uid), `workload ${workload.uid} runs already`);
    this.#run(
      new WorkloadProxy(this.#deps, {
        ...this.#options,
        workload,
        role: "pod",
        netns: { fd: netnsFd },
      }),
      workload.uid,
    );
  }

  /**
   * Takes tunnels to the daemon's own pod, in the daemon's own namespace: nothing is redirected
   * there, so sockets need no mark and no foreign source.
   *
   * @throws ProxyError when the port can't be bound.
   */
  startSelf(workload: EnrolledWorkload): void {
    this.#run(
      new WorkloadProxy(this.#deps, {
        ...this.#options,
        mark: undefined,
        reusePort: false,
        originalSource: "off",
        workload,
        role: "self",
        netns: undefined,
      }),
      workload.uid,
    );
  }

  /**
   * Binds the ports of the only workload in the daemon's own namespace.
   *
   * @throws ProxyError when a port can't be bound; nothing stays bound then.
   */
  listenDedicated(workload: EnrolledWorkload): void {
    const proxy = new WorkloadProxy(this.#deps, {
      ...this.#options,
      workload,
      role: "pod",
      netns: undefined,
    });
    proxy.listen();
    this.#proxies.set(workload.uid, proxy);
  }

  /** Begins to take connections of the only workload. Once. */
  serveDedicated(): void {
    for (const proxy of this.#proxies.values()) proxy.start();
  }

  #run(proxy: WorkloadProxy, uid: string): void {
    proxy.listen();
    proxy.start();
    this.#proxies.set(uid, proxy);
  }

  async stopWorkload(uid: string): Promise<void> {
    const proxy = this.#proxies.get(uid);
    this.#proxies.delete(uid);
    await proxy?.close();
  }

  connections(uid: string): LiveConnections {
    return this.#proxies.get(uid)?.connections() ?? { inbound: [], outbound: [] };
  }

  collect(): ThreadSample {
    return { ...this.#traffic.collect(), loopDelay: this.#loopDelay() };
  }

  async drain(deadlineMs: number): Promise<void> {
    await Promise.all([...this.#proxies.values()].map((proxy) => proxy.drain(deadlineMs)));
  }

  async close(): Promise<void> {
    await Promise.all([...this.#proxies.keys()].map((uid) => this.stopWorkload(uid)));
    this.#deps.engine.close();
  }
}
