/**
 * The listeners of one workload, opened and drained together: 15001 and perhaps 15080 for what leaves
 * it, 15006 and 15008 for what comes in.
 *
 * @see spec data-path 1 and 7
 */
import type { NetnsFd } from "../engine/engine.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { Logger } from "../telemetry/logger.ts";
import { Application } from "./application.ts";
import {
  ConnectionReporter,
  type ConnectionSummary,
  type LiveConnections,
} from "./connection-report.ts";
import { type DrainOptions, Inbound } from "./inbound.ts";
import { InboundPassthrough } from "./inbound-passthrough.ts";
import { LocalWorkload } from "./local-workload.ts";
import { Outbound } from "./outbound.ts";
import { PolicyEnforcer } from "./policy-enforcer.ts";
import { type ComponentDescription, ProxyComponent } from "./proxy-component.ts";
import {
  INBOUND_HBONE_PORT,
  INBOUND_PLAINTEXT_PORT,
  OUTBOUND_PORT,
  type ProxyDeps,
  type ProxyOptions,
  SOCKS5_PORT,
} from "./proxy-options.ts";
import { Socks5 } from "./socks5.ts";
import type { FindAddress } from "./socks5-handshake.ts";

const LOOPBACK = "127.0.0.1" as IpAddress;

export interface WorkloadProxyOptions extends ProxyOptions {
  readonly workload: EnrolledWorkload;
  /** `self` is the daemon's own pod, which takes tunnels only. @see spec data-path 1.6 */
  readonly role: "pod" | "self";
  /** `undefined`: the daemon's own. Open until {@link WorkloadProxy.close} or {@link WorkloadProxy.drain} has settled. */
  readonly netns: NetnsFd | undefined;
  /** An address of a host name that a client of SOCKS5 asked for; `undefined`: none is looked up. */
  readonly findAddress: FindAddress | undefined;
}

export class WorkloadProxy {
  readonly #options: WorkloadProxyOptions;
  /** With the span of this proxy. */
  readonly #log: Logger;
  readonly #enforcer: PolicyEnforcer;
  readonly #inbound: Inbound;
  readonly #passthrough: InboundPassthrough;
  readonly #outbound: Outbound;
  readonly #socks5: Socks5 | undefined;
  readonly #components: readonly ProxyComponent[];

  constructor(deps: ProxyDeps, options: WorkloadProxyOptions) {
    const { workload } = options;
    this.#options = options;
    this.#log = deps.log.span("proxy", [
      ["wl", { bare: `${workload.namespace}/${workload.name}` }],
    ]);
    this.#enforcer = new PolicyEnforcer({ ...deps, log: this.#log }, options);
    const shared = {
      ...deps,
      log: this.#log,
      local: new LocalWorkload(deps, workload, options.localWorkloadWaitMs),
      reporter: new ConnectionReporter(deps),
      enforcer: this.#enforcer,
      application: new Application(deps.engine, options),
    };
    this.#inbound = new Inbound(shared, options);
    this.#passthrough = new InboundPassthrough(shared, options);
    this.#outbound = new Outbound(shared, options);
    this.#socks5 = options.socks5
      ? new Socks5(
          {
            outbound: new Outbound(shared, options),
            findAddress: options.findAddress,
            log: this.#log,
            clock: deps.clock,
          },
          { timeoutMs: options.serverTunnel.handshakeTimeoutMs },
        )
      : undefined;
    this.#components = this.#describe().map(
      (description) => new ProxyComponent({ ...deps, spanLog: this.#log }, options, description),
    );
  }

  #describe(): readonly ComponentDescription[] {
    const { listenIp, role } = this.#options;
    const inbound: ComponentDescription = {
      name: "inbound",
      target: "ztunnel::proxy::inbound",
      ip: listenIp,
      port: INBOUND_HBONE_PORT,
      isCaptured: false,
      live: this.#inbound.live,
      accept: (end, transparent) => this.#inbound.accept(end, transparent),
    };
    if (role === "self") return [inbound];
    const passthrough: ComponentDescription = {
      name: "inbound passthrough",
      target: "ztunnel::proxy::inbound_passthrough",
      ip: listenIp,
      port: INBOUND_PLAINTEXT_PORT,
      isCaptured: true,
      live: this.#passthrough.live,
      accept: (end, transparent) => this.#passthrough.accept(end, transparent),
    };
    const outbound: ComponentDescription = {
      name: "outbound",
      target: "ztunnel::proxy::outbound",
      ip: listenIp,
      port: OUTBOUND_PORT,
      isCaptured: true,
      live: this.#outbound.live,
      accept: (end) => this.#outbound.accept(end),
    };
    const socks5 = this.#socks5;
    if (socks5 === undefined) return [inbound, passthrough, outbound];
    return [
      inbound,
      passthrough,
      outbound,
      {
        name: "socks5",
        target: "ztunnel::proxy::socks5",
        ip: LOOPBACK,
        port: SOCKS5_PORT,
        isCaptured: false,
        live: socks5.live,
        accept: (end) => socks5.accept(end),
      },
    ];
  }

  /**
   * Binds all ports; connections wait in the kernel until {@link start}.
   *
   * @throws ProxyError `bind`; nothing stays bound then.
   */
  listen(): void {
    try {
      for (const component of this.#components) component.listen();
    } catch (error) {
      this.stopListening();
      throw error;
    }
  }

  /** Begins to accept. Call once, after {@link listen}. */
  start(): void {
    this.#enforcer.watch();
    for (const component of this.#components) component.start();
  }

  /** Frees the ports before it returns; what is connected goes on. Idempotent. */
  stopListening(): void {
    for (const component of this.#components) component.stopListening();
  }

  /** What is connected now, for the operator's dump. */
  connections(): LiveConnections {
    const streams = [...this.#inbound.live].flatMap((tunnel) => [...tunnel.streams]);
    return {
      inbound: summaries([...streams, ...this.#passthrough.live]),
      outbound: summaries([...this.#outbound.live, ...(this.#socks5?.live ?? [])]),
    };
  }

  /**
   * Closes the listeners before it returns, tells peers to go elsewhere and settles when the last
   * connection has ended. Those that live longer than the deadline end with EOF. Of several calls the
   * earliest deadline counts.
   *
   * @param deadlineMs from now.
   */
  async drain(
    deadlineMs: number,
    options: DrainOptions = { idleTunnelMs: undefined },
  ): Promise<void> {
    this.stopListening();
    this.#inbound.drain(options);
    this.#outbound.drain();
    this.#socks5?.drain();
    await Promise.all(this.#components.map((component) => component.drain(deadlineMs)));
    this.#release();
  }

  /** Closes the listeners before it returns and ends every connection with EOF. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#components.map((component) => component.close()));
    this.#release();
  }

  #release(): void {
    this.#enforcer.close();
    this.#outbound.close();
    this.#socks5?.close();
  }
}

function summaries(
  connections: Iterable<{ readonly summary: ConnectionSummary | undefined }>,
): readonly ConnectionSummary[] {
  return [...connections].flatMap(({ summary }) => summary ?? []);
}
