/**
 * Which inbound connections live, and what they were allowed as. Streams of one tunnel to the same
 * target share an entry, so that a policy change judges them once.
 *
 * @see spec data-path 7.1
 */
import type { RbacConnection } from "../mesh/authorization.ts";
import { formatSpiffeId } from "../mesh/identity.ts";
import { formatSocketAddress } from "../mesh/socket-address.ts";
import type { Workload } from "../mesh/workload.ts";
import type { Stoppable } from "./live-set.ts";

/** One distinct connection in the eyes of a policy; lives as long as it has members. */
export interface TrackedConnection {
  readonly connection: RbacConnection;
  /** As it was when the first member was registered; later changes of the workload don't count. */
  readonly workload: Workload;
  readonly members: ReadonlySet<Stoppable>;
}

interface Entry extends TrackedConnection {
  readonly key: string;
  readonly members: Set<Stoppable>;
}

export class ConnectionTracker {
  readonly #entries = new Map<string, Entry>();
  readonly #entryOf = new Map<Stoppable, Entry>();

  /**
   * Call before the connection is first judged, so that no policy change slips in between.
   *
   * @param host of the `forwarded` header.
   */
  register(
    member: Stoppable,
    connection: RbacConnection,
    workload: Workload,
    host: string | undefined,
  ): void {
    const key = `${describeConnection(connection)} ${connection.destinationNetwork} ${host ?? ""}`;
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = { key, connection, workload, members: new Set() };
      this.#entries.set(key, entry);
    }
    entry.members.add(member);
    this.#entryOf.set(member, entry);
  }

  /** Idempotent. */
  release(member: Stoppable): void {
    const entry = this.#entryOf.get(member);
    if (entry === undefined) return;
    this.#entryOf.delete(member);
    entry.members.delete(member);
    if (entry.members.size === 0) this.#entries.delete(entry.key);
  }

  /** A picture of this moment. */
  tracked(): readonly TrackedConnection[] {
    return [...this.#entries.values()];
  }
}

/** `source(identity)->destination`, as operators read it. */
export function describeConnection(connection: RbacConnection): string {
  const { source, sourceIdentity, destination } = connection;
  const identity = sourceIdentity === undefined ? "None" : formatSpiffeId(sourceIdentity);
  return `${formatSocketAddress(source)}(${identity})->${formatSocketAddress(destination)}`;
}
