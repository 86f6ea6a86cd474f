/**
 * The workloads of the mesh and the ways to find one: by uid, by address, by host name and, for pods
 * of this node, by who they are.
 *
 * @see spec control-plane 3.1.
 */
import type { IpAddress } from "../mesh/ip-address.ts";
import type { Workload } from "../mesh/workload.ts";

/** What the node agent knows of a pod. */
export interface LocalWorkloadKey {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

interface Entry {
  readonly workload: Workload;
  /** Counts insertions; the latest has the highest. */
  readonly insertion: number;
}

export class WorkloadStore {
  readonly #localNode: string | undefined;
  readonly #byUid = new Map<string, Entry>();
  /** Network → address → workloads, the one that wins a lookup first. Never an empty list. */
  readonly #byAddress = new Map<string, Map<IpAddress, Workload[]>>();
  /** `namespace/hostname` → uid → workload. */
  readonly #byHostname = new Map<string, Map<string, Workload>>();
  /** `namespace/service account` → uid → workload; only this node's. */
  readonly #localByAccount = new Map<string, Map<string, Workload>>();
  #insertions = 0;

  /** @param localNode `undefined`: every workload counts as this node's. */
  constructor(localNode: string | undefined) {
    this.#localNode = localNode;
  }

  get size(): number {
    return this.#byUid.size;
  }

  uids(): readonly string[] {
    return [...this.#byUid.keys()];
  }

  /** In order of insertion, so that a copy prefers the same one of several on an address. */
  values(): readonly Workload[] {
    return [...this.#byUid.values()]
      .sort((a, b) => a.insertion - b.insertion)
      .map(({ workload }) => workload);
  }

  /** @returns the workload of the same uid that was replaced. */
  insert(workload: Workload): Workload | undefined {
    const previous = this.find(workload.uid);
    this.#byUid.set(workload.uid, { workload, insertion: this.#insertions++ });
    // A host-network pod shares the node's addresses, so it can't be told apart by them.
    if (workload.networkMode !== "HostNetwork") {
      for (const ip of workload.ips) this.#addAddress(workload, ip);
    }
    if (workload.hostname !== "") addTo(this.#byHostname, hostnameKey(workload), workload);
    if (this.#isLocal(workload)) addTo(this.#localByAccount, accountKey(workload), workload);
    // Last, so that no key is deleted and set again: each time would leave a hole in the map, through
    // which every lookup of a flapping pod would have to walk.
    if (previous !== undefined && previous !== workload) this.#removeFromIndexes(previous);
    return previous;
  }

  /** @returns the workload that was removed. */
  remove(uid: string): Workload | undefined {
    const workload = this.find(uid);
    if (workload === undefined) return undefined;
    this.#byUid.delete(uid);
    this.#removeFromIndexes(workload);
    return workload;
  }

  find(uid: string): Workload | undefined {
    return this.#byUid.get(uid)?.workload;
  }

  /** When several share the address: pods before others, then HBONE before TCP, then the latest. */
  findByAddress(network: string, ip: IpAddress): Workload | undefined {
    return this.#byAddress.get(network)?.get(ip)?.[0];
  }

  /** When several share the name, the one known longest. */
  findByHostname(namespace: string, hostname: string): Workload | undefined {
    return firstOf(this.#byHostname.get(`${namespace}/${hostname}`));
  }

  /** A workload of this node; the trust domain is not compared. */
  findLocal(key: LocalWorkloadKey): Workload | undefined {
    for (const workload of this.#localByAccount.get(accountKey(key))?.values() ?? []) {
      if (workload.name === key.name) return workload;
    }
    return undefined;
  }

  #removeFromIndexes(workload: Workload): void {
    for (const ip of workload.ips) this.#removeAddress(workload, ip);
    removeFrom(this.#byHostname, hostnameKey(workload), workload);
    removeFrom(this.#localByAccount, accountKey(workload), workload);
  }

  #isLocal(workload: Workload): boolean {
    return this.#localNode === undefined || workload.node === this.#localNode;
  }

  #addAddress(workload: Workload, ip: IpAddress): void {
    let addresses = this.#byAddress.get(workload.network);
    if (addresses === undefined) {
      addresses = new Map();
      this.#byAddress.set(workload.network, addresses);
    }
    const sharing = addresses.get(ip);
    if (sharing === undefined) {
      addresses.set(ip, [workload]);
      return;
    }
    const present = sharing.indexOf(workload);
    if (present >= 0) sharing.splice(present, 1);
    const rank = addressRank(workload);
    const at = sharing.findIndex((other) => addressRank(other) <= rank);
    sharing.splice(at < 0 ? sharing.length : at, 0, workload);
  }

  #removeAddress(workload: Workload, ip: IpAddress): void {
    const addresses = this.#byAddress.get(workload.network);
    const sharing = addresses?.get(ip);
    if (addresses === undefined || sharing === undefined) return;
    const at = sharing.indexOf(workload);
    if (at >= 0) sharing.splice(at, 1);
    if (sharing.length === 0) addresses.delete(ip);
    if (addresses.size === 0) this.#byAddress.delete(workload.network);
  }
}

function hostnameKey(workload: Workload): string {
  return `${workload.namespace}/${workload.hostname}`;
}

function accountKey(key: { namespace: string; serviceAccount: string }): string {
  return `${key.namespace}/${key.serviceAccount}`;
}

/** A pod is the truth about its address; WorkloadEntries may claim the same one. */
function addressRank(workload: Workload): number {
  return (workload.uid.includes("//Pod/") ? 2 : 0) + (workload.protocol === "HBONE" ? 1 : 0);
}

function addTo(index: Map<string, Map<string, Workload>>, key: string, workload: Workload): void {
  const group = index.get(key);
  if (group === undefined) index.set(key, new Map([[workload.uid, workload]]));
  else group.set(workload.uid, workload);
}

/** Leaves a workload that has taken the place of this one. */
function removeFrom(
  index: Map<string, Map<string, Workload>>,
  key: string,
  workload: Workload,
): void {
  const group = index.get(key);
  if (group?.get(workload.uid) !== workload) return;
  group.delete(workload.uid);
  if (group.size === 0) index.delete(key);
}

function firstOf(group: Map<string, Workload> | undefined): Workload | undefined {
  return group?.values().next().value;
}
