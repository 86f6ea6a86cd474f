/**
 * The data path of one thread: an engine, a view of the mesh, and the servers of each enrolled
 * workload. The same class runs on a worker and on the main thread.
 */
import { DnsMetrics } from "../dns/dns-metrics.ts";
import type { DnsOptions } from "../dns/dns-options.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import type { LiveConnections } from "../proxy/connection-report.ts";
import type { ProxyDeps, ProxyOptions } from "../proxy/proxy-options.ts";
import { RevocationGuard } from "../proxy/revocation-guard.ts";
import { TrafficMetrics } from "../proxy/traffic-metrics.ts";
import { sleep } from "../runtime/clock.ts";
import { invariant } from "../runtime/invariant.ts";
import type { LoopDelay } from "../runtime/loop-delay.ts";
import { EndpointOutliers, type OutlierChange } from "../state/endpoint-outliers.ts";
import type { MeshChange } from "../state/mesh-writer.ts";
import type { RevocationList } from "../tls/revocation-list.ts";
import type { ThreadSample } from "./data-plane.ts";
import { WorkloadServers, type WorkloadServersDeps } from "./workload-servers.ts";

/**
 * A pod that has left often has no network any more, and no GOAWAY reaches those who kept tunnels to it:
 * far above a round trip between networks.
 */
const IDLE_TUNNEL_MS_MAX = 1000;

export interface DataThreadDeps extends Omit<ProxyDeps, "traffic" | "revocations" | "outliers"> {
  /** An endpoint is left out, or no longer. */
  readonly outlierChanged: (change: OutlierChange) => void;
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
  /** False: connections are left alone. */
  readonly proxyEnabled: boolean;
  /** `undefined`: no DNS is served. */
  readonly dns: DnsOptions | undefined;
}

export class DataThread {
  readonly #deps: ProxyDeps;
  readonly #loopDelay: () => LoopDelay;
  readonly #options: DataThreadOptions;
  readonly #traffic: TrafficMetrics;
  readonly #dnsMetrics = new DnsMetrics();
  /** Key is the uid. */
  readonly #servers = new Map<string, WorkloadServers>();
  /** Those of workloads that have left, until their last connection has ended. */
  readonly #leaving = new Set<LeavingServers>();

  constructor(deps: DataThreadDeps, options: DataThreadOptions) {
    this.#traffic = new TrafficMetrics();
    const { loopDelay, outlierChanged: changed, ...rest } = deps;
    const revocations = new RevocationGuard(this.#traffic);
    const { outliers: limits } = options.proxy;
    const outliers = limits && new EndpointOutliers({ clock: deps.clock, changed }, limits);
    this.#deps = { ...rest, traffic: this.#traffic, revocations, outliers };
    this.#loopDelay = loopDelay;
    this.#options = options;
  }

  /** What the memory of the mesh holds was changed; proxies look again. */
  meshChanged(change: MeshChange): void {
    this.#deps.mesh.announce(change);
  }

  revocationsChanged(lists: readonly RevocationList[]): void {
    this.#deps.revocations.update(lists);
  }

  /**
   * @param withDns answer its queries, too, where that is wanted at all.
   * @throws ProxyError when a port can't be bound, DnsError when no resolver is known; nothing stays
   *   bound then.
   */
  startWorkload(workload: EnrolledWorkload, netnsFd: number, withDns: boolean): void {
    invariant(!this.#servers.has(workload.uid), `workload ${workload.uid} runs already`);
    const { proxy, dns } = this.#options;
    this.#run(
      new WorkloadServers(this.#serversDeps(), {
        workload,
        role: "pod",
        netns: { fd: netnsFd },
        proxy,
        dns,
        withDns,
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
    const { proxy } = this.#options;
    this.#run(
      new WorkloadServers(this.#serversDeps(), {
        workload,
        role: "self",
        netns: undefined,
        proxy: { ...proxy, mark: undefined, reusePort: false, originalSource: "off" },
        dns: undefined,
        withDns: false,
      }),
      workload.uid,
    );
  }

  /**
   * Binds the ports of the only workload in the daemon's own namespace.
   *
   * @param withDns as for {@link startWorkload}.
   * @throws ProxyError when a port can't be bound, DnsError when no resolver is known; nothing stays
   *   bound then.
   */
  listenDedicated(workload: EnrolledWorkload, withDns: boolean): void {
    const { proxy, dns } = this.#options;
    const servers = new WorkloadServers(this.#serversDeps(), {
      workload,
      role: "pod",
      netns: undefined,
      proxy,
      dns,
      withDns,
    });
    servers.listen();
    this.#servers.set(workload.uid, servers);
  }

  /** Begins to take connections of the only workload. Once. */
  serveDedicated(): void {
    for (const servers of this.#servers.values()) servers.start();
  }

  #serversDeps(): WorkloadServersDeps {
    const deps = this.#deps;
    const proxy = this.#options.proxyEnabled ? deps : undefined;
    return { proxy, dns: deps, dnsMetrics: this.#dnsMetrics };
  }

  #run(servers: WorkloadServers, uid: string): void {
    servers.listen();
    servers.start();
    this.#servers.set(uid, servers);
  }

  /** The workload's ports are free when it returns. Unknown uids are fine. */
  stopListening(uid: string): void {
    this.#servers.get(uid)?.stopListening();
  }

  /**
   * Lets the workload go, whose ports are free when it returns. Settles when its last connection has
   * ended, at the latest so many milliseconds from now. Unknown uids are fine.
   *
   * @param drainMs 0: everything ends at once.
   */
  async stopWorkload(uid: string, drainMs: number): Promise<void> {
    const servers = this.#servers.get(uid);
    if (servers === undefined) return;
    this.#servers.delete(uid);
    if (drainMs === 0) return servers.close();
    servers.stopListening();
    const leaving = { uid, servers };
    this.#leaving.add(leaving);
    await servers.drain(drainMs, { idleTunnelMs: Math.min(drainMs, IDLE_TUNNEL_MS_MAX) });
    this.#leaving.delete(leaving);
  }

  /** Also those that have outlived the workload. */
  connections(uid: string): LiveConnections {
    const all = this.#all()
      .filter((one) => one.uid === uid)
      .map(({ servers }) => servers.connections());
    return {
      inbound: all.flatMap(({ inbound }) => inbound),
      outbound: all.flatMap(({ outbound }) => outbound),
    };
  }

  /** Settles when queries that had come by the time of the call have been read. */
  async dnsDatagrams(uid: string): Promise<Datagrams> {
    await sleep(this.#deps.clock, 0);
    return this.#servers.get(uid)?.dnsDatagrams() ?? { received: 0, sent: 0 };
  }

  collect(): ThreadSample {
    const dns = this.#dnsMetrics.collect();
    return { ...this.#traffic.collect(), dns, loopDelay: this.#loopDelay() };
  }

  async drain(deadlineMs: number): Promise<void> {
    await Promise.all(this.#all().map(({ servers }) => servers.drain(deadlineMs)));
  }

  async close(): Promise<void> {
    await Promise.all(this.#all().map(({ servers }) => servers.close()));
    this.#servers.clear();
    this.#deps.engine.close();
  }

  #all(): LeavingServers[] {
    return [...[...this.#servers].map(([uid, servers]) => ({ uid, servers })), ...this.#leaving];
  }
}

interface LeavingServers {
  readonly uid: string;
  readonly servers: WorkloadServers;
}
