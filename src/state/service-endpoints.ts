/**
 * The endpoints of one service as a reader sees them: those of the moment of each call, and only such
 * as the service's health policy accepts.
 */
import { type Service, serviceKey } from "../mesh/service.ts";
import type { Workload } from "../mesh/workload.ts";
import { groupMember, groupMembers, groupSize, isGroupEven } from "./endpoint-group.ts";
import type { MeshMemory } from "./mesh-memory.ts";
import { placeOf, recordCapacity, recordUidHash, sharedPlaces } from "./mesh-record.ts";
import type { MeshTables } from "./mesh-tables.ts";

/** What is told of all endpoints without decoding any; by number. */
export interface EndpointSurvey {
  /** For {@link ServiceEndpoints.load}. */
  readonly refs: Uint32Array;
  /** The endpoint's share of the connections. */
  readonly capacities: Uint32Array;
  /**
   * A bit for each of `LOAD_BALANCING_SCOPES` that the endpoint shares with the source; one in 2³² that it
   * does not share is set, too.
   */
  readonly shared: Uint8Array;
}

/** Endpoints looked at in one go, some microseconds: a change that comes between costs one go. */
const SURVEYED_AT_ONCE = 64;

export class ServiceEndpoints {
  readonly #memory: MeshMemory;
  readonly #tables: MeshTables;
  readonly #key: string;
  readonly #acceptsAll: boolean;

  constructor(memory: MeshMemory, tables: MeshTables, service: Service) {
    this.#memory = memory;
    this.#tables = tables;
    this.#key = serviceKey(service);
    this.#acceptsAll = service.loadBalancer?.healthPolicy === "AllowAll";
  }

  get size(): number {
    return this.#memory.read(() => {
      const group = this.#tables.group(this.#key);
      return group === undefined ? 0 : groupSize(this.#memory, group, this.#acceptsAll);
    });
  }

  /** Whether all have the same share. */
  get isEven(): boolean {
    return this.#memory.read(() => {
      const group = this.#tables.group(this.#key);
      return group === undefined || isGroupEven(this.#memory, group, this.#acceptsAll);
    });
  }

  has(uid: string): boolean {
    return this.get(uid) !== undefined;
  }

  get(uid: string): Workload | undefined {
    return this.#accepted(this.#memory.read(() => this.#tables.workload(uid))?.value);
  }

  /** @param index below {@link size}; others answer `undefined`. */
  at(index: number): Workload | undefined {
    return this.#memory.read(() => {
      const group = this.#tables.group(this.#key);
      if (group === undefined || index >= groupSize(this.#memory, group, this.#acceptsAll)) {
        return undefined;
      }
      return this.#tables.workloadAt(groupMember(this.#memory, group, index))?.value;
    });
  }

  *values(): Generator<Workload> {
    for (const ref of this.#refs()) {
      const workload = this.load(ref);
      if (workload !== undefined) yield workload;
    }
  }

  /** @param ref from a survey. @returns `undefined`: it is no longer an endpoint of the service. */
  load(ref: number): Workload | undefined {
    return this.#accepted(this.#memory.read(() => this.#tables.workloadAt(ref))?.value);
  }

  survey(source: Workload): EndpointSurvey {
    const refs = this.#refs();
    const capacities = new Uint32Array(refs.length);
    const shared = new Uint8Array(refs.length);
    const place = placeOf(source);
    this.#readEach(refs.length, (i) => {
      // What is no workload any more has some numbers, too; load() tells.
      capacities[i] = recordCapacity(this.#memory, refs[i] as number);
      shared[i] = sharedPlaces(this.#memory, refs[i] as number, place);
    });
    return { refs, capacities, shared };
  }

  /** Of the uids. @param refs from a survey. */
  uidHashes(refs: Uint32Array): Uint32Array {
    const hashes = new Uint32Array(refs.length);
    this.#readEach(refs.length, (i) => {
      hashes[i] = recordUidHash(this.#memory, refs[i] as number);
    });
    return hashes;
  }

  /** @param read of one endpoint; may be called again for the same one. */
  #readEach(count: number, read: (i: number) => void): void {
    for (let from = 0; from < count; from += SURVEYED_AT_ONCE) {
      const end = Math.min(count, from + SURVEYED_AT_ONCE);
      this.#memory.read(() => {
        for (let i = from; i < end; i++) read(i);
      });
    }
  }

  #refs(): Uint32Array {
    return this.#memory.read(() => {
      const group = this.#tables.group(this.#key);
      if (group === undefined) return new Uint32Array();
      return groupMembers(this.#memory, group, this.#acceptsAll);
    });
  }

  #accepted(workload: Workload | undefined): Workload | undefined {
    if (workload?.services.has(this.#key) !== true) return undefined;
    return this.#acceptsAll || workload.status === "Healthy" ? workload : undefined;
  }
}
