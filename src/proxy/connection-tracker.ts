/**
 * Which inbound connections live, and what they were allowed as. Streams of one tunnel to the same
 * target share an entry, so that a policy change judges them once.
 *
 * @see spec data-path 7.1
 */
import type { RbacConnection } from "../mesh/authorization.ts";
import { formatSpiffeId } from "../mesh/identity.ts";
import { formatSocketAddress, type SocketAddress } from "../mesh/socket-address.ts";
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
  readonly host: string | undefined;
  readonly members: Set<Stoppable>;
}

export class ConnectionTracker {
  /** By the address of the peer, one object for all streams of a tunnel; few have two targets. */
  readonly #bySource = new Map<SocketAddress, Entry[]>();
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
    const entry =
      this.#find(connection, host) ?? this.#add({ connection, workload, host, members: new Set() });
    entry.members.add(member);
    this.#entryOf.set(member, entry);
  }

  #find(connection: RbacConnection, host: string | undefined): Entry | undefined {
    for (const entry of this.#bySource.get(connection.source) ?? NO_ENTRIES) {
      if (entry.host === host && isSame(entry.connection, connection)) return entry;
    }
    return undefined;
  }

  #add(entry: Entry): Entry {
    const { source } = entry.connection;
    const same = this.#bySource.get(source);
    if (same === undefined) this.#bySource.set(source, [entry]);
    else same.push(entry);
    return entry;
  }

  /** Idempotent. */
  release(member: Stoppable): void {
    const entry = this.#entryOf.get(member);
    if (entry === undefined) return;
    this.#entryOf.delete(member);
    entry.members.delete(member);
    if (entry.members.size === 0) this.#remove(entry);
  }

  #remove(entry: Entry): void {
    const { source } = entry.connection;
    const same = this.#bySource.get(source) ?? [];
    same.splice(same.indexOf(entry), 1);
    if (same.length === 0) this.#bySource.delete(source);
  }

  /** A picture of this moment. */
  tracked(): readonly TrackedConnection[] {
    return [...this.#bySource.values()].flat();
  }
}

const NO_ENTRIES: readonly Entry[] = [];

function isSame(a: RbacConnection, b: RbacConnection): boolean {
  return (
    a.destination.port === b.destination.port &&
    a.destination.ip === b.destination.ip &&
    a.destinationNetwork === b.destinationNetwork &&
    a.sourceIdentity === b.sourceIdentity
  );
}

/** `source(identity)->destination`, as operators read it. */
export function describeConnection(connection: RbacConnection): string {
  const { source, sourceIdentity, destination } = connection;
  const identity = sourceIdentity === undefined ? "None" : formatSpiffeId(sourceIdentity);
  return `${formatSocketAddress(source)}(${identity})->${formatSocketAddress(destination)}`;
}
