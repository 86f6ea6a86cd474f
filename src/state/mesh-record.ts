/**
 * A workload, service or policy in the mesh's memory: the encoded bytes as they came, after what many
 * are compared by without decoding them.
 *
 *     word 2   serial of the first version of this name: who was known longest
 *     word 3   bytes of the name (upper half) and of the version (lower half)
 *     word 4   bytes of the encoding
 *     word 5   where the name begins, in bytes from the block: mostly within the encoding
 *     word 6   workloads: capacity
 *     word 7   workloads: hash of the uid
 *     word 8   workloads: hashes of where it is, in the order of {@link LOAD_BALANCING_SCOPES}
 *     then     version, encoding and, when it is not part of that, the name
 */
import { LOAD_BALANCING_SCOPES, placeIn } from "../mesh/load-balancing-scope.ts";
import type { Workload } from "../mesh/workload.ts";
import { WireError } from "../wire/wire-error.ts";
import { type Arena, BLOCK_HEADER_WORDS, type BlockKind, blockFlags } from "./arena.ts";
import { hashText } from "./mesh-keys.ts";
import type { MeshMemory } from "./mesh-memory.ts";

export interface RecordContent {
  readonly kind: Exclude<BlockKind, "group" | "table">;
  /** Up to 16 bits of the kind's own. */
  readonly flags: number;
  readonly name: string;
  readonly version: string;
  /** Copied. */
  readonly encoded: Uint8Array;
  /** Serial of the version that is replaced first; `undefined`: this one is the first. */
  readonly since: number | undefined;
  readonly workload: Workload | undefined;
}

const SINCE = BLOCK_HEADER_WORDS;
const TEXT_LENGTHS = 3;
const ENCODED_LENGTH = 4;
const NAME_AT = 5;
const CAPACITY = 6;
const UID_HASH = 7;
const PLACES = 8;
const RECORD_HEADER_WORDS = PLACES + LOAD_BALANCING_SCOPES.length;
/** Of a name or version. */
export const TEXT_BYTES_MAX = 0xffff;

/**
 * For the writer.
 *
 * @returns the reference of a new record that no reader knows yet.
 * @throws WireError when name or version are longer than {@link TEXT_BYTES_MAX}.
 * @throws Error when there is no room left.
 */
export function makeRecord(memory: MeshMemory, arena: Arena, content: RecordContent): number {
  const name = Buffer.from(content.name);
  const version = Buffer.from(content.version);
  if (Math.max(name.length, version.length) > TEXT_BYTES_MAX) {
    throw new WireError("malformed", `name or version of more than ${TEXT_BYTES_MAX} bytes`);
  }
  const { encoded } = content;
  const place = Buffer.from(encoded.buffer, encoded.byteOffset, encoded.length).indexOf(name);
  const ownNameBytes = place < 0 ? name.length : 0;
  const dataBytes = version.length + encoded.length + ownNameBytes;
  const ref = arena.allocate(
    content.kind,
    content.flags,
    RECORD_HEADER_WORDS + Math.ceil(dataBytes / 4),
  );
  const { words, bytes } = memory;
  const encodedAt = RECORD_HEADER_WORDS * 4 + version.length;
  const nameAt = encodedAt + (place < 0 ? encoded.length : place);
  words[ref + SINCE] = content.since ?? recordSerial(memory, ref);
  words[ref + TEXT_LENGTHS] = (name.length << 16) | version.length;
  words[ref + ENCODED_LENGTH] = encoded.length;
  words[ref + NAME_AT] = nameAt;
  words[ref + CAPACITY] = content.workload?.capacity ?? 0;
  words[ref + UID_HASH] = content.workload === undefined ? 0 : hashText(content.workload.uid);
  if (content.workload !== undefined) words.set(placeOf(content.workload), ref + PLACES);
  bytes.set(version, (ref + RECORD_HEADER_WORDS) * 4);
  bytes.set(encoded, ref * 4 + encodedAt);
  if (place < 0) bytes.set(name, ref * 4 + nameAt);
  return ref;
}

export function recordSerial(memory: MeshMemory, ref: number): number {
  return memory.word(ref + 1);
}

export function recordSince(memory: MeshMemory, ref: number): number {
  return memory.word(ref + SINCE);
}

export function recordFlags(memory: MeshMemory, ref: number): number {
  return blockFlags(memory, ref);
}

/** A copy: what is decoded must not change meanwhile. */
export function recordEncoded(memory: MeshMemory, ref: number): Uint8Array {
  const from = (ref + RECORD_HEADER_WORDS) * 4 + versionLength(memory, ref);
  return memory.bytes.slice(from, from + memory.word(ref + ENCODED_LENGTH));
}

export function recordName(memory: MeshMemory, ref: number): string {
  const from = ref * 4 + memory.word(ref + NAME_AT);
  return textAt(memory, from, memory.word(ref + TEXT_LENGTHS) >>> 16);
}

export function recordVersion(memory: MeshMemory, ref: number): string {
  return textAt(memory, (ref + RECORD_HEADER_WORDS) * 4, versionLength(memory, ref));
}

export function recordCapacity(memory: MeshMemory, ref: number): number {
  return memory.word(ref + CAPACITY);
}

/** Of a workload. */
export function recordUidHash(memory: MeshMemory, ref: number): number {
  return memory.word(ref + UID_HASH);
}

/** Where a workload is, as hashes in the order of {@link LOAD_BALANCING_SCOPES}. */
export function placeOf(workload: Workload): readonly number[] {
  return LOAD_BALANCING_SCOPES.map((scope) => hashText(placeIn(scope, workload)));
}

/** One bit for each scope that is the same; wrong for different ones once in 2³² cases. */
export function sharedPlaces(memory: MeshMemory, ref: number, place: readonly number[]): number {
  let shared = 0;
  for (const [bit, hash] of place.entries()) {
    if (memory.words[ref + PLACES + bit] === hash) shared |= 1 << bit;
  }
  return shared;
}

function versionLength(memory: MeshMemory, ref: number): number {
  return memory.word(ref + TEXT_LENGTHS) & TEXT_BYTES_MAX;
}

function textAt({ bytes }: MeshMemory, from: number, length: number): string {
  return Buffer.from(bytes.slice(from, from + length).buffer).toString();
}
