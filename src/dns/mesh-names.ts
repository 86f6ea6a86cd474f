/**
 * What the mesh says of a name: pure but for the shuffle.
 *
 * @see spec data-path 8.2
 */
import { type IpAddress, ipFamily } from "../mesh/ip-address.ts";
import type { Service } from "../mesh/service.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Random } from "../runtime/random.ts";
import type { KnownService, MeshState } from "../state/mesh-state.ts";
import { nameAliases, wildcardsOf } from "./name-aliases.ts";

export interface MeshNamesOptions {
  /** Names of services in Kubernetes end in `.svc.` and this. */
  readonly clusterDomain: string;
  /** Its services win where the client's namespace has none of the name. */
  readonly preferredNamespace: string | undefined;
  /** `undefined`: those that Kubernetes gives to pods of the client's namespace. */
  readonly searchDomains: readonly string[] | undefined;
  /** Whether AAAA is answered with addresses at all. */
  readonly ipv6: boolean;
}

export interface NameQuestion {
  /** Lower case, without a dot at its end. */
  readonly name: string;
  readonly type: "A" | "AAAA";
}

export type MeshNameAnswer =
  /** Of no concern to the mesh: somebody else may know it. */
  | { readonly kind: "unknown" }
  /** The service is there and has no address to tell: not of this family, or none at all. */
  | { readonly kind: "unsupported" | "none" }
  | {
      readonly kind: "found";
      /** The name that owns the addresses, where a search domain was taken off. */
      readonly alias: string | undefined;
      /** In random order. */
      readonly addresses: readonly IpAddress[];
    };

const FAMILY = { A: 4, AAAA: 6 } as const;

export class MeshNames {
  readonly #mesh: MeshState;
  readonly #random: Random;
  readonly #options: MeshNamesOptions;
  readonly #serviceSuffix: string;

  constructor(
    deps: { readonly mesh: MeshState; readonly random: Random },
    options: MeshNamesOptions,
  ) {
    this.#mesh = deps.mesh;
    this.#random = deps.random;
    this.#options = options;
    this.#serviceSuffix = `.svc.${options.clusterDomain}`;
  }

  find(question: NameQuestion, client: Workload): MeshNameAnswer {
    const match = this.#match(question.name, client.namespace);
    if (match === undefined) return { kind: "unknown" };
    const { known, alias } = match;
    if (!this.#hasFamily(known.service, question.type)) return { kind: "unsupported" };
    const addresses = addressesOf(known, FAMILY[question.type], client.network);
    if (addresses.length === 0) return { kind: "none" };
    return { kind: "found", alias, addresses: shuffled(addresses, this.#random) };
  }

  #match(
    name: string,
    namespace: string,
  ): { readonly known: KnownService; readonly alias: string | undefined } | undefined {
    const { clusterDomain, searchDomains, preferredNamespace } = this.#options;
    const among = {
      preferredNamespace,
      accepts: (service: Service) =>
        service.vips.length > 0 || service.hostname.endsWith(this.#serviceSuffix),
    };
    for (const alias of nameAliases(name, { namespace, clusterDomain, searchDomains })) {
      const exact = this.#mesh.findServiceByHostname(alias.name, namespace, among);
      if (exact !== undefined) return { known: exact, alias: alias.stripped };
      for (const wildcard of wildcardsOf(alias.name)) {
        const known = this.#mesh.findServiceByHostname(wildcard, namespace, among);
        if (known !== undefined) return { known, alias: undefined };
      }
    }
    return undefined;
  }

  #hasFamily({ ipFamilies }: Service, type: NameQuestion["type"]): boolean {
    if (type === "A") return ipFamilies !== "IPv6";
    return this.#options.ipv6 && ipFamilies !== "IPv4";
  }
}

/** A service without addresses of its own is known by those of its endpoints, one of each. */
function addressesOf(known: KnownService, family: 4 | 6, network: string): IpAddress[] {
  const { service, endpoints } = known;
  if (service.vips.length > 0) {
    return service.vips.flatMap((vip) =>
      vip.network === network && ipFamily(vip.ip) === family ? vip.ip : [],
    );
  }
  return [...endpoints.values()].flatMap(
    ({ ips }) => ips.find((ip) => ipFamily(ip) === family) ?? [],
  );
}

/** In place: every order is as likely as any other. */
function shuffled<Value>(values: Value[], random: Random): Value[] {
  for (let last = values.length - 1; last > 0; last--) {
    const other = Math.floor(random.unit() * (last + 1));
    [values[last], values[other]] = [values[other] as Value, values[last] as Value];
  }
  return values;
}
