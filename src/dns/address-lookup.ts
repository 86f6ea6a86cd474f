/**
 * Addresses of the names that a workload's applications leave to its proxy, as its own DNS server
 * tells them.
 *
 * @see spec data-path 9
 */
import type { IpAddress } from "../mesh/ip-address.ts";
import type { Random } from "../runtime/random.ts";
import { encodeAddressQuestion, readAddresses } from "../wire/address-question.ts";
import type { Ask } from "./forwarder.ts";

export interface AddressLookupDeps {
  readonly ask: Ask;
  readonly random: Random;
}

export interface AddressLookupOptions {
  /** Where the workload's DNS is served. */
  readonly server: IpAddress;
  readonly timeoutMs: number;
}

export class AddressLookup {
  readonly #deps: AddressLookupDeps;
  readonly #options: AddressLookupOptions;

  constructor(deps: AddressLookupDeps, options: AddressLookupOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * The first IPv4 address, else the first IPv6 one: the original never asks for that, because its
   * clients are on 127.0.0.1.
   *
   * @throws DnsError; WireError for what can't be a name.
   */
  readonly find = async (hostname: string): Promise<IpAddress | undefined> =>
    (await this.#ask(hostname, "A")) ?? (await this.#ask(hostname, "AAAA"));

  async #ask(hostname: string, type: "A" | "AAAA"): Promise<IpAddress | undefined> {
    const { ask, random } = this.#deps;
    const { server, timeoutMs } = this.#options;
    const id = Number.parseInt(random.hex(2), 16);
    const query = encodeAddressQuestion(id, hostname, type);
    const [first] = readAddresses(
      await ask(query, { resolver: server, transport: "udp", timeoutMs }),
    );
    return first;
  }
}
