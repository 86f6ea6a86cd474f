/**
 * Addresses of host names, for workloads that the mesh knows by name only. Answers are kept as long
 * as DNS allows; those who ask for the same name meanwhile share one question. A failure is not kept.
 *
 * @see spec data-path 2.7.
 */
import type { IpAddress } from "../mesh/ip-address.ts";
import type { Clock } from "../runtime/clock.ts";
import type { AskHost } from "./system-resolver.ts";

export interface HostAddressesOptions {
  /** Answers kept; the one not used for longest goes. */
  readonly namesMax: number;
  /** Of one question with all that it takes to answer it. */
  readonly timeoutMs: number;
}

interface KeptAnswer {
  readonly ips: readonly IpAddress[];
  /** Monotonic milliseconds. */
  readonly until: number;
}

export class HostAddresses {
  readonly #ask: AskHost;
  readonly #clock: Clock;
  readonly #options: HostAddressesOptions;
  /** The one used last comes last. */
  readonly #kept = new Map<string, KeptAnswer>();
  readonly #asked = new Map<string, Promise<readonly IpAddress[]>>();

  constructor(
    deps: { readonly ask: AskHost; readonly clock: Clock },
    options: HostAddressesOptions,
  ) {
    this.#ask = deps.ask;
    this.#clock = deps.clock;
    this.#options = options;
  }

  /**
   * @returns addresses of both families in no order; none when the name exists without one.
   * @throws Error what stands in the way: the name does not exist, nobody answers.
   */
  async find(hostname: string): Promise<readonly IpAddress[]> {
    const name = hostname.toLowerCase();
    const kept = this.#kept.get(name);
    if (kept !== undefined) {
      this.#kept.delete(name);
      if (this.#clock.monotonic() < kept.until) {
        this.#kept.set(name, kept);
        return kept.ips;
      }
    }
    let asked = this.#asked.get(name);
    if (asked === undefined) {
      asked = this.#askAnew(name).finally(() => this.#asked.delete(name));
      this.#asked.set(name, asked);
    }
    return asked;
  }

  async #askAnew(name: string): Promise<readonly IpAddress[]> {
    const { timeoutMs, namesMax } = this.#options;
    const end = new AbortController();
    const late = Promise.withResolvers<never>();
    const timer = this.#clock.after(timeoutMs, () => {
      const error = new Error(`no answer for ${name} within ${timeoutMs} ms`);
      end.abort(error);
      late.reject(error);
    });
    try {
      const { ips, ttlMs } = await Promise.race([this.#ask(name, end.signal), late.promise]);
      if (ttlMs > 0) {
        this.#kept.set(name, { ips, until: this.#clock.monotonic() + ttlMs });
        const [oldest] = this.#kept.keys();
        if (this.#kept.size > namesMax && oldest !== undefined) this.#kept.delete(oldest);
      }
      return ips;
    } finally {
      timer.cancel();
    }
  }
}
