/**
 * The endpoints of one service: found by workload, and by number for a draw. Every change takes the
 * same time however many there are.
 */
import type { HealthStatus, PortMap } from "../mesh/workload.ts";

/** One workload's ports behind a service. */
export interface Endpoint {
  readonly workloadUid: string;
  /** Service port → this workload's port. */
  readonly ports: PortMap;
  readonly status: HealthStatus;
  /** The workload's share of the connections, in proportion to those of the others. */
  readonly capacity: number;
}

/** What readers see; it changes with the mesh. */
export type ReadonlyEndpointSet = Pick<
  EndpointSet,
  "size" | "isEven" | "has" | "get" | "at" | "keys" | "values"
>;

export class EndpointSet {
  readonly #list: Endpoint[] = [];
  /** Workload uid → index in the list. */
  readonly #places = new Map<string, number>();
  /** Endpoints whose capacity is not 1. */
  #unevenCount = 0;

  get size(): number {
    return this.#list.length;
  }

  /** Whether all have the same share. */
  get isEven(): boolean {
    return this.#unevenCount === 0;
  }

  has(uid: string): boolean {
    return this.#places.has(uid);
  }

  get(uid: string): Endpoint | undefined {
    const place = this.#places.get(uid);
    return place === undefined ? undefined : this.#list[place];
  }

  /** @param index below {@link size}; others answer `undefined`. */
  at(index: number): Endpoint | undefined {
    return this.#list[index];
  }

  /** Workload uids. */
  keys(): Iterable<string> {
    return this.#places.keys();
  }

  values(): Iterable<Endpoint> {
    return this.#list;
  }

  /** Adds it, or replaces that of the same workload. */
  set(endpoint: Endpoint): void {
    this.delete(endpoint.workloadUid);
    this.#places.set(endpoint.workloadUid, this.#list.length);
    this.#list.push(endpoint);
    if (endpoint.capacity !== 1) this.#unevenCount++;
  }

  /** Idempotent. */
  delete(uid: string): void {
    const place = this.#places.get(uid);
    const removed = place === undefined ? undefined : this.#list[place];
    const last = this.#list.at(-1);
    if (place === undefined || removed === undefined || last === undefined) return;
    // The last one takes its place; of a single one that is undone right away.
    this.#list[place] = last;
    this.#places.set(last.workloadUid, place);
    this.#list.pop();
    this.#places.delete(uid);
    if (removed.capacity !== 1) this.#unevenCount--;
  }
}
