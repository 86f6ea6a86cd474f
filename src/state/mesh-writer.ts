/**
 * The one writer of the mesh's memory: takes resources in, one at a time, and keeps every index true.
 *
 * What is known is a function of the last version of each resource, never of the order in which they
 * came, except where two resources claim the same address or name (see mesh-state.ts).
 *
 * @see spec control-plane 3.1 to 3.3.
 */
import { type AuthorizationPolicy, policyKey } from "../mesh/authorization.ts";
import type { MeshUpdate } from "../mesh/mesh-update.ts";
import { type Service, serviceKey } from "../mesh/service.ts";
import type { Workload } from "../mesh/workload.ts";
import { type AddressDialect, decodeAddress, encodeAddress } from "../wire/address-resource.ts";
import {
  decodeAuthorization,
  encodeAuthorization,
  readPolicyScope,
} from "../wire/authorization-resource.ts";
import { EndpointMembership } from "./endpoint-membership.ts";
import {
  hashText,
  type IndexKey,
  policyKeys,
  rangeCountAt,
  scopeHash,
  serviceKeys,
  workloadKeys,
} from "./mesh-keys.ts";
import { type IndexName, type MeshMemory, POLICY_VERSION } from "./mesh-memory.ts";
import {
  type RecordContent,
  recordEncoded,
  recordFlags,
  recordName,
  recordVersion,
  TEXT_BYTES_MAX,
} from "./mesh-record.ts";
import { REFUSED_EVERYWHERE, VERBATIM } from "./mesh-tables.ts";
import type { CachedRecord } from "./record-cache.ts";
import { RecordWriter } from "./record-writer.ts";

/** What was changed since the last commit. */
export interface MeshChange {
  readonly policiesChanged: boolean;
  readonly workloadsChanged: boolean;
}

export interface MeshCommit extends MeshChange {
  /** This node's workloads that are new or changed; none where the node has no name. */
  readonly localWorkloads: readonly Workload[];
}

/** A service or a workload, or a policy: they are named apart. */
export type ResourceType = "address" | "policy";

export class MeshWriter {
  readonly #memory: MeshMemory;
  readonly #records: RecordWriter;
  readonly #membership: EndpointMembership;
  readonly #localNode: string | undefined;
  readonly #touchedLocal = new Set<string>();
  #policiesChanged = false;
  #workloadsChanged = false;

  /**
   * @param memory empty; nobody else writes to it.
   * @param options.localNode `undefined`: every workload counts as this node's.
   */
  constructor(memory: MeshMemory, options: { readonly localNode: string | undefined }) {
    this.#memory = memory;
    this.#records = new RecordWriter(memory);
    this.#membership = new EndpointMembership(this.#records);
    this.#localNode = options.localNode;
  }

  /**
   * A new or changed workload or service. The bytes are copied.
   *
   * @throws WireError when they are not understood: what was known under the name stays.
   * @throws Error when there is no room left.
   */
  putAddress(
    encoded: Uint8Array,
    version: string,
    dialect: AddressDialect = "control-plane",
  ): void {
    const resource = decodeAddress(encoded, dialect);
    const flags = dialect === "verbatim" ? VERBATIM : 0;
    if (resource.kind === "workload") {
      this.#putWorkload(resource.workload, { flags, version, encoded });
    } else this.#putService(resource.service, { flags, version, encoded });
  }

  /** @param name uid or `namespace/hostname`; may be one that is not known. */
  removeAddress(name: string): void {
    const workload = this.#records.find((tables) => tables.workload(name));
    // Names of workloads and services don't collide: a host name has no slash.
    if (workload !== undefined) {
      this.#replaceWorkload(workload, undefined);
      return;
    }
    const service = this.#records.find((tables) => tables.service(name));
    if (service !== undefined) this.#replaceService(name, service, undefined);
  }

  /** As {@link putAddress}. */
  putPolicy(encoded: Uint8Array, version: string, dialect: AddressDialect = "control-plane"): void {
    const policy = decodeAuthorization(encoded);
    const name = policyKey(policy);
    const former = this.#records.find((tables) => tables.policy(name));
    const flags = dialect === "verbatim" ? VERBATIM : 0;
    const added = this.#records.make({ kind: "policy", flags, name, version, encoded }, former);
    this.#removeRefusal(name);
    this.#replacePolicy(name, former, { ref: added, policy });
  }

  /** @param name `namespace/name`; may be one that is not known. */
  removePolicy(name: string): void {
    this.#removeRefusal(name);
    const former = this.#records.find((tables) => tables.policy(name));
    if (former !== undefined) this.#replacePolicy(name, former, undefined);
  }

  /**
   * A policy that came and is not understood: whom it may have been meant for must know. An earlier
   * version of it stays in force.
   *
   * @param encoded `undefined`: nothing came with the name.
   */
  refusePolicy(name: string, encoded: Uint8Array | undefined): void {
    if (this.#records.find((tables) => tables.policy(name)) !== undefined) return;
    // No object of any cluster has such a name.
    if (Buffer.byteLength(name) > TEXT_BYTES_MAX) return;
    this.#removeRefusal(name);
    const scope = encoded === undefined ? undefined : readPolicyScope(encoded);
    // Where it applies is not known either: at least in its own namespace.
    const hash = scopeHash(namespaceOf(name), scope ?? "Namespace");
    // Those who name it miss it anyway.
    if (hash === undefined) return;
    const flags = scope === "Global" ? REFUSED_EVERYWHERE : 0;
    const content = { flags, name, version: "", encoded: encoded ?? NOTHING };
    const ref = this.#records.make({ kind: "refusal", ...content }, undefined);
    this.#records.relate(refusalKeys(name, hash), ref, [], undefined);
    this.#policiesChanged = true;
  }

  /** Everything of a list, in its order. */
  apply(updates: readonly MeshUpdate[]): void {
    for (const update of updates) {
      switch (update.kind) {
        case "workload":
        case "service":
          this.putAddress(encodeAddress(update, "verbatim"), "", "verbatim");
          break;
        case "remove-address":
          this.removeAddress(update.name);
          break;
        case "policy":
          this.putPolicy(encodeAuthorization(update.policy), "", "verbatim");
          break;
        case "remove-policy":
          this.removePolicy(update.name);
          break;
      }
    }
  }

  /** What was done since the last call. Readers have seen it already, but nobody told them. */
  commit(): MeshCommit {
    const localWorkloads: Workload[] = [];
    for (const uid of this.#touchedLocal) {
      const workload = this.#records.find((tables) => tables.workload(uid))?.value;
      if (workload !== undefined && workload.node === this.#localNode)
        localWorkloads.push(workload);
    }
    const commit: MeshCommit = {
      policiesChanged: this.#policiesChanged,
      workloadsChanged: this.#workloadsChanged,
      localWorkloads,
    };
    this.#touchedLocal.clear();
    this.#policiesChanged = false;
    this.#workloadsChanged = false;
    return commit;
  }

  /** What was given with the last version of the name; `undefined`: it is not known. */
  versionOf(type: ResourceType, name: string): string | undefined {
    const ref = this.#refOf(type, name);
    return ref === undefined ? undefined : recordVersion(this.#memory, ref);
  }

  /** The last version of the name, with a copy of its bytes; `undefined`: it is not known. */
  resource(type: ResourceType, name: string): { version: string; bytes: Uint8Array } | undefined {
    const ref = this.#refOf(type, name);
    if (ref === undefined) return undefined;
    return { version: recordVersion(this.#memory, ref), bytes: recordEncoded(this.#memory, ref) };
  }

  /** Name and version of everything that was put; do not write meanwhile. */
  *versions(type: ResourceType): Iterable<readonly [name: string, version: string]> {
    const indexes: readonly IndexName[] =
      type === "policy" ? ["policy-by-key"] : ["workload-by-uid", "service-by-key"];
    for (const index of indexes) {
      for (const ref of this.#records.tables.index(index).all()) {
        // No control plane has sent what a file says, nor may one take it back.
        if ((recordFlags(this.#memory, ref) & VERBATIM) !== 0) continue;
        yield [recordName(this.#memory, ref), recordVersion(this.#memory, ref)];
      }
    }
  }

  /** Policies that were refused and of which no earlier version is in force; do not write meanwhile. */
  *refusals(): Iterable<{ readonly name: string; readonly bytes: Uint8Array }> {
    for (const ref of this.#records.tables.index("refusal-by-key").all()) {
      yield { name: recordName(this.#memory, ref), bytes: recordEncoded(this.#memory, ref) };
    }
  }

  #refOf(type: ResourceType, name: string): number | undefined {
    const known =
      type === "policy"
        ? this.#records.find((tables) => tables.policy(name))
        : (this.#records.find((tables) => tables.workload(name)) ??
          this.#records.find((tables) => tables.service(name)));
    return known?.ref;
  }

  #putWorkload(workload: Workload, content: Encoded): void {
    const former = this.#records.find((tables) => tables.workload(workload.uid));
    const named = { kind: "workload", name: workload.uid, workload, ...content } as const;
    this.#replaceWorkload(former, { ref: this.#records.make(named, former), workload });
  }

  #replaceWorkload(
    former: CachedRecord<Workload> | undefined,
    added: { readonly ref: number; readonly workload: Workload } | undefined,
  ): void {
    const place = former && { ref: former.ref, workload: former.value };
    const moveEndpoints = this.#membership.move(place, added);
    const addedKeys = added === undefined ? [] : this.#workloadKeys(added.workload);
    const formerKeys = former === undefined ? [] : this.#workloadKeys(former.value);
    this.#records.relate(addedKeys, added?.ref, formerKeys, former?.ref, moveEndpoints);
    this.#workloadsChanged = true;
    const uid = (added?.workload ?? former?.value)?.uid;
    if (uid === undefined || this.#localNode === undefined) return;
    if (added?.workload.node === this.#localNode) this.#touchedLocal.add(uid);
  }

  #workloadKeys(workload: Workload): readonly IndexKey[] {
    const isLocal = this.#localNode === undefined || workload.node === this.#localNode;
    return workloadKeys(workload, isLocal);
  }

  #putService(service: Service, content: Encoded): void {
    const key = serviceKey(service);
    const former = this.#records.find((tables) => tables.service(key));
    const ref = this.#records.make({ kind: "service", name: key, ...content }, former);
    this.#replaceService(key, former, { ref, service });
  }

  #replaceService(
    key: string,
    former: CachedRecord<Service> | undefined,
    added: { readonly ref: number; readonly service: Service } | undefined,
  ): void {
    const addedKeys = added === undefined ? [] : serviceKeys(key, added.service);
    const formerKeys = former === undefined ? [] : serviceKeys(key, former.value);
    this.#records.relate(addedKeys, added?.ref, formerKeys, former?.ref, () => {
      this.#countRanges(added?.service, 1);
      this.#countRanges(former?.value, -1);
    });
  }

  #countRanges(service: Service | undefined, by: 1 | -1): void {
    for (const { cidr } of service?.cidrVips ?? []) {
      const at = rangeCountAt(cidr);
      this.#memory.words[at] = this.#memory.word(at) + by;
    }
  }

  #replacePolicy(
    name: string,
    former: CachedRecord<AuthorizationPolicy> | undefined,
    added: { readonly ref: number; readonly policy: AuthorizationPolicy } | undefined,
  ): void {
    const addedKeys = added === undefined ? [] : policyKeys(name, added.policy);
    const formerKeys = former === undefined ? [] : policyKeys(name, former.value);
    this.#records.relate(addedKeys, added?.ref, formerKeys, former?.ref, () =>
      this.#policiesMoved(),
    );
    this.#policiesChanged = true;
  }

  #removeRefusal(name: string): void {
    const refusal = this.#records.find((tables) => tables.refusal(name));
    if (refusal === undefined) return;
    const hash = scopeHash(namespaceOf(name), refusal.isEverywhere ? "Global" : "Namespace");
    if (hash === undefined) return;
    this.#records.relate([], undefined, refusalKeys(name, hash), refusal.ref, () =>
      this.#policiesMoved(),
    );
    this.#policiesChanged = true;
  }

  #policiesMoved(): void {
    this.#memory.words[POLICY_VERSION] = this.#memory.word(POLICY_VERSION) + 1;
  }
}

type Encoded = Pick<RecordContent, "flags" | "version" | "encoded">;

const NOTHING = new Uint8Array();

function refusalKeys(name: string, scope: number): readonly IndexKey[] {
  return [
    { index: "refusal-by-key", hash: hashText(name) },
    { index: "policy-by-scope", hash: scope },
  ];
}

/** Of a policy's key. */
function namespaceOf(name: string): string {
  return name.slice(0, Math.max(0, name.indexOf("/")));
}
