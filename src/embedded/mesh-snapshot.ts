/**
 * A mesh as a discovery server holds it: resources in the bytes in which they are sent, each with a
 * version that is a hash of them.
 */
import { createHash } from "node:crypto";
import { policyKey } from "../mesh/authorization.ts";
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import type { MeshUpdate } from "../mesh/mesh-update.ts";
import { serviceKey } from "../mesh/service.ts";
import { workloadIdentity } from "../mesh/workload.ts";
import { type AddressResource, decodeAddress, encodeAddress } from "../wire/address-resource.ts";
import { encodeAuthorization } from "../wire/authorization-resource.ts";

export interface MeshResource {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Equal for equal bytes. */
  readonly version: string;
}

/** A workload or service with what it can be asked for by. */
export interface AddressEntry extends MeshResource {
  readonly resource: AddressResource;
  /** `network/ip` of each address, ranges as `network/ip/length`. */
  readonly aliases: readonly string[];
}

/** Immutable; a change makes another one. */
export class MeshSnapshot {
  /** Key is the resource's name. */
  readonly addresses: ReadonlyMap<string, AddressEntry>;
  readonly authorizations: ReadonlyMap<string, MeshResource>;
  /** Alias, a range without its length → entry. */
  readonly #byAlias = new Map<string, AddressEntry>();
  /** `namespace/hostname` → the workloads behind the service. */
  readonly #byService = new Map<string, AddressEntry[]>();
  /** SPIFFE URI → the nodes of the workloads that have the identity. */
  readonly #nodesByIdentity = new Map<string, Set<string>>();

  /** @param addresses name → bytes of an `istio.workload.Address`, others likewise. */
  constructor(
    addresses: ReadonlyMap<string, Uint8Array>,
    authorizations: ReadonlyMap<string, Uint8Array>,
  ) {
    this.addresses = new Map(
      [...addresses].map(([name, bytes]) => [name, addressEntry(name, bytes)]),
    );
    this.authorizations = new Map(
      [...authorizations].map(([name, bytes]) => [name, { name, bytes, version: hash(bytes) }]),
    );
    for (const entry of this.addresses.values()) this.#index(entry);
  }

  /** @param updates as a mesh file gives them; removals have no meaning here. */
  static of(updates: readonly MeshUpdate[]): MeshSnapshot {
    const addresses = new Map<string, Uint8Array>();
    const authorizations = new Map<string, Uint8Array>();
    for (const update of updates) {
      if (update.kind === "workload") addresses.set(update.workload.uid, encodeAddress(update));
      if (update.kind === "service") {
        addresses.set(serviceKey(update.service), encodeAddress(update));
      }
      if (update.kind === "policy") {
        authorizations.set(policyKey(update.policy), encodeAuthorization(update.policy));
      }
    }
    return new MeshSnapshot(addresses, authorizations);
  }

  /** By name or alias. */
  find(key: string): AddressEntry | undefined {
    return this.addresses.get(key) ?? this.#byAlias.get(key);
  }

  /** What is sent with it: with a service its workloads. */
  withWorkloads(entry: AddressEntry): readonly AddressEntry[] {
    return entry.resource.kind === "service"
      ? [entry, ...(this.#byService.get(entry.name) ?? [])]
      : [entry];
  }

  /** How many different identities workloads have. */
  get identityCount(): number {
    return this.#nodesByIdentity.size;
  }

  /** Whether a workload has the identity. @param node only workloads on it count, if given. */
  hasIdentity(identity: Identity, node?: string): boolean {
    const nodes = this.#nodesByIdentity.get(formatSpiffeId(identity));
    return nodes !== undefined && (node === undefined || nodes.has(node));
  }

  #index(entry: AddressEntry): void {
    for (const alias of entry.aliases) {
      const [network, address] = alias.split("/");
      const key = `${network}/${address}`;
      // As for a proxy: a workload's own address is also a service's only by mistake.
      if (entry.resource.kind === "workload" || !this.#byAlias.has(key)) {
        this.#byAlias.set(key, entry);
      }
    }
    if (entry.resource.kind === "service") return;
    const { workload } = entry.resource;
    const identity = formatSpiffeId(workloadIdentity(workload));
    const nodes = this.#nodesByIdentity.get(identity);
    if (nodes === undefined) this.#nodesByIdentity.set(identity, new Set([workload.node]));
    else nodes.add(workload.node);
    for (const key of workload.services.keys()) {
      const behind = this.#byService.get(key);
      if (behind === undefined) this.#byService.set(key, [entry]);
      else behind.push(entry);
    }
  }
}

function addressEntry(name: string, bytes: Uint8Array): AddressEntry {
  const resource = decodeAddress(bytes);
  return { name, bytes, version: hash(bytes), resource, aliases: aliasesOf(resource) };
}

function aliasesOf(resource: AddressResource): string[] {
  if (resource.kind === "workload") {
    const { network, ips } = resource.workload;
    return ips.map((ip) => `${network}/${ip}`);
  }
  const { vips, cidrVips } = resource.service;
  return [
    ...vips.map(({ network, ip }) => `${network}/${ip}`),
    ...cidrVips.map(({ network, cidr }) => `${network}/${cidr.ip}/${cidr.prefixLength}`),
  ];
}

/** Opaque to clients. */
function hash(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex").slice(0, 16);
}
