/**
 * How records come into the mesh's memory and go: each change is one for readers, who never see half of
 * it (see mesh-memory.ts).
 */
import type { Workload } from "../mesh/workload.ts";
import { Arena } from "./arena.ts";
import type { IndexKey } from "./mesh-keys.ts";
import type { MeshMemory } from "./mesh-memory.ts";
import { makeRecord, type RecordContent } from "./mesh-record.ts";
import { MeshTables } from "./mesh-tables.ts";
import type { CachedRecord } from "./record-cache.ts";

export class RecordWriter {
  readonly memory: MeshMemory;
  readonly arena: Arena;
  readonly tables: MeshTables;

  /** @param memory empty; nobody else writes to it. */
  constructor(memory: MeshMemory) {
    this.memory = memory;
    this.arena = new Arena(memory);
    this.tables = new MeshTables(memory);
  }

  /** Not within a write. */
  find<Found>(find: (tables: MeshTables) => Found): Found {
    return this.memory.read(() => find(this.tables));
  }

  /**
   * A record that nobody finds yet.
   *
   * @param former what it is to take the place of.
   * @throws Error when there is no room left.
   */
  make(
    content: Omit<RecordContent, "since" | "workload"> & { readonly workload?: Workload },
    former: CachedRecord<unknown> | undefined,
  ): number {
    const record = { workload: undefined, ...content, since: former?.since };
    return makeRecord(this.memory, this.arena, record);
  }

  /**
   * One change for readers: the added record is found, the former no longer, and is released.
   *
   * @param also done in the same change.
   */
  relate(
    addedKeys: readonly IndexKey[],
    added: number | undefined,
    formerKeys: readonly IndexKey[],
    former: number | undefined,
    also?: () => void,
  ): void {
    for (const { index } of addedKeys) {
      // All the keys of a record may be in one index.
      this.tables.index(index).reserve(this.arena, addedKeys.length);
    }
    this.memory.write(() => {
      if (added !== undefined) {
        for (const { index, hash } of addedKeys) this.tables.index(index).add(hash, added);
      }
      also?.();
      if (former === undefined) return;
      for (const { index, hash } of formerKeys) this.tables.index(index).remove(hash, former);
      this.arena.release(former);
    });
  }
}
