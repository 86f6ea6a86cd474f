/**
 * Looking things up in the mesh's memory, for readers and the writer alike. Everything here is called
 * in an attempt of {@link MeshMemory.read}.
 */
import { type AuthorizationPolicy, policyKey } from "../mesh/authorization.ts";
import { type Service, serviceKey } from "../mesh/service.ts";
import type { Workload } from "../mesh/workload.ts";
import { decodeAddress } from "../wire/address-resource.ts";
import { decodeAuthorization } from "../wire/authorization-resource.ts";
import { isBlockOf } from "./arena.ts";
import { groupKey } from "./endpoint-group.ts";
import { hashText } from "./mesh-keys.ts";
import { INDEX_NAMES, type IndexName, type MeshMemory } from "./mesh-memory.ts";
import { recordFlags, recordName } from "./mesh-record.ts";
import { type CachedRecord, RecordCache } from "./record-cache.ts";
import { SharedIndex } from "./shared-index.ts";

/** Flag of a workload or service whose empty fields are no defaults. */
export const VERBATIM = 1;
/** Flag of a policy that was refused and is meant for every workload. */
export const REFUSED_EVERYWHERE = 1;

export class MeshTables {
  readonly #memory: MeshMemory;
  readonly #indexes: ReadonlyMap<IndexName, SharedIndex>;
  readonly #workloads: RecordCache<Workload>;
  readonly #services: RecordCache<Service>;
  readonly #policies: RecordCache<AuthorizationPolicy>;

  constructor(memory: MeshMemory) {
    this.#memory = memory;
    this.#indexes = new Map(INDEX_NAMES.map((name) => [name, new SharedIndex(memory, name)]));
    this.#workloads = new RecordCache(memory, "workload", (encoded, flags) => {
      const address = decodeAddress(encoded, dialectOf(flags));
      if (address.kind !== "workload") throw new Error(`a ${address.kind} among workloads`);
      return address.workload;
    });
    this.#services = new RecordCache(memory, "service", (encoded, flags) => {
      const address = decodeAddress(encoded, dialectOf(flags));
      if (address.kind !== "service") throw new Error(`a ${address.kind} among services`);
      return address.service;
    });
    this.#policies = new RecordCache(memory, "policy", decodeAuthorization);
  }

  index(name: IndexName): SharedIndex {
    return this.#indexes.get(name) as SharedIndex;
  }

  workload(uid: string): CachedRecord<Workload> | undefined {
    return this.workloads("workload-by-uid", hashText(uid), (one) => one.uid === uid)[0];
  }

  workloads(
    index: IndexName,
    hash: number,
    isMeant: (workload: Workload) => boolean,
  ): CachedRecord<Workload>[] {
    return meant(this.index(index).find(hash), this.#workloads, isMeant);
  }

  /** @param key `namespace/hostname`. */
  service(key: string): CachedRecord<Service> | undefined {
    return this.services("service-by-key", hashText(key), (one) => serviceKey(one) === key)[0];
  }

  services(
    index: IndexName,
    hash: number,
    isMeant: (service: Service) => boolean,
  ): CachedRecord<Service>[] {
    return meant(this.index(index).find(hash), this.#services, isMeant);
  }

  /** @param key `namespace/name`. */
  policy(key: string): CachedRecord<AuthorizationPolicy> | undefined {
    const refs = this.index("policy-by-key").find(hashText(key));
    return meant(refs, this.#policies, (one) => policyKey(one) === key)[0];
  }

  /** Those of a scope that are understood, and the names of those that are not. */
  policiesOf(scope: number): { policies: AuthorizationPolicy[]; refused: string[] } {
    const policies: AuthorizationPolicy[] = [];
    const refused: string[] = [];
    for (const ref of this.index("policy-by-scope").find(scope)) {
      if (isBlockOf(this.#memory, ref, "refusal")) refused.push(recordName(this.#memory, ref));
      else policies.push(this.#policies.get(ref).value);
    }
    return { policies, refused };
  }

  refusal(key: string): { readonly ref: number; readonly isEverywhere: boolean } | undefined {
    for (const ref of this.index("refusal-by-key").find(hashText(key))) {
      if (recordName(this.#memory, ref) !== key) continue;
      return { ref, isEverywhere: recordFlags(this.#memory, ref) === REFUSED_EVERYWHERE };
    }
    return undefined;
  }

  /** The endpoints of a service, known or not. */
  group(key: string): number | undefined {
    for (const ref of this.index("endpoints-by-service").find(hashText(key))) {
      if (groupKey(this.#memory, ref) === key) return ref;
    }
    return undefined;
  }

  /** By a reference of former times. @returns `undefined`: nothing of the kind is there now. */
  workloadAt(ref: number): CachedRecord<Workload> | undefined {
    return this.#workloads.find(ref);
  }
}

function meant<Value>(
  refs: readonly number[],
  cache: RecordCache<Value>,
  isMeant: (value: Value) => boolean,
): CachedRecord<Value>[] {
  const found: CachedRecord<Value>[] = [];
  for (const ref of refs) {
    const record = cache.get(ref);
    if (isMeant(record.value)) found.push(record);
  }
  return found;
}

function dialectOf(flags: number): "verbatim" | "control-plane" {
  return flags === VERBATIM ? "verbatim" : "control-plane";
}
