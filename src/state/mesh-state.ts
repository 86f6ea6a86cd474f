/**
 * The mesh as a thread reads it. The memory is shared, and written by one {@link MeshWriter}; each
 * answer is true of one moment.
 *
 * Who is found when several claim the same address or name (services: service-choice.ts):
 *
 * - workloads on an address: pods, then those that speak HBONE, then the one that came last;
 * - workloads with a host name: the one known longest.
 *
 * @see spec control-plane 3.1, 3.2 and 3.4.
 */
import type { AuthorizationPolicy } from "../mesh/authorization.ts";
import { cidrContainsBytes } from "../mesh/cidr.ts";
import type { NamespacedHostname } from "../mesh/gateway-address.ts";
import type { Identity } from "../mesh/identity.ts";
import { type IpAddress, ipAddressToBytes } from "../mesh/ip-address.ts";
import { type Service, serviceIdentities } from "../mesh/service.ts";
import { type Workload, workloadIdentity } from "../mesh/workload.ts";
import { MeshAnswers } from "./mesh-answers.ts";
import {
  addressHash,
  hashText,
  hostnameHash,
  type LocalWorkloadKey,
  localWorkloadHash,
  rangeHash,
} from "./mesh-keys.ts";
import {
  type IndexName,
  type MeshMemory,
  RANGE_COUNTS_V4,
  RANGE_COUNTS_V6,
} from "./mesh-memory.ts";
import { recordName } from "./mesh-record.ts";
import { MeshTables } from "./mesh-tables.ts";
import type { MeshChange } from "./mesh-writer.ts";
import { type ApplicablePolicies, PolicyScopes } from "./policy-scopes.ts";
import { bestRecord } from "./record-cache.ts";
import { chooseService, RangeChoice } from "./service-choice.ts";
import { ServiceEndpoints } from "./service-endpoints.ts";

/** A service with what is behind it. */
export interface KnownService {
  readonly service: Service;
  /** Those of today, also when the service has been replaced. */
  readonly endpoints: ServiceEndpoints;
}

/** What one connection goes to. */
export interface ChosenEndpoint {
  readonly workload: Workload;
  /** `undefined` when the workload itself was addressed. */
  readonly service: KnownService | undefined;
  /** The port that was asked for, of the service where there is one. */
  readonly servicePort: number;
}

/** Which services of a host name are meant. */
export interface ServiceChoice {
  readonly accepts: (service: Service) => boolean;
  /** Wins where neither the client's namespace nor a canonical one is among them. */
  readonly preferredNamespace: string | undefined;
}

/** What is recalled of an address, for the one that asked last. */
interface FoundWorkload {
  readonly network: string;
  readonly workload: Workload | undefined;
}

interface FoundService {
  readonly network: string;
  readonly clientNamespace: string | undefined;
  readonly known: KnownService | undefined;
}

interface AcceptedIdentities {
  readonly known: KnownService | undefined;
  readonly identities: readonly Identity[];
}

export class MeshState {
  readonly #memory: MeshMemory;
  readonly #tables: MeshTables;
  readonly #listeners = new Set<(change: MeshChange) => void>();
  /** One object as long as the service is the same. */
  readonly #known = new WeakMap<Service, KnownService>();
  readonly #identities = new WeakMap<Workload, AcceptedIdentities>();
  readonly #byAddress: MeshAnswers<IpAddress, FoundWorkload>;
  readonly #byVip: MeshAnswers<IpAddress, FoundService>;
  readonly #local: MeshAnswers<LocalWorkloadKey, Workload>;
  readonly #services: MeshAnswers<Workload, readonly KnownService[]>;
  readonly #policies: PolicyScopes;

  constructor(memory: MeshMemory) {
    this.#memory = memory;
    this.#byAddress = new MeshAnswers(memory);
    this.#byVip = new MeshAnswers(memory);
    this.#local = new MeshAnswers(memory);
    this.#services = new MeshAnswers(memory);
    this.#tables = new MeshTables(memory);
    this.#policies = new PolicyScopes(memory, this.#tables);
  }

  /** Calls back after changes. @returns a function that ends this. */
  onChange(listener: (change: MeshChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The writer's thread says what it has changed; reading it was possible before. */
  announce(change: MeshChange): void {
    for (const listener of this.#listeners) listener(change);
  }

  findWorkload(uid: string): Workload | undefined {
    return this.#memory.read(() => this.#tables.workload(uid))?.value;
  }

  /** Never a host-network workload. */
  findWorkloadByAddress(network: string, ip: IpAddress): Workload | undefined {
    const recalled = this.#byAddress.recall(ip);
    if (recalled?.network === network) return recalled.workload;
    const hash = addressHash(network, ip);
    const workload = this.#memory.read(() => {
      const sharing = this.#tables.workloads(
        "workload-by-address",
        hash,
        (workload) => workload.network === network && workload.ips.includes(ip),
      );
      return bestRecord(sharing, (a, b) => {
        const rank = addressRank(a.value) - addressRank(b.value);
        return rank === 0 ? a.serial > b.serial : rank > 0;
      })?.value;
    });
    this.#byAddress.keep(ip, { network, workload });
    return workload;
  }

  findWorkloadByHostname(namespace: string, hostname: string): Workload | undefined {
    const hash = hostnameHash(namespace, hostname);
    return this.#memory.read(() => {
      const sharing = this.#tables.workloads(
        "workload-by-hostname",
        hash,
        (workload) => workload.namespace === namespace && workload.hostname === hostname,
      );
      return bestRecord(sharing, (a, b) => a.since < b.since)?.value;
    });
  }

  /**
   * The workload of a pod of this node; the trust domain is not compared.
   *
   * @param key the same object each time is the fastest.
   */
  findLocalWorkload(key: LocalWorkloadKey): Workload | undefined {
    const recalled = this.#local.recall(key);
    if (recalled !== undefined) return recalled;
    const { name, namespace, serviceAccount } = key;
    const hash = localWorkloadHash(key);
    const workload = this.#memory.read(() => {
      const same = this.#tables.workloads(
        "local-workload",
        hash,
        (workload) =>
          workload.name === name &&
          workload.namespace === namespace &&
          workload.serviceAccount === serviceAccount,
      );
      return bestRecord(same, (a, b) => a.since < b.since)?.value;
    });
    if (workload !== undefined) this.#local.keep(key, workload);
    return workload;
  }

  /** The service of exactly this name. */
  findService(namespace: string, hostname: string): KnownService | undefined {
    return this.#findByKey(`${namespace}/${hostname}`);
  }

  /**
   * An exact address wins over ranges, unless the client may see none of its services.
   *
   * @param clientNamespace decides visibility and preference; `undefined` sees everything.
   */
  findServiceByVip(
    network: string,
    ip: IpAddress,
    clientNamespace: string | undefined,
  ): KnownService | undefined {
    const recalled = this.#byVip.recall(ip);
    if (recalled?.network === network && recalled.clientNamespace === clientNamespace) {
      return recalled.known;
    }
    const hash = addressHash(network, ip);
    const known = this.#asKnown(
      this.#memory.read(() => {
        const sharing = this.#tables.services("service-by-vip", hash, ({ vips }) =>
          vips.some((vip) => vip.ip === ip && vip.network === network),
        );
        return (
          chooseService(sharing, clientNamespace) ?? this.#bestRange(network, ip, clientNamespace)
        );
      }),
    );
    this.#byVip.keep(ip, { network, clientNamespace, known });
    return known;
  }

  /** As {@link findServiceByVip} for a host name of any namespace. @param choice default: any. */
  findServiceByHostname(
    hostname: string,
    clientNamespace: string | undefined,
    choice?: ServiceChoice,
  ): KnownService | undefined {
    const hash = hashText(hostname);
    return this.#asKnown(
      this.#memory.read(() => {
        const isMeant = (service: Service): boolean =>
          service.hostname === hostname && (choice === undefined || choice.accepts(service));
        const sharing = this.#tables.services("service-by-hostname", hash, isMeant);
        return chooseService(sharing, clientNamespace, choice?.preferredNamespace);
      }),
    );
  }

  /** The known services that the workload lists, in its order. */
  servicesOf(workload: Workload): readonly KnownService[] {
    const recalled = this.#services.recall(workload);
    if (recalled !== undefined) return recalled;
    const known: KnownService[] = [];
    for (const key of workload.services.keys()) {
      const service = this.#findByKey(key);
      if (service !== undefined) known.push(service);
    }
    this.#services.keep(workload, known);
    return known;
  }

  policiesFor(workload: Workload): ApplicablePolicies {
    return this.#policies.of(workload);
  }

  /**
   * Whom a peer may prove to be: the service's names, then the workload itself. Names that are no
   * SPIFFE identity can't be proven by a peer, so they are left out.
   *
   * @returns one list as long as workload and service are the same as last time.
   */
  identitiesOf(workload: Workload, known: KnownService | undefined): readonly Identity[] {
    const last = this.#identities.get(workload);
    if (last !== undefined && last.known === known) return last.identities;
    const names = known === undefined ? [] : serviceIdentities(known.service);
    const identities = [...names, workloadIdentity(workload)];
    this.#identities.set(workload, { known, identities });
    return identities;
  }

  /** Of all workloads, in no order. */
  workloadUids(): readonly string[] {
    return this.#names("workload-by-uid");
  }

  /** Of all services, in no order. */
  serviceNames(): readonly NamespacedHostname[] {
    return this.#names("service-by-key").map((key) => {
      const slash = key.indexOf("/");
      return { namespace: key.slice(0, slash), hostname: key.slice(slash + 1) };
    });
  }

  /** All of them, in no order. */
  policies(): readonly AuthorizationPolicy[] {
    const found: AuthorizationPolicy[] = [];
    for (const key of this.#names("policy-by-key")) {
      const policy = this.#memory.read(() => this.#tables.policy(key));
      if (policy !== undefined) found.push(policy.value);
    }
    return found;
  }

  counts(): { workloads: number; services: number; policies: number } {
    return this.#memory.read(() => ({
      workloads: this.#tables.index("workload-by-uid").size,
      services: this.#tables.index("service-by-key").size,
      policies: this.#tables.index("policy-by-key").size,
    }));
  }

  #names(index: IndexName): readonly string[] {
    return this.#memory.read(() =>
      this.#tables
        .index(index)
        .all()
        .map((ref) => recordName(this.#memory, ref)),
    );
  }

  #findByKey(key: string): KnownService | undefined {
    return this.#asKnown(this.#memory.read(() => this.#tables.service(key))?.value);
  }

  #asKnown(service: Service | undefined): KnownService | undefined {
    if (service === undefined) return undefined;
    let known = this.#known.get(service);
    if (known === undefined) {
      known = { service, endpoints: new ServiceEndpoints(this.#memory, this.#tables, service) };
      this.#known.set(service, known);
    }
    return known;
  }

  /** In an attempt: looks under each length of prefix that any service has. */
  #bestRange(
    network: string,
    ip: IpAddress,
    clientNamespace: string | undefined,
  ): Service | undefined {
    if (this.#tables.index("service-by-range").size === 0) return undefined;
    const bytes = ipAddressToBytes(ip);
    const counts = bytes.length === 4 ? RANGE_COUNTS_V4 : RANGE_COUNTS_V6;
    const choice = new RangeChoice(clientNamespace);
    for (let length = 0; length <= bytes.length * 8; length++) {
      if (this.#memory.word(counts + length) === 0) continue;
      const hash = rangeHash(network, bytes, length);
      const ranges = this.#tables.services("service-by-range", hash, ({ cidrVips }) =>
        cidrVips.some(
          (range) =>
            range.network === network &&
            range.cidr.prefixLength === length &&
            cidrContainsBytes(range.cidr, bytes),
        ),
      );
      for (const record of ranges) choice.offer(record, length);
    }
    return choice.service;
  }
}

/** A pod is the truth about its address; WorkloadEntries may claim the same one. */
function addressRank(workload: Workload): number {
  return (workload.uid.includes("//Pod/") ? 2 : 0) + (workload.protocol === "HBONE" ? 1 : 0);
}
