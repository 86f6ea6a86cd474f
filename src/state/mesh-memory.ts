/**
 * The memory that holds the mesh once for all threads: one writer (mesh-writer.ts), any number of
 * readers (mesh-state.ts). This is where its layout is explained; others only read and write fields.
 *
 * Everything is counted in words of four bytes. A *reference* is the number of a word; 0 is none.
 *
 *     header   SEQUENCE, LENGTH, POLICY_VERSION, how many ranges there are of each prefix length, and for
 *              each index its table, its mask and its number of entries
 *     blocks   up to the end, in sizes that are given out again and again (arena.ts):
 *              word 0   kind, flags and size class; kind 0 is a free block
 *              word 1   serial: never given twice, so reference and serial name a version for ever
 *              and then one of
 *       record   a workload, service or policy as it came: a few fields that many are compared by,
 *                name, version and the encoded bytes (mesh-record.ts)
 *       group    the endpoints of one service: references of workloads (endpoint-group.ts)
 *       table    hash → reference, open addressing (shared-index.ts)
 *
 * Readers never wait for the writer's work, only for its changes, which take microseconds: the
 * writer makes new blocks where no reader looks, then relates and unrelates them in one
 * {@link MeshMemory.write}. A reader that a change ran into reads again ({@link MeshMemory.read}).
 * What it saw before may have been nonsense, so nothing of it leaves the attempt.
 */

/** Room for some 2.5 million workloads; what is not used is only an address. */
const BYTES_MAX = 2 ** 30;
const BYTES_AT_FIRST = 2 ** 20;

const SEQUENCE = 0;
/** How many words there are. */
const LENGTH = 1;
/** Changes with every change of a policy. */
export const POLICY_VERSION = 2;
/** Ranges of services by prefix length: of IPv4, then of IPv6. */
export const RANGE_COUNTS_V4 = 3;
export const RANGE_COUNTS_V6: number = RANGE_COUNTS_V4 + 33;
const INDEXES = RANGE_COUNTS_V6 + 129;
const INDEX_WORDS = 3;

/** A way to find something. */
export type IndexName =
  | "workload-by-uid"
  | "workload-by-address"
  | "workload-by-hostname"
  | "local-workload"
  | "service-by-key"
  | "service-by-hostname"
  | "service-by-vip"
  | "service-by-range"
  | "endpoints-by-service"
  | "policy-by-key"
  | "refusal-by-key"
  | "policy-by-scope";

/** The order is the layout. */
export const INDEX_NAMES: readonly IndexName[] = [
  "workload-by-uid",
  "workload-by-address",
  "workload-by-hostname",
  "local-workload",
  "service-by-key",
  "service-by-hostname",
  "service-by-vip",
  "service-by-range",
  "endpoints-by-service",
  "policy-by-key",
  "refusal-by-key",
  "policy-by-scope",
];

/** The first word of the blocks. */
export const HEADER_WORDS: number = INDEXES + INDEX_NAMES.length * INDEX_WORDS;

/** Looks at a change that is under way before the thread sleeps. */
const SPINS_MAX = 200;
const SLEEP_MS = 1;

/** Thrown by {@link MeshMemory.check} and caught by {@link MeshMemory.read}. */
const MOVED = new Error("the mesh changed while it was read");

export class MeshMemory {
  /** What another thread needs for a MeshMemory of its own. */
  readonly buffer: SharedArrayBuffer;
  /**
   * All there was at the last attempt or growth, so don't keep them: views that follow the buffer by
   * themselves ask V8 for its length at every access.
   */
  words: Uint32Array;
  bytes: Uint8Array;
  /** The words once more, as Atomics can wait for them. Odd while a change is under way. */
  readonly #sequence: Int32Array;
  #started = 0;

  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(BYTES_AT_FIRST, { maxByteLength: BYTES_MAX });
    const { byteLength } = this.buffer;
    this.words = new Uint32Array(this.buffer, 0, byteLength / 4);
    this.bytes = new Uint8Array(this.buffer, 0, byteLength);
    this.#sequence = new Int32Array(this.buffer, 0, 1);
    if (buffer === undefined) this.words[LENGTH] = this.words.length;
  }

  /**
   * What `attempt` returns when no change came between; it is called again until then, so it must
   * have no effect. What it throws counts only without a change, too.
   */
  read<Result>(attempt: () => Result): Result {
    for (;;) {
      const started = this.#settled();
      this.#started = started;
      if (this.words[LENGTH] !== this.words.length) this.#lookAtAll();
      try {
        const result = attempt();
        if (this.#current() === started) return result;
      } catch (error) {
        if (this.#current() === started) throw error;
      }
    }
  }

  /** Another number after each change. Odd while one is under way. */
  get version(): number {
    return Atomics.load(this.#sequence, SEQUENCE);
  }

  /** In an attempt: gives it up if what was read so far may be nonsense. */
  check(): void {
    if (this.#current() !== this.#started) throw MOVED;
  }

  /** Makes one change; for the only writer. Readers see all of it or nothing. */
  write(change: () => void): void {
    Atomics.add(this.#sequence, SEQUENCE, 1);
    // On some processors only a load keeps what follows from overtaking the mark.
    Atomics.load(this.#sequence, SEQUENCE);
    try {
      change();
    } finally {
      Atomics.add(this.#sequence, SEQUENCE, 1);
      Atomics.notify(this.#sequence, SEQUENCE);
    }
  }

  /** @throws Error when there is no room left. */
  growTo(byteLength: number): void {
    if (byteLength > BYTES_MAX) {
      throw new Error(`the mesh needs more than ${BYTES_MAX / 2 ** 20} MiB of memory`);
    }
    if (byteLength <= this.buffer.byteLength) return;
    this.buffer.grow(byteLength);
    this.words[LENGTH] = byteLength / 4;
    this.#lookAtAll();
  }

  /** The word where an index has its table, mask and count. */
  indexAt(name: IndexName): number {
    return INDEXES + INDEX_NAMES.indexOf(name) * INDEX_WORDS;
  }

  /** A word that is known to be there. */
  word(at: number): number {
    return this.words[at] as number;
  }

  #lookAtAll(): void {
    const length = this.word(LENGTH);
    this.words = new Uint32Array(this.buffer, 0, length);
    this.bytes = new Uint8Array(this.buffer, 0, length * 4);
  }

  #settled(): number {
    for (let spins = 0; ; spins++) {
      const sequence = Atomics.load(this.#sequence, SEQUENCE);
      if ((sequence & 1) === 0) return sequence;
      // The writer's thread may have lost its processor in the middle.
      if (spins >= SPINS_MAX) Atomics.wait(this.#sequence, SEQUENCE, sequence, SLEEP_MS);
    }
  }

  /** A read that also writes, so that no earlier read can be delayed beyond it. */
  #current(): number {
    return Atomics.add(this.#sequence, SEQUENCE, 0);
  }
}
