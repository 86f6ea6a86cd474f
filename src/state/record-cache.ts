/**
 * What one thread has decoded of the mesh's records lately. A record is the same for ever under its
 * reference and serial, so nothing here has to be told of changes.
 */
import { isBlockOf } from "./arena.ts";
import type { MeshMemory } from "./mesh-memory.ts";
import {
  type RecordContent,
  recordEncoded,
  recordFlags,
  recordSerial,
  recordSince,
} from "./mesh-record.ts";

/** One version of something. */
export interface CachedRecord<Value> {
  readonly ref: number;
  /** Higher for what came later. */
  readonly serial: number;
  /** The serial of the first version of the same name. */
  readonly since: number;
  readonly value: Value;
}

/** At least this many of those used last are kept, at most twice as many. */
const KEPT = 512;

export class RecordCache<Value> {
  readonly #memory: MeshMemory;
  readonly #kind: RecordContent["kind"];
  readonly #decode: (encoded: Uint8Array, flags: number) => Value;
  /** By reference. What is used moves to the young ones; full, these become the old. */
  #young = new Map<number, CachedRecord<Value>>();
  #old = new Map<number, CachedRecord<Value>>();

  /** @param decode must not throw for what the writer accepted. */
  constructor(
    memory: MeshMemory,
    kind: RecordContent["kind"],
    decode: (encoded: Uint8Array, flags: number) => Value,
  ) {
    this.#memory = memory;
    this.#kind = kind;
    this.#decode = decode;
  }

  /** In an attempt, for a reference from an index. */
  get(ref: number): CachedRecord<Value> {
    const memory = this.#memory;
    const serial = recordSerial(memory, ref);
    const young = this.#young.get(ref);
    if (young?.serial === serial) return young;
    const old = this.#old.get(ref);
    const record = old?.serial === serial ? old : this.#load(ref, serial);
    if (this.#young.size >= KEPT) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(ref, record);
    return record;
  }

  /** In an attempt, for a reference of former times. @returns `undefined`: no longer of this kind. */
  find(ref: number): CachedRecord<Value> | undefined {
    return isBlockOf(this.#memory, ref, this.#kind) ? this.get(ref) : undefined;
  }

  #load(ref: number, serial: number): CachedRecord<Value> {
    const memory = this.#memory;
    const since = recordSince(memory, ref);
    const flags = recordFlags(memory, ref);
    const encoded = recordEncoded(memory, ref);
    memory.check();
    return { ref, serial, since, value: this.#decode(encoded, flags) };
  }
}

/** The first of those that none is better than. */
export function bestRecord<Value>(
  records: readonly CachedRecord<Value>[],
  isBetter: (a: CachedRecord<Value>, b: CachedRecord<Value>) => boolean,
): CachedRecord<Value> | undefined {
  let winner = records[0];
  for (const record of records) {
    if (winner !== undefined && isBetter(record, winner)) winner = record;
  }
  return winner;
}
