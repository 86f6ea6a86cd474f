/**
 * Hash → references of what may be meant, in shared memory; whoever looks something up compares it.
 * Open addressing with linear probing; a reference is listed once for each of its keys.
 */
import { type Arena, BLOCK_HEADER_WORDS } from "./arena.ts";
import type { IndexName, MeshMemory } from "./mesh-memory.ts";

/** Words of an entry: hash and reference; a free one has the reference 0. */
const ENTRY_WORDS = 2;
const ENTRIES_AT_FIRST = 64;
/** Fuller than this, runs of occupied entries get long. */
const LOAD_MAX = 0.7;

const NOTHING: readonly number[] = [];

export class SharedIndex {
  readonly #memory: MeshMemory;
  /** The word that holds the table's reference; the mask and the count follow. */
  readonly #at: number;

  constructor(memory: MeshMemory, name: IndexName) {
    this.#memory = memory;
    this.#at = memory.indexAt(name);
  }

  get size(): number {
    return this.#memory.word(this.#at + 2);
  }

  /** In an attempt. @returns references in no order. */
  find(hash: number): readonly number[] {
    if (this.#table === 0) return NOTHING;
    const { words } = this.#memory;
    const mask = this.#mask;
    const entries = this.#entries;
    let found: number[] | undefined;
    for (let i = 0, place = hash & mask; i <= mask; i++, place = (place + 1) & mask) {
      const ref = words[entries + place * ENTRY_WORDS + 1];
      if (ref === undefined || ref === 0) break;
      if (words[entries + place * ENTRY_WORDS] !== hash) continue;
      if (found === undefined) found = [ref];
      else found.push(ref);
    }
    return found ?? NOTHING;
  }

  /** In an attempt. Every reference, once for each of its keys. */
  all(): number[] {
    const refs: number[] = [];
    if (this.#table === 0) return refs;
    const mask = this.#mask;
    const entries = this.#entries;
    for (let place = 0; place <= mask; place++) {
      const ref = this.#memory.words[entries + place * ENTRY_WORDS + 1];
      if (ref !== undefined && ref !== 0) refs.push(ref);
    }
    return refs;
  }

  /**
   * For the writer, before a write that adds entries. Readers go on with the old table meanwhile.
   *
   * @throws Error when there is no room left.
   */
  reserve(arena: Arena, count: number): void {
    const capacity = this.#table === 0 ? 0 : this.#mask + 1;
    if (this.size + count <= capacity * LOAD_MAX) return;
    let larger = Math.max(capacity * 2, ENTRIES_AT_FIRST);
    while (this.size + count > larger * LOAD_MAX) larger *= 2;
    const table = arena.allocate("table", 0, BLOCK_HEADER_WORDS + larger * ENTRY_WORDS);
    const entries = table + BLOCK_HEADER_WORDS;
    const { words } = this.#memory;
    words.fill(0, entries, entries + larger * ENTRY_WORDS);
    for (let place = 0; place < capacity; place++) {
      const from = this.#entries + place * ENTRY_WORDS;
      const ref = this.#memory.word(from + 1);
      if (ref !== 0) put(this.#memory, entries, larger - 1, this.#memory.word(from), ref);
    }
    const former = this.#table;
    this.#memory.write(() => {
      words[this.#at] = table;
      words[this.#at + 1] = larger - 1;
      if (former !== 0) arena.release(former);
    });
  }

  /** Within a write, into a place that was reserved. */
  add(hash: number, ref: number): void {
    put(this.#memory, this.#entries, this.#mask, hash, ref);
    this.#memory.words[this.#at + 2] = this.size + 1;
  }

  /** Within a write. The entry must be there. */
  remove(hash: number, ref: number): void {
    const memory = this.#memory;
    const mask = this.#mask;
    const entries = this.#entries;
    let hole = this.#place(hash, ref);
    // What follows moves up, as far as it may, so that no run is ever cut.
    for (let place = (hole + 1) & mask; ; place = (place + 1) & mask) {
      const at = entries + place * ENTRY_WORDS;
      const other = memory.word(at + 1);
      if (other === 0) break;
      const home = memory.word(at) & mask;
      if (((place - home) & mask) < ((place - hole) & mask)) continue;
      memory.words[entries + hole * ENTRY_WORDS] = memory.word(at);
      memory.words[entries + hole * ENTRY_WORDS + 1] = other;
      hole = place;
    }
    memory.words[entries + hole * ENTRY_WORDS + 1] = 0;
    memory.words[this.#at + 2] = this.size - 1;
  }

  #place(hash: number, ref: number): number {
    const mask = this.#mask;
    for (let i = 0, place = hash & mask; i <= mask; i++, place = (place + 1) & mask) {
      const at = this.#entries + place * ENTRY_WORDS;
      if (this.#memory.word(at) === hash && this.#memory.word(at + 1) === ref) return place;
    }
    throw new Error(`nothing is indexed under ${hash} with the reference ${ref}`);
  }

  get #table(): number {
    return this.#memory.word(this.#at);
  }

  get #entries(): number {
    return this.#table + BLOCK_HEADER_WORDS;
  }

  get #mask(): number {
    return this.#memory.word(this.#at + 1);
  }
}

function put(memory: MeshMemory, entries: number, mask: number, hash: number, ref: number): void {
  let place = hash & mask;
  while (memory.word(entries + place * ENTRY_WORDS + 1) !== 0) place = (place + 1) & mask;
  memory.words[entries + place * ENTRY_WORDS] = hash;
  memory.words[entries + place * ENTRY_WORDS + 1] = ref;
}
