/**
 * The endpoints of one service in the mesh's memory: references of the workloads that offer to serve
 * it, whether or not the service is known yet. The healthy ones come first, so that one list answers
 * for services that want healthy endpoints and for those that take all.
 *
 *     word 2   number of healthy endpoints
 *     word 3   number of all
 *     word 4   healthy endpoints whose capacity is not 1
 *     word 5   all endpoints whose capacity is not 1
 *     word 6   bytes of the service's key
 *     then     the key, from the next word on the references
 */
import { type Arena, BLOCK_HEADER_WORDS, blockWords } from "./arena.ts";
import type { MeshMemory } from "./mesh-memory.ts";

const HEALTHY = BLOCK_HEADER_WORDS;
const ALL = 3;
const HEALTHY_UNEVEN = 4;
const ALL_UNEVEN = 5;
const KEY_LENGTH = 6;
const GROUP_HEADER_WORDS = 7;

/** An endpoint as its group counts it. */
export interface GroupMember {
  /** Of the workload. */
  readonly ref: number;
  readonly isHealthy: boolean;
  readonly capacity: number;
}

/**
 * For the writer: a group with room for one more, holding what `former` holds. The former stays as
 * it is.
 *
 * @throws Error when there is no room left.
 */
export function makeGroup(
  memory: MeshMemory,
  arena: Arena,
  key: string,
  former: number | undefined,
): number {
  const text = Buffer.from(key);
  const count = former === undefined ? 0 : memory.word(former + ALL);
  const head = GROUP_HEADER_WORDS + Math.ceil(text.length / 4);
  // Half as much again, so that a group that grows is seldom copied.
  const group = arena.allocate("group", 0, head + Math.max(1, Math.ceil(count * 1.5)));
  const { words, bytes } = memory;
  if (former === undefined) {
    words.fill(0, group + HEALTHY, group + GROUP_HEADER_WORDS);
    words[group + KEY_LENGTH] = text.length;
    bytes.set(text, (group + GROUP_HEADER_WORDS) * 4);
  } else {
    const size = head + count - HEALTHY;
    words.copyWithin(group + HEALTHY, former + HEALTHY, former + HEALTHY + size);
  }
  return group;
}

export function hasRoom(memory: MeshMemory, group: number): boolean {
  const used = listAt(memory, group) - group + memory.word(group + ALL);
  return used < blockWords(memory, group);
}

/** Within a write, when there is room. */
export function addMember(memory: MeshMemory, group: number, member: GroupMember): void {
  const { words } = memory;
  const list = listAt(memory, group);
  const all = memory.word(group + ALL);
  if (member.isHealthy) {
    const healthy = memory.word(group + HEALTHY);
    words[list + all] = memory.word(list + healthy);
    words[list + healthy] = member.ref;
    words[group + HEALTHY] = healthy + 1;
  } else words[list + all] = member.ref;
  words[group + ALL] = all + 1;
  countUneven(memory, group, member, 1);
}

/** Within a write. The member must be there. @returns false when it was the last. */
export function removeMember(memory: MeshMemory, group: number, member: GroupMember): boolean {
  const { words } = memory;
  const list = listAt(memory, group);
  const all = memory.word(group + ALL) - 1;
  let place = list;
  // Shared arrays have no fast search of their own.
  while (words[place] !== member.ref) {
    if (++place > list + all) throw new Error(`no endpoint has reference ${member.ref}`);
  }
  if (member.isHealthy) {
    const healthy = memory.word(group + HEALTHY) - 1;
    words[place] = memory.word(list + healthy);
    words[list + healthy] = memory.word(list + all);
    words[group + HEALTHY] = healthy;
  } else words[place] = memory.word(list + all);
  words[group + ALL] = all;
  countUneven(memory, group, member, -1);
  return all > 0;
}

/** @param acceptsAll also those that are not healthy. */
export function groupSize(memory: MeshMemory, group: number, acceptsAll: boolean): number {
  return memory.word(group + (acceptsAll ? ALL : HEALTHY));
}

/** Whether all have the same share. */
export function isGroupEven(memory: MeshMemory, group: number, acceptsAll: boolean): boolean {
  return memory.word(group + (acceptsAll ? ALL_UNEVEN : HEALTHY_UNEVEN)) === 0;
}

/** The reference of one endpoint's workload. */
export function groupMember(memory: MeshMemory, group: number, index: number): number {
  return memory.word(listAt(memory, group) + index);
}

/** A copy of the references. */
export function groupMembers(memory: MeshMemory, group: number, acceptsAll: boolean): Uint32Array {
  const list = listAt(memory, group);
  return memory.words.slice(list, list + groupSize(memory, group, acceptsAll));
}

export function groupKey(memory: MeshMemory, group: number): string {
  const from = (group + GROUP_HEADER_WORDS) * 4;
  const text = memory.bytes.slice(from, from + memory.word(group + KEY_LENGTH));
  return Buffer.from(text.buffer).toString();
}

function listAt(memory: MeshMemory, group: number): number {
  return group + GROUP_HEADER_WORDS + Math.ceil(memory.word(group + KEY_LENGTH) / 4);
}

function countUneven({ words }: MeshMemory, group: number, member: GroupMember, by: 1 | -1): void {
  if (member.capacity === 1) return;
  words[group + ALL_UNEVEN] = (words[group + ALL_UNEVEN] as number) + by;
  if (!member.isHealthy) return;
  words[group + HEALTHY_UNEVEN] = (words[group + HEALTHY_UNEVEN] as number) + by;
}
