/**
 * What the mesh does not know goes to the resolvers of the machine, as the bytes that came, and their
 * reply goes back likewise. Resolvers are asked in their order, those that failed lately last.
 *
 * Equal questions that wait at the same time are asked once. So a resolver of this node that asks us in
 * its turn ends in its own waiting, not in a storm.
 *
 * @see spec data-path 8.3
 */
import type { IpAddress } from "../mesh/ip-address.ts";
import type { Clock } from "../runtime/clock.ts";
import { RCODE, readDnsOutcome, withIdOf } from "../wire/dns-message.ts";
import { DnsError } from "./dns-error.ts";
import type { ResolverOutcome } from "./dns-metrics.ts";
import type { ExchangeOptions, ZoneTransfer } from "./resolver-exchange.ts";

/** One resolver's reply to a query. @throws DnsError `timeout`, `unreachable` or `closed`. */
export type Ask = (query: Uint8Array, options: ExchangeOptions) => Promise<Uint8Array>;

export interface ForwarderDeps {
  readonly ask: Ask;
  /** Told how each resolver did. */
  readonly asked: (resolver: IpAddress, outcome: ResolverOutcome) => void;
  readonly clock: Clock;
}

export interface ForwarderOptions {
  /** In the order of the configuration; at least one. */
  readonly resolvers: readonly IpAddress[];
  /** How often all are asked. */
  readonly attempts: number;
  /** For one resolver's answer. */
  readonly timeoutMs: number;
}

/** A resolver that failed is asked after all others for so long. */
const AVOID_MS = 30_000;

/** Where flags and all else begins; before it is the number of the asker. */
const AFTER_ID = 2;

export class Forwarder {
  readonly #deps: ForwarderDeps;
  readonly #options: ForwarderOptions;
  /** Until when, monotonic. */
  readonly #avoided = new Map<IpAddress, number>();
  /** By transport and all of the message but its number. */
  readonly #waiting = new Map<string, Promise<Uint8Array>>();

  constructor(deps: ForwarderDeps, options: ForwarderOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** @throws DnsError of the last resolver when none replies. */
  async forward(query: Uint8Array, transport: "udp" | "tcp"): Promise<Uint8Array> {
    const key = transport + Buffer.from(query.subarray(AFTER_ID)).toString("latin1");
    let reply = this.#waiting.get(key);
    if (reply === undefined) {
      reply = this.#askAll(query, transport);
      this.#waiting.set(key, reply);
      const forget = (): boolean => this.#waiting.delete(key);
      reply.then(forget, forget);
    }
    return withIdOf(query, await reply);
  }

  /** As {@link forward}, for a zone. @returns the first of its messages, when all have come. */
  transfer(query: Uint8Array, transfer: ZoneTransfer): Promise<Uint8Array> {
    return this.#askAll(query, "tcp", transfer);
  }

  async #askAll(
    query: Uint8Array,
    transport: "udp" | "tcp",
    transfer?: ZoneTransfer,
  ): Promise<Uint8Array> {
    const { ask, asked, clock } = this.#deps;
    const { attempts, timeoutMs } = this.#options;
    let failure: unknown;
    for (let attempt = 0; attempt < attempts; attempt++) {
      /** What is passed on when nobody does better. */
      let refusal: Uint8Array | undefined;
      for (const resolver of this.#order()) {
        try {
          const reply = await ask(query, { resolver, transport, timeoutMs, transfer });
          this.#avoided.delete(resolver);
          const isRefused = isRefusal(reply);
          asked(resolver, isRefused ? "refused" : "answered");
          // The messages of a transfer have been passed on by now.
          if (transfer !== undefined || !isRefused) return reply;
          refusal = reply;
        } catch (error) {
          failure = error;
          const code = error instanceof DnsError ? error.code : undefined;
          if (code !== "timeout" && code !== "unreachable") throw error;
          asked(resolver, code);
          this.#avoided.set(resolver, clock.monotonic() + AVOID_MS);
        }
      }
      if (refusal !== undefined) return refusal;
    }
    throw failure;
  }

  #order(): readonly IpAddress[] {
    const now = this.#deps.clock.monotonic();
    const isAvoided = (resolver: IpAddress): number =>
      (this.#avoided.get(resolver) ?? 0) > now ? 1 : 0;
    return this.#options.resolvers.toSorted((a, b) => isAvoided(a) - isAvoided(b));
  }
}

/** The resolver can't or won't; another may. */
function isRefusal(reply: Uint8Array): boolean {
  const { rcode } = readDnsOutcome(reply);
  return rcode === RCODE.serverFailure || rcode === RCODE.notImplemented || rcode === RCODE.refused;
}
