/**
 * The listeners of one workload, opened and drained together: 15001 and perhaps 15080 for what leaves
 * it, 15006 and 15008 for what comes in.
 *
 * @see spec data-path 1 and 7
 */
import type { Listener, NetnsFd, SocketEnd } from "../engine/engine.ts";
import { EngineError } from "../engine/engine-error.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import { formatSocketAddress } from "../mesh/socket-address.ts";
import { invariant } from "../runtime/invariant.ts";
import type { Logger } from "../telemetry/logger.ts";
import { Application } from "./application.ts";
import {
  ConnectionReporter,
  type ConnectionSummary,
  type LiveConnections,
} from "./connection-report.ts";
import { type DrainOptions, Inbound } from "./inbound.ts";
import { InboundPassthrough } from "./inbound-passthrough.ts";
import type { LiveSet, Stoppable } from "./live-set.ts";
import { LocalWorkload } from "./local-workload.ts";
import { Outbound } from "./outbound.ts";
import { PolicyEnforcer } from "./policy-enforcer.ts";
import { bindError, drainError, ownBindError } from "./proxy-error.ts";
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

/** A set of listening socket, connections and how they are told apart in logs. */
interface Component {
  readonly name: "inbound" | "inbound passthrough" | "outbound" | "socks5";
  readonly target: string;
  readonly ip: IpAddress;
  readonly port: number;
  readonly live: LiveSet<Stoppable>;
  readonly accept: (end: SocketEnd, transparent: boolean) => void;
  listener: Listener | undefined;
  isDrained: boolean;
}

export class WorkloadProxy {
  readonly #deps: ProxyDeps;
  readonly #options: WorkloadProxyOptions;
  /** With the span of this proxy. */
  readonly #log: Logger;
  readonly #enforcer: PolicyEnforcer;
  readonly #inbound: Inbound;
  readonly #passthrough: InboundPassthrough;
  readonly #outbound: Outbound;
  readonly #socks5: Socks5 | undefined;
  readonly #components: readonly Component[];
  #isClosed = false;

  constructor(deps: ProxyDeps, options: WorkloadProxyOptions) {
    const { workload } = options;
    this.#deps = deps;
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
    const socks5 = options.socks5
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
    this.#socks5 = socks5;
    const { listenIp } = options;
    const components: Component[] = [
      {
        name: "inbound",
        target: "ztunnel::proxy::inbound",
        ip: listenIp,
        port: INBOUND_HBONE_PORT,
        live: this.#inbound.live,
        accept: (end, transparent) => this.#inbound.accept(end, transparent),
        listener: undefined,
        isDrained: false,
      },
      {
        name: "inbound passthrough",
        target: "ztunnel::proxy::inbound_passthrough",
        ip: listenIp,
        port: INBOUND_PLAINTEXT_PORT,
        live: this.#passthrough.live,
        accept: (end, transparent) => this.#passthrough.accept(end, transparent),
        listener: undefined,
        isDrained: false,
      },
      {
        name: "outbound",
        target: "ztunnel::proxy::outbound",
        ip: listenIp,
        port: OUTBOUND_PORT,
        live: this.#outbound.live,
        accept: (end) => this.#outbound.accept(end),
        listener: undefined,
        isDrained: false,
      },
    ];
    if (socks5 !== undefined) {
      components.push({
        name: "socks5",
        target: "ztunnel::proxy::socks5",
        ip: LOOPBACK,
        port: SOCKS5_PORT,
        live: socks5.live,
        accept: (end) => socks5.accept(end),
        listener: undefined,
        isDrained: false,
      });
    }
    this.#components = options.role === "pod" ? components : components.slice(0, 1);
  }

  /**
   * Binds all ports; connections wait in the kernel until {@link start}.
   *
   * @throws ProxyError `bind`; nothing stays bound then.
   */
  listen(): void {
    try {
      for (const component of this.#components) this.#bind(component);
    } catch (error) {
      this.stopListening();
      throw error;
    }
  }

  /** Begins to accept. Call once, after {@link listen}. */
  start(): void {
    this.#enforcer.watch();
    for (const { listener, accept, target } of this.#components) {
      invariant(listener !== undefined, "a proxy listens before it starts");
      const { transparent } = listener;
      listener.start(
        // What arrived before a drain began is served like what was there.
        (end) => (this.#isClosed ? end.close() : accept(end, transparent)),
        (error) => {
          const log = this.#log.target(target);
          log.write("error", `Failed TCP handshake ${error.message}`);
        },
      );
    }
  }

  /** Frees the ports before it returns; what is connected goes on. Idempotent. */
  stopListening(): void {
    for (const { listener } of this.#components) listener?.close();
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
    await Promise.all(this.#components.map((one) => this.#drainComponent(one, deadlineMs)));
    this.#release();
  }

  /** Closes the listeners before it returns and ends every connection with EOF. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.stopListening();
    await Promise.all(
      this.#components.map(async (component) => {
        component.live.stopAll("close", drainError());
        await component.live.whenEmpty();
        this.#logDrained(component);
      }),
    );
    this.#release();
  }

  async #drainComponent(component: Component, deadlineMs: number): Promise<void> {
    const { name, live } = component;
    const timer = this.#deps.clock.after(
      deadlineMs,
      () => {
        this.#log
          .target("ztunnel::drain")
          .write(
            "warn",
            "drain duration expired with pending connections, forcefully shutting down",
            [["component", name]],
          );
        live.stopAll("close", drainError());
      },
      true,
    );
    await live.whenEmpty();
    timer.cancel();
    this.#logDrained(component);
  }

  #logDrained(component: Component): void {
    if (component.isDrained) return;
    component.isDrained = true;
    this.#log
      .target("ztunnel::drain")
      .write("info", "shutdown complete", [["component", component.name]]);
  }

  #bind(component: Component): void {
    const { netns, mark, reusePort, originalSource, keepAlive } = this.#options;
    const address = { ip: component.ip, port: component.port };
    const isCaptured = component.name === "outbound" || component.name === "inbound passthrough";
    try {
      component.listener = this.#deps.engine.listen({
        netns,
        address,
        // In the daemon's own namespace only what goes out is marked.
        mark: netns === undefined ? undefined : mark,
        reusePort,
        transparent: originalSource,
        backlog: this.#options.acceptQueueMax,
        // Tunnels have their own pings; who uses SOCKS5 is near.
        keepAlive: isCaptured ? keepAlive : undefined,
        originalDestination: isCaptured,
      });
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      throw (netns === undefined ? ownBindError : bindError)(address, error);
    }
    this.#deps.log.target(component.target).write("info", "listener established", [
      ["address", { bare: formatSocketAddress(address) }],
      [
        "component",
        component.name === "inbound passthrough" ? "inbound plaintext" : component.name,
      ],
      ["transparent", component.listener.transparent],
    ]);
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
