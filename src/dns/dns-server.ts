/**
 * The DNS server of one workload: answers for names of the mesh, passes on everything else.
 *
 * @see spec data-path 8
 */
import type { NetnsFd } from "../engine/engine.ts";
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import { parseIpAddress } from "../mesh/ip-address.ts";
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Native } from "../net/native.ts";
import { type Clock, sleep } from "../runtime/clock.ts";
import { invariant } from "../runtime/invariant.ts";
import type { Random } from "../runtime/random.ts";
import type { MeshState } from "../state/mesh-state.ts";
import type { Logger } from "../telemetry/logger.ts";
import {
  type DnsQuery,
  type DnsQuestion,
  encodeDnsAnswer,
  encodeDnsError,
  isDnsQuery,
  RCODE,
  readDnsOutcome,
  readDnsQuery,
} from "../wire/dns-message.ts";
import { DnsError } from "./dns-error.ts";
import { type Arrival, DnsListener } from "./dns-listener.ts";
import type { DnsMetrics } from "./dns-metrics.ts";
import type { DnsOptions } from "./dns-options.ts";
import { type Ask, Forwarder } from "./forwarder.ts";
import { MeshNames } from "./mesh-names.ts";
import type { ResolvConf } from "./resolv-conf.ts";

/** The mesh's picture of the workload whose queries these are. It may come after the pod itself. */
export interface QuerySource {
  find(): Workload | undefined;
  /** @returns `undefined` when it did not appear in time. */
  wait(): Promise<Workload | undefined>;
}

/** Where queries go that the mesh has no answer for: {@link file://./resolver-exchange.ts}. */
export interface Resolvers {
  readonly ask: Ask;
  /** Whether we are the ones who have sent something from there. */
  isOwn(transport: "udp" | "tcp", peer: SocketAddress): boolean;
  close(): void;
}

export interface DnsServerDeps {
  readonly native: Native;
  /** Closed with the server. */
  readonly resolvers: Resolvers;
  readonly mesh: MeshState;
  readonly source: QuerySource;
  readonly metrics: DnsMetrics;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
}

export interface DnsServerOptions extends DnsOptions {
  readonly workload: EnrolledWorkload;
  readonly resolvConf: ResolvConf;
  /** Open until {@link DnsServer.close} or {@link DnsServer.drain} has settled. */
  readonly netns: NetnsFd | undefined;
}

/** How a query ended, for its log line. */
interface QueryResult {
  readonly text: string;
  readonly records: number;
}

/** A turn of the event loop, and some. */
const LAST_READ_MS = 2;
const TTL_SECONDS = 30;
const TARGET = "ztunnel::dns::server";
/** Without IPv6 on loopback, and without IPv6 at all. */
const NO_IPV6_LOOPBACK: ReadonlySet<unknown> = new Set(["EADDRNOTAVAIL", "EAFNOSUPPORT"]);
const ZONE_TRANSFERS: ReadonlySet<string> = new Set(["AXFR", "IXFR"]);

export class DnsServer {
  readonly #deps: DnsServerDeps;
  readonly #options: DnsServerOptions;
  /** One line a query, if somebody wants it. */
  readonly #log: Logger;
  readonly #names: MeshNames;
  readonly #forwarder: Forwarder;
  readonly #pending = new Set<Promise<void>>();
  #listeners: readonly DnsListener[] = [];
  #hasLooped = false;
  #closed = false;

  constructor(deps: DnsServerDeps, options: DnsServerOptions) {
    const { resolvConf: conf } = options;
    this.#deps = deps;
    this.#options = options;
    this.#log = deps.log.target("dns");
    this.#names = new MeshNames(deps, {
      ...options,
      searchDomains: options.searchDomains === "file" ? conf.searchDomains : undefined,
    });
    this.#forwarder = new Forwarder(
      {
        ask: deps.resolvers.ask,
        asked: (resolver, outcome) => deps.metrics.resolverAsked(resolver, outcome),
        clock: deps.clock,
      },
      {
        ...conf,
        timeoutMs: Math.min(conf.timeoutMs ?? options.resolverTimeoutMs, options.resolverTimeoutMs),
      },
    );
  }

  /**
   * Takes queries from the next turn on.
   *
   * @throws DnsError `bind`; nothing stays bound then.
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
      if (error instanceof DnsError && isWithoutIpv6(error.cause)) return;
      ipv4.close();
      throw error;
    }
  }

  /**
   * Answers what waits, and what comes meanwhile by UDP, then closes.
   *
   * @param deadlineMs from now.
   */
  async drain(deadlineMs: number): Promise<void> {
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
      throw new DnsError("bind", formatSocketAddress(address), cause);
    }
  }

  #take(arrival: Arrival): void {
    const answering = this.#answer(arrival)
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

  async #answer(arrival: Arrival): Promise<void> {
    const { message, transport, peer, reply } = arrival;
    if (this.#closed || !isDnsQuery(message)) return;
    let query: DnsQuery;
    try {
      query = readDnsQuery(message);
    } catch {
      return reply(encodeDnsError(message, undefined, RCODE.formatError));
    }
    const { find, wait } = this.#deps.source;
    const isBusy = this.#pending.size >= this.#options.queriesMax;
    const source = find() ?? (isBusy ? undefined : await wait());
    const labels = [
      (query.question?.type ?? "UNKNOWN").toLowerCase(),
      transport,
      source?.canonicalName || "unknown",
      source?.canonicalRevision || "unknown",
    ];
    this.#deps.metrics.requested(labels);
    if (source === undefined) {
      return reply(encodeDnsError(message, query, RCODE.serverFailure));
    }
    const result =
      this.#answerFromMesh(arrival, query, source) ??
      (await this.#forward(arrival, query, {
        labels,
        obstacle: this.#deps.resolvers.isOwn(transport, peer)
          ? this.#loop()
          : isBusy
            ? new DnsError("busy", "too many queries are waiting")
            : undefined,
      }));
    this.#report(source, query.question, result);
  }

  /** @returns `undefined`: the mesh has no answer. */
  #answerFromMesh(
    { message, transport, reply }: Arrival,
    query: DnsQuery,
    source: Workload,
  ): QueryResult | undefined {
    const { opcode, question, edns } = query;
    if (opcode !== 0 || question === undefined || !question.isInternet) return undefined;
    const { name, type } = question;
    if ((type !== "A" && type !== "AAAA") || (edns !== undefined && edns.version !== 0)) {
      return undefined;
    }
    const found = this.#names.find({ name, type }, source);
    if (found.kind === "unknown") return undefined;
    const alias = found.kind === "found" ? found.alias : undefined;
    const addresses = found.kind === "found" ? found.addresses : [];
    const answer = { alias, addresses, ttlSeconds: TTL_SECONDS };
    reply(encodeDnsAnswer(message, { ...query, question }, answer, transport));
    switch (found.kind) {
      case "none":
        return { text: "no records", records: 0 };
      case "unsupported":
        return { text: "service does not support this record type", records: 0 };
      case "found":
        // The original's number: it counts aliases only.
        return { text: "success", records: alias === undefined ? 0 : 1 };
    }
  }

  async #forward(
    { message, transport, reply, signal }: Arrival,
    query: DnsQuery,
    how: { readonly labels: readonly string[]; readonly obstacle: DnsError | undefined },
  ): Promise<QueryResult> {
    const { clock, metrics } = this.#deps;
    const start = clock.monotonic();
    const isTransfer = signal !== undefined && ZONE_TRANSFERS.has(query.question?.type ?? "");
    let failure: string | undefined;
    let answerCount = 0;
    try {
      if (how.obstacle !== undefined) throw how.obstacle;
      const answer = isTransfer
        ? await this.#forwarder.transfer(message, { message: reply, signal })
        : await this.#forwarder.forward(message, transport);
      if (this.#closed) return { text: "forwarded", records: 0 };
      reply(answer);
      const outcome = readDnsOutcome(answer);
      answerCount = outcome.answerCount;
      if (query.opcode === 0) failure = describeEmpty(query.question, outcome);
    } catch (error) {
      failure = `net error: ${error instanceof Error ? error.message : String(error)}`;
      reply(encodeDnsError(message, query, RCODE.serverFailure));
    }
    metrics.forwarded(how.labels, clock.monotonic() - start, failure !== undefined);
    return failure === undefined
      ? { text: "forwarded", records: answerCount }
      : { text: `forwarding failed (${failure})`, records: 0 };
  }

  #loop(): DnsError {
    const error = new DnsError("loop", "the query is one of our own");
    if (!this.#hasLooped) {
      const message =
        "DNS queries of the proxy are redirected to the proxy itself: the redirect rules must leave packets with its mark alone";
      const mark = this.#options.mark ?? "none";
      this.#deps.log.target(TARGET).write("warn", message, [["mark", mark]]);
    }
    this.#hasLooped = true;
    return error;
  }

  #report(source: Workload, question: DnsQuestion | undefined, result: QueryResult): void {
    if (!this.#log.enabled("debug")) return;
    this.#log.write("debug", "", [
      ["src.workload", source.name],
      ["src.namespace", source.namespace],
      ["query", question?.type ?? "UNKNOWN"],
      ["domain", `${question?.name ?? ""}.`],
      ["result", result.text],
      ["endpoints", result.records],
    ]);
  }
}

/** The original counts replies without answers as failures, and says so in these words. */
function describeEmpty(
  question: DnsQuestion | undefined,
  outcome: { readonly rcode: number; readonly answerCount: number },
): string | undefined {
  if (outcome.rcode === 0 && outcome.answerCount > 0) return undefined;
  const asked = `Query { name: Name("${question?.name ?? ""}."), query_type: ${question?.type ?? "UNKNOWN"}, query_class: IN }`;
  return `net error: DNS error: no records found for ${asked}`;
}

function loopback(text: string, port: number): SocketAddress {
  const ip = parseIpAddress(text);
  invariant(ip !== undefined, "the loopback addresses are addresses");
  return { ip, port };
}

function isWithoutIpv6(error: unknown): boolean {
  return error instanceof Error && "code" in error && NO_IPV6_LOOPBACK.has(error.code);
}
