/** Which groups of endpoints a workload is in, one group for each service: kept as workloads change. */
import type { Workload } from "../mesh/workload.ts";
import { addMember, type GroupMember, hasRoom, makeGroup, removeMember } from "./endpoint-group.ts";
import { hashText, type IndexKey } from "./mesh-keys.ts";
import type { RecordWriter } from "./record-writer.ts";

/** A workload and its record. */
interface Member {
  readonly ref: number;
  readonly workload: Workload;
}

interface EndpointGroup {
  readonly key: string;
  readonly group: number;
}

export class EndpointMembership {
  readonly #records: RecordWriter;

  constructor(records: RecordWriter) {
    this.#records = records;
  }

  /**
   * Prepares for a workload that takes the place of a former one. Not within a write.
   *
   * @returns the rest of the move, which is to be done within the write that relates their records.
   */
  move(former: Member | undefined, added: Member | undefined): () => void {
    const joinedKeys = [...(added?.workload.services.keys() ?? [])];
    for (const key of joinedKeys) this.#makeRoom(key);
    const joined = this.#groups(joinedKeys);
    const left = this.#groups([...(former?.workload.services.keys() ?? [])]);
    return () => {
      if (added !== undefined) {
        const member = memberOf(added);
        for (const { group } of joined) addMember(this.#records.memory, group, member);
      }
      if (former !== undefined) {
        const member = memberOf(former);
        for (const place of left) this.#leave(place, member);
      }
    };
  }

  /** So that one more workload can join the endpoints of a service. */
  #makeRoom(key: string): void {
    const { memory, arena } = this.#records;
    const former = this.#records.find((tables) => tables.group(key));
    if (former !== undefined && hasRoom(memory, former)) return;
    const group = makeGroup(memory, arena, key, former);
    const keys: IndexKey[] = [{ index: "endpoints-by-service", hash: hashText(key) }];
    this.#records.relate(keys, group, former === undefined ? [] : keys, former);
  }

  #groups(keys: readonly string[]): readonly EndpointGroup[] {
    return keys.flatMap((key) => {
      const group = this.#records.find((tables) => tables.group(key));
      return group === undefined ? [] : [{ key, group }];
    });
  }

  /** Within a write. A group without endpoints is given up. */
  #leave({ key, group }: EndpointGroup, member: GroupMember): void {
    const { memory, arena, tables } = this.#records;
    if (removeMember(memory, group, member)) return;
    tables.index("endpoints-by-service").remove(hashText(key), group);
    arena.release(group);
  }
}

function memberOf({ ref, workload: { status, capacity } }: Member): GroupMember {
  return { ref, isHealthy: status === "Healthy", capacity };
}
