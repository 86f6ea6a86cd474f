/**
 * One query after the other, from its bytes to the bytes of its answer: what the mesh knows, or what a
 * resolver says.
 *
 * @see spec data-path 8.2 to 8.4
 */
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import type { Clock } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Random } from "../runtime/random.ts";
import type { MeshState } from "../state/mesh-state.ts";
import type { Logger } from "../telemetry/logger.ts";
import { encodeDnsAnswer, encodeDnsError } from "../wire/dns-answer.ts";
import { isDnsQuery, RCODE, readDnsOutcome } from "../wire/dns-message.ts";
import { type DnsQuery, type DnsQuestion, readDnsQuery } from "../wire/dns-query.ts";
import { DnsError } from "./dns-error.ts";
import type { Arrival } from "./dns-listener.ts";
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
  /** So far. */
  readonly datagrams: Datagrams;
  close(): void;
}

export interface QueryHandlerDeps {
  readonly resolvers: Resolvers;
  readonly mesh: MeshState;
  readonly source: QuerySource;
  readonly metrics: DnsMetrics;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
}

export interface QueryHandlerOptions extends DnsOptions {
  readonly resolvConf: ResolvConf;
}

/** How a query ended, for its log line. */
interface QueryResult {
  readonly text: string;
  readonly records: number;
}

const TTL_SECONDS = 30;
const ZONE_TRANSFERS: ReadonlySet<string> = new Set(["AXFR", "IXFR"]);

export class QueryHandler {
  readonly #deps: QueryHandlerDeps;
  /** One line a query, if somebody wants it. */
  readonly #log: Logger;
  readonly #names: MeshNames;
  readonly #forwarder: Forwarder;
  readonly #mark: number | undefined;
  #hasLooped = false;

  constructor(deps: QueryHandlerDeps, options: QueryHandlerOptions) {
    const { resolvConf, resolverTimeoutMs, searchDomains, mark } = options;
    this.#deps = deps;
    this.#log = deps.log.target("dns");
    this.#mark = mark;
    this.#names = new MeshNames(deps, {
      ...options,
      searchDomains: searchDomains === "file" ? resolvConf.searchDomains : undefined,
    });
    this.#forwarder = new Forwarder(
      {
        ask: deps.resolvers.ask,
        asked: (resolver, outcome) => deps.metrics.resolverAsked(resolver, outcome),
        clock: deps.clock,
      },
      {
        ...resolvConf,
        timeoutMs: Math.min(resolvConf.timeoutMs ?? resolverTimeoutMs, resolverTimeoutMs),
      },
    );
  }

  /**
   * Replies, but to what is no query. Never twice, but for a zone.
   *
   * @param isBusy too many wait already: this one must not.
   */
  async answer(arrival: Arrival, isBusy: boolean): Promise<void> {
    const { message, transport, peer, reply } = arrival;
    if (!isDnsQuery(message)) return;
    let query: DnsQuery;
    try {
      query = readDnsQuery(message);
    } catch {
      return reply(encodeDnsError(message, undefined, RCODE.formatError));
    }
    const { metrics, resolvers, source: local } = this.#deps;
    const source = local.find() ?? (isBusy ? undefined : await local.wait());
    const labels = [
      (query.question?.type ?? "UNKNOWN").toLowerCase(),
      transport,
      source?.canonicalName || "unknown",
      source?.canonicalRevision || "unknown",
    ];
    metrics.requested(labels);
    if (source === undefined) {
      return reply(encodeDnsError(message, query, RCODE.serverFailure));
    }
    const result =
      this.#answerFromMesh(arrival, query, source) ??
      (await this.#forward(arrival, query, {
        labels,
        obstacle: resolvers.isOwn(transport, peer)
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
      if (!isTransfer) reply(answer);
      const outcome = readDnsOutcome(answer);
      answerCount = outcome.answerCount;
      if (query.opcode === 0) failure = describeEmpty(query.question, outcome);
    } catch (error) {
      failure = `net error: ${errorText(error)}`;
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
      const mark = this.#mark ?? "none";
      this.#deps.log.target("ztunnel::dns::server").write("warn", message, [["mark", mark]]);
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
