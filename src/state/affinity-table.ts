/**
 * Which endpoint each client of a service was last at, in memory that all data threads share: a
 * connection of the client may arrive on any. Of fixed size: buckets of a few slots, in which a new
 * client takes the place of one whose time is over, else of the one whose time is over first.
 *
 * Nobody locks. A slot ends with a sum over its words, so that one which two threads write at the same
 * time, or which is read meanwhile, is as if it were not there: its client is where its hash says, and
 * is written down with its next connection.
 *
 *     word 0, 1   hashes of service and client
 *     word 2      hash of the endpoint's uid
 *     word 3      wall clock, seconds since the epoch, until which it counts
 *     word 4      sum
 */
import type { Clock } from "../runtime/clock.ts";
import { hashText, mixHashes } from "./mesh-keys.ts";

const SLOT_WORDS = 5;
const BUCKET_SLOTS = 8;
const BUCKET_WORDS = SLOT_WORDS * BUCKET_SLOTS;
const ENDPOINT = 2;
const UNTIL = 3;
const SUM = 4;

/** A client of one service, as the table knows it. */
export interface AffinityKey {
  readonly first: number;
  readonly second: number;
}

/** @param client an address. */
export function affinityKey(service: string, client: string): AffinityKey {
  return { first: hashText(`${service} ${client}`), second: hashText(`${client} ${service}`) };
}

export class AffinityTable {
  readonly #words: Uint32Array;
  readonly #clock: Clock;

  /** @param memory from {@link makeAffinityMemory}. */
  constructor(memory: SharedArrayBuffer, clock: Clock) {
    this.#words = new Uint32Array(memory);
    this.#clock = clock;
  }

  /** @returns the hash of the endpoint's uid; `undefined`: it was too long ago, or never. */
  find(key: AffinityKey): number | undefined {
    const bucket = this.#bucket(key);
    for (let slot = bucket; slot < bucket + BUCKET_WORDS; slot += SLOT_WORDS) {
      if (this.#holds(slot, key)) {
        const endpoint = this.#words[slot + ENDPOINT] as number;
        return this.#until(slot) > this.#now() ? endpoint : undefined;
      }
    }
    return undefined;
  }

  /** @param endpoint hash of its uid. @param seconds for which it counts, from now. */
  keep(key: AffinityKey, endpoint: number, seconds: number): void {
    const bucket = this.#bucket(key);
    let chosen = bucket;
    for (let slot = bucket; slot < bucket + BUCKET_WORDS; slot += SLOT_WORDS) {
      if (this.#holds(slot, key)) {
        chosen = slot;
        break;
      }
      if (this.#until(slot) < this.#until(chosen)) chosen = slot;
    }
    const said = [key.first, key.second, endpoint, this.#now() + seconds];
    // Not of what is read back: another thread may be writing, too.
    this.#words.set([...said, sumOf(said, 0)], chosen);
  }

  #bucket({ first }: AffinityKey): number {
    return (first % (this.#words.length / BUCKET_WORDS)) * BUCKET_WORDS;
  }

  #holds(slot: number, { first, second }: AffinityKey): boolean {
    return this.#words[slot] === first && this.#words[slot + 1] === second && this.#until(slot) > 0;
  }

  /** 0 for what is empty or half written. */
  #until(slot: number): number {
    const words = this.#words;
    return words[slot + SUM] === sumOf(words, slot) ? (words[slot + UNTIL] as number) : 0;
  }

  #now(): number {
    return Math.floor(this.#clock.now() / 1000);
  }
}

/** Of the words before it. @param slot where they begin. */
function sumOf(words: ArrayLike<number>, slot: number): number {
  let sum = 0;
  for (let word = slot; word < slot + SUM; word++) sum = mixHashes(sum, words[word] as number);
  return sum;
}

/** @param clientsMax rounded up to whole buckets. */
export function makeAffinityMemory(clientsMax: number): SharedArrayBuffer {
  const buckets = Math.ceil(clientsMax / BUCKET_SLOTS);
  return new SharedArrayBuffer(buckets * BUCKET_WORDS * Uint32Array.BYTES_PER_ELEMENT);
}
