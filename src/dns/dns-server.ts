/**
 * The DNS server of one workload: its listeners, and the queries that are under way.
 *
 * @see spec data-path 8.1
 */
import type { NetnsFd } from "../engine/engine.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import { parseIpAddress } from "../mesh/ip-address.ts";
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { Native } from "../net/native.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import { sleep } from "../runtime/clock.ts";
import { invariant } from "../runtime/invariant.ts";
import { DnsBindError } from "./dns-error.ts";
import { type Arrival, DnsListener } from "./dns-listener.ts";
import { QueryHandler, type QueryHandlerDeps, type QueryHandlerOptions } from "./query-handler.ts";

export interface DnsServerDeps extends QueryHandlerDeps {
  readonly native: Native;
}

export interface DnsServerOptions extends QueryHandlerOptions {
  readonly workload: EnrolledWorkload;
  /** Open until {@link DnsServer.close} or {@link DnsServer.drain} has settled. */
  readonly netns: NetnsFd | undefined;
}

/** A turn of the event loop, and some. */
const LAST_READ_MS = 2;
const TARGET = "ztunnel::dns::server";
/** Without IPv6 on loopback, and without IPv6 at all. */
const NO_IPV6_LOOPBACK: ReadonlySet<unknown> = new Set(["EADDRNOTAVAIL", "EAFNOSUPPORT"]);

export class DnsServer {
  readonly #deps: DnsServerDeps;
  readonly #options: DnsServerOptions;
  readonly #handler: QueryHandler;
  readonly #pending = new Set<Promise<void>>();
  #listeners: readonly DnsListener[] = [];
  #closed = false;

  constructor(deps: DnsServerDeps, options: DnsServerOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#handler = new QueryHandler(deps, options);
  }

  /**
   * Takes queries from the next turn on.
   *
   * @throws DnsBindError; nothing stays bound then.
   */
  listen(): void {
    const { listen } = this.#options;
    const address =
      "localhost" in listen ? `localhost:${listen.localhost}` : formatSocketAddress(listen);
    this.#deps.log.target(TARGET).write("info", "starting local DNS server", [
      ["address", { bare: address }],
      ["component", "dns"],
    ]);
    if (!("localhost" in listen)) {
      this.#listeners = [this.#bind(listen)];
      return;
    }
    const ipv4 = this.#bind(loopback("127.0.0.1", listen.localhost));
    this.#listeners = [ipv4];
    if (!this.#options.ipv6) return;
    try {
      this.#listeners = [ipv4, this.#bind(loopback("::1", listen.localhost))];
    } catch (error) {
      if (error instanceof DnsBindError && isWithoutIpv6(error.cause)) return;
      ipv4.close();
      throw error;
    }
  }

  /**
   * Those of the namespace so far that are DNS through here: queries that applications have sent, answers
   * that they have received, and what was asked on their behalf.
   */
  get datagrams(): Datagrams {
    const asked = this.#deps.resolvers.datagrams;
    let { received, sent } = asked;
    for (const { datagrams } of this.#listeners) {
      // Each has two ends in the namespace.
      received += datagrams.received + datagrams.sent;
      sent += datagrams.received + datagrams.sent;
    }
    return { received, sent };
  }

  /**
   * Answers what waits, and what comes meanwhile by UDP, then closes.
   *
   * @param deadlineMs from now.
   */
  async drain(deadlineMs: number): Promise<void> {
    if (this.#closed) return;
    for (const listener of this.#listeners) listener.drain();
    const { clock } = this.#deps;
    await new Promise<void>((resolve) => {
      const timer = clock.after(deadlineMs, resolve, true);
      void Promise.allSettled(this.#pending).then(() => {
        timer.cancel();
        resolve();
      });
    });
    // What the kernel has taken in by now is read in the meantime.
    await sleep(clock, LAST_READ_MS);
    this.close();
  }

  /** Closes the sockets before it returns; queries that wait get no answer. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const { workload } = this.#options;
    const wl = { bare: `${workload.namespace}/${workload.name}` };
    const log = this.#deps.log.target(TARGET).span("dns_proxy", [["wl", wl]]);
    log.write("info", "shutting down the DNS server");
    for (const listener of this.#listeners) listener.close();
    this.#deps.resolvers.close();
    log.write("info", "dns server drained");
  }

  #bind(address: SocketAddress): DnsListener {
    try {
      return new DnsListener(this.#deps.native, { ...this.#options, address }, (arrival) =>
        this.#take(arrival),
      );
    } catch (cause) {
      throw new DnsBindError(address, cause);
    }
  }

  #take(arrival: Arrival): void {
    const answering = this.#handler
      .answer(arrival, this.#pending.size >= this.#options.queriesMax)
      .catch((error: unknown) => {
        // A bug that cost one answer.
        this.#deps.log.target(TARGET).write("error", `unexpected failure: ${String(error)}`);
      })
      .finally(() => {
        this.#pending.delete(answering);
        arrival.done();
      });
    this.#pending.add(answering);
  }
}

function loopback(text: string, port: number): SocketAddress {
  const ip = parseIpAddress(text);
  invariant(ip !== undefined, "the loopback addresses are addresses");
  return { ip, port };
}

function isWithoutIpv6(error: unknown): boolean {
  return error instanceof Error && "code" in error && NO_IPV6_LOOPBACK.has(error.code);
}
