/** What one thread serves for one workload: its proxy, and on one of the threads its DNS. */
import { AddressLookup } from "../dns/address-lookup.ts";
import { DnsBindError } from "../dns/dns-error.ts";
import type { DnsMetrics } from "../dns/dns-metrics.ts";
import type { DnsOptions } from "../dns/dns-options.ts";
import { DnsServer } from "../dns/dns-server.ts";
import { readResolvConf } from "../dns/resolv-conf.ts";
import { ResolverExchange } from "../dns/resolver-exchange.ts";
import type { NetnsFd } from "../engine/engine.ts";
import { systemError } from "../engine/engine-error.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import { native } from "../net/native.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import type { LiveConnections } from "../proxy/connection-report.ts";
import { bindError } from "../proxy/engine-failure.ts";
import type { DrainOptions } from "../proxy/inbound.ts";
import { LocalWorkload } from "../proxy/local-workload.ts";
import type { ProxyDeps, ProxyOptions } from "../proxy/proxy-options.ts";
import type { FindAddress } from "../proxy/socks5-handshake.ts";
import { WorkloadProxy } from "../proxy/workload-proxy.ts";

/** Of the resolvers that the machine names. */
const RESOLVER_PORT = 53;
const LOOPBACK = "127.0.0.1" as IpAddress;

export interface WorkloadServersDeps {
  /** `undefined`: connections are left alone. */
  readonly proxy: ProxyDeps | undefined;
  readonly dns: Pick<ProxyDeps, "mesh" | "log" | "clock" | "random">;
  readonly dnsMetrics: DnsMetrics;
}

export interface WorkloadServersOptions {
  readonly workload: EnrolledWorkload;
  readonly role: "pod" | "self";
  /** Open until {@link WorkloadServers.close} or {@link WorkloadServers.drain} has settled. */
  readonly netns: NetnsFd | undefined;
  readonly proxy: ProxyOptions;
  /** `undefined`: its DNS is not served at all. */
  readonly dns: DnsOptions | undefined;
  /** Whether its DNS is served on this thread. */
  readonly withDns: boolean;
}

export class WorkloadServers {
  readonly #proxy: WorkloadProxy | undefined;
  readonly #dns: DnsServer | undefined;
  readonly #lookup: ReturnType<typeof openLookup>;
  readonly #reusePort: boolean;

  /** @throws DnsError `resolvers`. */
  constructor(deps: WorkloadServersDeps, options: WorkloadServersOptions) {
    const { workload, role, netns, proxy, dns, withDns } = options;
    this.#lookup = openLookup(deps, options);
    this.#reusePort = proxy.reusePort;
    const findAddress = this.#lookup?.find;
    this.#proxy =
      deps.proxy && new WorkloadProxy(deps.proxy, { ...proxy, workload, role, netns, findAddress });
    if (dns === undefined || !withDns) return;
    const local = new LocalWorkload(deps.dns, workload, proxy.localWorkloadWaitMs);
    this.#dns = new DnsServer(
      {
        ...deps.dns,
        native,
        resolvers: new ResolverExchange(
          { native, clock: deps.dns.clock },
          { netns, mark: dns.mark, port: RESOLVER_PORT },
        ),
        metrics: deps.dnsMetrics,
        source: {
          find: () => local.find(),
          async wait() {
            const found = await local.waitFor(() => deps.dns.log.target("ztunnel::dns::server"));
            return found instanceof Error ? undefined : found;
          },
        },
      },
      { ...dns, workload, netns, resolvConf: readResolvConf(dns.resolvConfPath) },
    );
  }

  /**
   * Binds all ports; connections wait in the kernel until {@link start}, queries are answered.
   *
   * @throws ProxyError `bind`; nothing stays bound then.
   */
  listen(): void {
    try {
      this.#dns?.listen();
    } catch (error) {
      if (!(error instanceof DnsBindError)) throw error;
      throw bindError(error.address, systemError(error.cause));
    }
    try {
      this.#proxy?.listen();
    } catch (error) {
      this.#dns?.close();
      throw error;
    }
  }

  /** Begins to accept. Call once, after {@link listen}. */
  start(): void {
    this.#proxy?.start();
  }

  /** The ports are free for other servers when it returns; what is connected goes on. Idempotent. */
  stopListening(): void {
    this.#proxy?.stopListening();
    // Queries that wait are answered by the socket that they came to, which may share its port.
    if (!this.#reusePort) this.#dns?.close();
  }

  connections(): LiveConnections {
    return this.#proxy?.connections() ?? { inbound: [], outbound: [] };
  }

  /** Those of its namespace that are DNS through here, so far; `undefined` without DNS here. */
  dnsDatagrams(): Datagrams | undefined {
    return this.#dns?.datagrams;
  }

  /** Settles when everything has ended, at the latest so many milliseconds from now. */
  async drain(deadlineMs: number, options?: DrainOptions): Promise<void> {
    await Promise.all([this.#proxy?.drain(deadlineMs, options), this.#dns?.drain(deadlineMs)]);
    // A client of SOCKS5 may have left while its name is looked up.
    this.#lookup?.close();
  }

  /** Closes the listeners before it returns. Idempotent. */
  async close(): Promise<void> {
    const closing = this.#proxy?.close();
    this.#lookup?.close();
    this.#dns?.close();
    await closing;
  }
}

/** Asks the workload's own DNS, on whatever thread that is served. */
function openLookup(
  { dns: { clock, random } }: WorkloadServersDeps,
  { netns, dns, proxy }: WorkloadServersOptions,
): { readonly find: FindAddress; close(): void } | undefined {
  if (dns === undefined || !proxy.socks5) return undefined;
  const { listen, mark, resolverTimeoutMs: timeoutMs } = dns;
  const server = "localhost" in listen ? { ip: LOOPBACK, port: listen.localhost } : listen;
  const exchange = new ResolverExchange({ native, clock }, { netns, mark, port: server.port });
  const { ask } = exchange;
  const { find } = new AddressLookup({ ask, random }, { server: server.ip, timeoutMs });
  return { find, close: () => exchange.close() };
}
