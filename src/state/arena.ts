/**
 * Which parts of the mesh's memory are in use; known to the writer alone.
 *
 * Blocks come in sizes that grow by an eighth, and a freed one is given out again for its size, never
 * split or joined: what a reference pointed to once stays the beginning of a block for ever.
 */
import { HEADER_WORDS, type MeshMemory } from "./mesh-memory.ts";

/** What a block holds. */
const BLOCK_KINDS = {
  free: 0,
  workload: 1,
  service: 2,
  policy: 3,
  refusal: 4,
  group: 5,
  table: 6,
} as const;
export type BlockKind = Exclude<keyof typeof BLOCK_KINDS, "free">;

/** Kind, flags and size class; serial. */
export const BLOCK_HEADER_WORDS = 2;

const CLASSES_PER_DOUBLING = 8;
const BLOCK_WORDS_MIN = 16;
/** Memory is taken from the system this many bytes at a time. */
const GROWTH_BYTES = 2 ** 20;

export class Arena {
  readonly #memory: MeshMemory;
  /** By size class. */
  readonly #free: number[][] = [];
  #top = HEADER_WORDS;
  #serial = 0;

  constructor(memory: MeshMemory) {
    this.#memory = memory;
  }

  /**
   * A block of at least this size that no reader knows yet; its words are what they were before.
   *
   * @throws Error when there is no room left.
   */
  allocate(kind: BlockKind, flags: number, wordCount: number): number {
    const sizeClass = sizeClassOf(wordCount);
    const ref = this.#free[sizeClass]?.pop() ?? this.#extend(sizeClass);
    this.#memory.words[ref] = BLOCK_KINDS[kind] | (flags << 8) | (sizeClass << 24);
    this.#memory.words[ref + 1] = ++this.#serial;
    return ref;
  }

  /** Within a write: nobody may find it any more. */
  release(ref: number): void {
    const sizeClass = this.#memory.word(ref) >>> 24;
    this.#memory.words[ref] = BLOCK_KINDS.free | (sizeClass << 24);
    const free = this.#free[sizeClass];
    if (free === undefined) this.#free[sizeClass] = [ref];
    else free.push(ref);
  }

  #extend(sizeClass: number): number {
    const ref = this.#top;
    const end = ref + classWords(sizeClass);
    const neededBytes = Math.ceil((end * 4) / GROWTH_BYTES) * GROWTH_BYTES;
    this.#memory.growTo(neededBytes);
    this.#top = end;
    return ref;
  }
}

/** How many words a block has. */
export function blockWords(memory: MeshMemory, ref: number): number {
  return classWords(memory.word(ref) >>> 24);
}

export function isBlockOf(memory: MeshMemory, ref: number, kind: BlockKind): boolean {
  return (memory.word(ref) & 255) === BLOCK_KINDS[kind];
}

/** The bits that the block was allocated with. */
export function blockFlags(memory: MeshMemory, ref: number): number {
  return (memory.word(ref) >>> 8) & 0xffff;
}

function sizeClassOf(wordCount: number): number {
  const doublings = Math.max(0, Math.floor(Math.log2(wordCount / BLOCK_WORDS_MIN)));
  const first = doublings * CLASSES_PER_DOUBLING;
  for (let sizeClass = first; ; sizeClass++) {
    if (classWords(sizeClass) >= wordCount) return sizeClass;
  }
}

function classWords(sizeClass: number): number {
  const doublings = Math.floor(sizeClass / CLASSES_PER_DOUBLING);
  const step = sizeClass % CLASSES_PER_DOUBLING;
  return (BLOCK_WORDS_MIN << doublings) * (1 + step / CLASSES_PER_DOUBLING);
}
