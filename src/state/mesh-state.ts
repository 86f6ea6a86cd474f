/**
 * The mesh as this node knows it: one writer ({@link MeshState.apply}), many readers.
 *
 * What is known is a function of the last version of each resource, never of the order in which they
 * came, except where two resources claim the same address (see the stores). So a state that was
 * filled from another's {@link MeshState.updates} answers alike.
 *
 * @see spec control-plane 3.
 */
import type { AuthorizationPolicy } from "../mesh/authorization.ts";
import type { NamespacedHostname } from "../mesh/gateway-address.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { MeshUpdate } from "../mesh/mesh-update.ts";
import type { Workload } from "../mesh/workload.ts";
import { type ApplicablePolicies, PolicyStore } from "./policy-store.ts";
import { type KnownService, ServiceStore } from "./service-store.ts";
import { type LocalWorkloadKey, WorkloadStore } from "./workload-store.ts";

export type { KnownService } from "./service-store.ts";

/** What a batch did. */
export interface MeshChange {
  readonly policiesChanged: boolean;
  /** New or replaced, and still there at the end of the batch. */
  readonly insertedWorkloads: readonly Workload[];
  /** Gone at the end of the batch; a replaced workload is not among them. */
  readonly removedWorkloads: readonly Workload[];
}

export class MeshState {
  readonly #workloads: WorkloadStore;
  readonly #services = new ServiceStore();
  readonly #policies = new PolicyStore();
  readonly #listeners = new Set<(change: MeshChange) => void>();

  /** @param options.localNode `undefined`: every workload counts as this node's. */
  constructor(options: { readonly localNode: string | undefined }) {
    this.#workloads = new WorkloadStore(options.localNode);
  }

  /**
   * Applies a batch in list order; no reader sees half of it.
   * Removals of unknown names do nothing. Listeners are called before it returns.
   */
  apply(updates: readonly MeshUpdate[]): MeshChange {
    let policiesChanged = false;
    /** Uids that the batch touched, with the workload before it. */
    const before = new Map<string, Workload | undefined>();
    for (const update of updates) {
      switch (update.kind) {
        case "workload": {
          const { uid } = update.workload;
          const previous = this.#insertWorkload(update.workload);
          if (!before.has(uid)) before.set(uid, previous);
          break;
        }
        case "service":
          this.#services.insert(update.service);
          break;
        case "remove-address": {
          // Names of workloads and services don't collide: a host name has no slash.
          const previous = this.#removeWorkload(update.name);
          if (previous === undefined) this.#services.remove(update.name);
          else if (!before.has(update.name)) before.set(update.name, previous);
          break;
        }
        case "policy":
          this.#policies.insert(update.policy);
          policiesChanged = true;
          break;
        case "remove-policy":
          if (this.#policies.remove(update.name)) policiesChanged = true;
          break;
      }
    }
    const insertedWorkloads: Workload[] = [];
    const removedWorkloads: Workload[] = [];
    for (const [uid, previous] of before) {
      const workload = this.#workloads.find(uid);
      if (workload !== undefined) insertedWorkloads.push(workload);
      else if (previous !== undefined) removedWorkloads.push(previous);
    }
    const change: MeshChange = { policiesChanged, insertedWorkloads, removedWorkloads };
    for (const listener of this.#listeners) listener(change);
    return change;
  }

  /** Calls back after each batch. @returns a function that ends this. */
  onChange(listener: (change: MeshChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  findWorkload(uid: string): Workload | undefined {
    return this.#workloads.find(uid);
  }

  /** Never a host-network workload. */
  findWorkloadByAddress(network: string, ip: IpAddress): Workload | undefined {
    return this.#workloads.findByAddress(network, ip);
  }

  findWorkloadByHostname(namespace: string, hostname: string): Workload | undefined {
    return this.#workloads.findByHostname(namespace, hostname);
  }

  /** The workload of a pod of this node. */
  findLocalWorkload(key: LocalWorkloadKey): Workload | undefined {
    return this.#workloads.findLocal(key);
  }

  /** The service of exactly this name. */
  findService(namespace: string, hostname: string): KnownService | undefined {
    return this.#services.find(namespace, hostname);
  }

  /** @param clientNamespace decides visibility and preference; `undefined` sees everything. */
  findServiceByVip(
    network: string,
    ip: IpAddress,
    clientNamespace: string | undefined,
  ): KnownService | undefined {
    return this.#services.findByVip(network, ip, clientNamespace);
  }

  /** As {@link findServiceByVip} for a host name of any namespace. */
  findServiceByHostname(
    hostname: string,
    clientNamespace: string | undefined,
  ): KnownService | undefined {
    return this.#services.findByHostname(hostname, clientNamespace);
  }

  /** The known services that the workload lists, in its order. */
  servicesOf(workload: Workload): readonly KnownService[] {
    const known: KnownService[] = [];
    for (const key of workload.services.keys()) {
      const service = this.#services.findByKey(key);
      if (service !== undefined) known.push(service);
    }
    return known;
  }

  policiesFor(workload: Workload): ApplicablePolicies {
    return this.#policies.applicableTo(workload);
  }

  /** Of all workloads, in no order. */
  workloadUids(): readonly string[] {
    return this.#workloads.uids();
  }

  /** Of all services, in no order. */
  serviceNames(): readonly NamespacedHostname[] {
    return this.#services.names();
  }

  /** All of them, in no order. */
  policies(): readonly AuthorizationPolicy[] {
    return [...this.#policies.values()];
  }

  /** Everything known, as a batch for another state. */
  updates(): readonly MeshUpdate[] {
    const updates: MeshUpdate[] = [];
    for (const workload of this.#workloads.values()) updates.push({ kind: "workload", workload });
    for (const { service } of this.#services.values()) updates.push({ kind: "service", service });
    for (const policy of this.#policies.values()) updates.push({ kind: "policy", policy });
    return updates;
  }

  counts(): { workloads: number; services: number; policies: number } {
    return {
      workloads: this.#workloads.size,
      services: this.#services.size,
      policies: this.#policies.size,
    };
  }

  #insertWorkload(workload: Workload): Workload | undefined {
    const previous = this.#workloads.insert(workload);
    for (const key of previous?.services.keys() ?? []) {
      if (!workload.services.has(key)) this.#services.offer(key, workload.uid, undefined);
    }
    const { uid, status, capacity } = workload;
    for (const [key, ports] of workload.services) {
      this.#services.offer(key, uid, { workloadUid: uid, ports, status, capacity });
    }
    return previous;
  }

  #removeWorkload(uid: string): Workload | undefined {
    const workload = this.#workloads.remove(uid);
    for (const key of workload?.services.keys() ?? []) {
      this.#services.offer(key, uid, undefined);
    }
    return workload;
  }
}
