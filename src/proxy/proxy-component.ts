/** One port of a workload's proxy: its listener, what came in by it, and how that comes to an end. */
import type { Engine, Listener, NetnsFd, SocketEnd } from "../engine/engine.ts";
import { EngineError } from "../engine/engine-error.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import { formatSocketAddress } from "../mesh/socket-address.ts";
import type { Clock } from "../runtime/clock.ts";
import { invariant } from "../runtime/invariant.ts";
import type { Logger } from "../telemetry/logger.ts";
import { bindError, ownBindError } from "./engine-failure.ts";
import type { LiveSet, Stoppable } from "./live-set.ts";
import { drainError } from "./proxy-error.ts";
import type { ProxyOptions } from "./proxy-options.ts";

export interface ProxyComponentDeps {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Logger;
  /** With the span of the workload's proxy. */
  readonly spanLog: Logger;
}

export interface ProxyComponentOptions
  extends Pick<
    ProxyOptions,
    "mark" | "reusePort" | "originalSource" | "acceptQueueMax" | "keepAlive"
  > {
  /** `undefined`: the daemon's own. */
  readonly netns: NetnsFd | undefined;
}

/** What tells one port from the others. */
export interface ComponentDescription {
  /** As logs of its end call it. */
  readonly name: "inbound" | "inbound passthrough" | "outbound" | "socks5";
  /** Of its log lines. */
  readonly target: string;
  readonly ip: IpAddress;
  readonly port: number;
  /** Redirect rules send connections here that were going elsewhere. */
  readonly isCaptured: boolean;
  readonly live: LiveSet<Stoppable>;
  readonly accept: (end: SocketEnd, transparent: boolean) => void;
}

export class ProxyComponent {
  readonly #deps: ProxyComponentDeps;
  readonly #options: ProxyComponentOptions;
  readonly #description: ComponentDescription;
  #listener: Listener | undefined;
  #isClosed = false;
  #isDrained = false;

  constructor(
    deps: ProxyComponentDeps,
    options: ProxyComponentOptions,
    description: ComponentDescription,
  ) {
    this.#deps = deps;
    this.#options = options;
    this.#description = description;
  }

  /**
   * Connections wait in the kernel until {@link start}.
   *
   * @throws ProxyError `bind`.
   */
  listen(): void {
    const { netns, mark, reusePort, originalSource, keepAlive } = this.#options;
    const { name, target, ip, port, isCaptured } = this.#description;
    const address = { ip, port };
    try {
      this.#listener = this.#deps.engine.listen({
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
    this.#deps.log.target(target).write("info", "listener established", [
      ["address", { bare: formatSocketAddress(address) }],
      ["component", name === "inbound passthrough" ? "inbound plaintext" : name],
      ["transparent", this.#listener.transparent],
    ]);
  }

  /** Begins to accept. Call once, after {@link listen}. */
  start(): void {
    const { accept, target } = this.#description;
    invariant(this.#listener !== undefined, "a proxy listens before it starts");
    const { transparent } = this.#listener;
    this.#listener.start(
      // What arrived before a drain began is served like what was there.
      (end) => (this.#isClosed ? end.close() : accept(end, transparent)),
      (error) => {
        const log = this.#deps.spanLog.target(target);
        log.write("error", `Failed TCP handshake ${error.message}`);
      },
    );
  }

  /** Frees the port before it returns; what is connected goes on. Idempotent. */
  stopListening(): void {
    this.#listener?.close();
  }

  /** Settles when the last connection has ended; those that are left at the deadline end with EOF. */
  async drain(deadlineMs: number): Promise<void> {
    const { name, live } = this.#description;
    const timer = this.#deps.clock.after(
      deadlineMs,
      () => {
        this.#log().write(
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
    this.#logDrained();
  }

  /** Ends every connection with EOF, and whatever is accepted from now on. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.stopListening();
    const { live } = this.#description;
    live.stopAll("close", drainError());
    await live.whenEmpty();
    this.#logDrained();
  }

  #logDrained(): void {
    if (this.#isDrained) return;
    this.#isDrained = true;
    this.#log().write("info", "shutdown complete", [["component", this.#description.name]]);
  }

  #log(): Logger {
    return this.#deps.spanLog.target("ztunnel::drain");
  }
}
