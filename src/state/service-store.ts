/**
 * The services of the mesh, their endpoints, and the ways to find one: by name, by host name, by
 * address and by address range.
 *
 * Endpoints follow from two sources that arrive in any order: what workloads offer and what the
 * service accepts. Both are kept, so the endpoints of a service never depend on who came first.
 *
 * @see spec control-plane 3.2 to 3.4.
 */
import { cidrContainsBytes } from "../mesh/cidr.ts";
import type { NamespacedHostname } from "../mesh/gateway-address.ts";
import { type IpAddress, ipAddressToBytes } from "../mesh/ip-address.ts";
import { type NetworkCidr, type Service, serviceKey } from "../mesh/service.ts";
import { type Endpoint, EndpointSet, type ReadonlyEndpointSet } from "./endpoint-set.ts";

/** A service with what is behind it. */
export interface KnownService {
  /** Replaced as a whole when it changes. */
  readonly service: Service;
  /** Only those that the service's health policy accepts. Changes in place. */
  readonly endpoints: ReadonlyEndpointSet;
}

/** What indexes refer to, so that another version of a service never touches an index. */
interface Slot {
  known: KnownService & { readonly endpoints: EndpointSet };
}

interface CidrSlot extends NetworkCidr {
  readonly slot: Slot;
}

export class ServiceStore {
  /** Key is `namespace/hostname`. */
  readonly #slots = new Map<string, Slot>();
  readonly #byHostname = new Map<string, Slot[]>();
  /** Network → address → services. */
  readonly #byVip = new Map<string, Map<IpAddress, Slot[]>>();
  /** Network → ranges, in order of arrival. */
  readonly #byCidr = new Map<string, CidrSlot[]>();
  /** Service key → workload uid → endpoint; also unhealthy ones and of services not known yet. */
  readonly #offered = new Map<string, Map<string, Endpoint>>();

  get size(): number {
    return this.#slots.size;
  }

  names(): readonly NamespacedHostname[] {
    return Array.from(this.#slots.values(), ({ known: { service } }) => ({
      namespace: service.namespace,
      hostname: service.hostname,
    }));
  }

  *values(): Iterable<KnownService> {
    for (const slot of this.#slots.values()) yield slot.known;
  }

  insert(service: Service): void {
    const key = serviceKey(service);
    const slot = this.#slots.get(key);
    if (slot === undefined) {
      const endpoints = acceptedEndpoints(service, this.#offered.get(key));
      const added: Slot = { known: { service, endpoints } };
      this.#slots.set(key, added);
      addTo(this.#byHostname, service.hostname, added);
      this.#addAddresses(added);
      return;
    }
    const { service: previous, endpoints: known } = slot.known;
    const endpoints =
      acceptsAll(previous) === acceptsAll(service)
        ? known
        : acceptedEndpoints(service, this.#offered.get(key));
    if (sameAddresses(previous, service)) {
      slot.known = { service, endpoints };
    } else {
      this.#removeAddresses(slot);
      slot.known = { service, endpoints };
      this.#addAddresses(slot);
    }
  }

  /** @returns false when there is no such service. */
  remove(key: string): boolean {
    const slot = this.#slots.get(key);
    if (slot === undefined) return false;
    this.#slots.delete(key);
    removeFrom(this.#byHostname, slot.known.service.hostname, slot);
    this.#removeAddresses(slot);
    return true;
  }

  /** A workload has, or with `undefined` no longer has, an endpoint behind a service. */
  offer(key: string, uid: string, endpoint: Endpoint | undefined): void {
    const known = this.#slots.get(key)?.known;
    let offered = this.#offered.get(key);
    if (endpoint === undefined) {
      if (offered?.delete(uid) !== true) return;
      if (offered.size === 0) this.#offered.delete(key);
      known?.endpoints.delete(uid);
    } else {
      if (offered === undefined) {
        offered = new Map();
        this.#offered.set(key, offered);
      }
      const previous = offered.get(uid);
      // A change of a service re-sends its workloads, most of them unchanged.
      if (previous !== undefined && sameEndpoint(previous, endpoint)) return;
      offered.set(uid, endpoint);
      if (known === undefined) return;
      if (accepts(known.service, endpoint)) known.endpoints.set(endpoint);
      else known.endpoints.delete(uid);
    }
  }

  find(namespace: string, hostname: string): KnownService | undefined {
    return this.findByKey(`${namespace}/${hostname}`);
  }

  /** @param key `namespace/hostname`. */
  findByKey(key: string): KnownService | undefined {
    return this.#slots.get(key)?.known;
  }

  findByHostname(hostname: string, clientNamespace: string | undefined): KnownService | undefined {
    return bestOf(this.#byHostname.get(hostname), clientNamespace);
  }

  /** An exact address wins over ranges, unless the client may see none of its services. */
  findByVip(
    network: string,
    ip: IpAddress,
    clientNamespace: string | undefined,
  ): KnownService | undefined {
    return (
      bestOf(this.#byVip.get(network)?.get(ip), clientNamespace) ??
      bestRange(this.#byCidr.get(network), ip, clientNamespace)
    );
  }

  #addAddresses(slot: Slot): void {
    const { vips, cidrVips } = slot.known.service;
    for (const { network, ip } of vips) {
      let addresses = this.#byVip.get(network);
      if (addresses === undefined) {
        addresses = new Map();
        this.#byVip.set(network, addresses);
      }
      addTo(addresses, ip, slot);
    }
    for (const { network, cidr } of cidrVips) {
      const ranges = this.#byCidr.get(network);
      if (ranges === undefined) this.#byCidr.set(network, [{ network, cidr, slot }]);
      else ranges.push({ network, cidr, slot });
    }
  }

  #removeAddresses(slot: Slot): void {
    const { vips, cidrVips } = slot.known.service;
    for (const { network, ip } of vips) {
      const addresses = this.#byVip.get(network);
      if (addresses === undefined) continue;
      removeFrom(addresses, ip, slot);
      if (addresses.size === 0) this.#byVip.delete(network);
    }
    for (const { network } of cidrVips) {
      const ranges = this.#byCidr.get(network)?.filter((range) => range.slot !== slot);
      if (ranges === undefined || ranges.length === 0) this.#byCidr.delete(network);
      else this.#byCidr.set(network, ranges);
    }
  }
}

/** True unless the service is kept to another namespace than the client's. */
function isVisible(service: Service, clientNamespace: string | undefined): boolean {
  return (
    clientNamespace === undefined ||
    service.visibility === "Public" ||
    service.namespace === clientNamespace
  );
}

function bestOf(
  slots: readonly Slot[] | undefined,
  clientNamespace: string | undefined,
): KnownService | undefined {
  if (slots === undefined) return undefined;
  let best: KnownService | undefined;
  for (const { known } of slots) {
    if (!isVisible(known.service, clientNamespace)) continue;
    if (best === undefined || wins(known.service, best.service, clientNamespace)) best = known;
  }
  return best;
}

/** The client's namespace, then canonical services (the last known), then the first known. */
function wins(service: Service, best: Service, clientNamespace: string | undefined): boolean {
  if (service.namespace === best.namespace) {
    // The control plane gives no order for these, so the name must decide, not the arrival.
    if (service.canonical !== best.canonical) return service.canonical;
    return service.hostname < best.hostname;
  }
  if (service.namespace === clientNamespace) return true;
  if (best.namespace === clientNamespace) return false;
  return service.canonical;
}

/** The client's namespace, then the longest prefix, then canonical, then the first known. */
function bestRange(
  ranges: readonly CidrSlot[] | undefined,
  ip: IpAddress,
  clientNamespace: string | undefined,
): KnownService | undefined {
  if (ranges === undefined) return undefined;
  const bytes = ipAddressToBytes(ip);
  let best: KnownService | undefined;
  let bestRank = -1;
  for (const { cidr, slot } of ranges) {
    const { service } = slot.known;
    if (!cidrContainsBytes(cidr, bytes) || !isVisible(service, clientNamespace)) continue;
    const rank =
      (service.namespace === clientNamespace ? 1024 : 0) +
      cidr.prefixLength * 2 +
      (service.canonical ? 1 : 0);
    if (rank > bestRank) {
      best = slot.known;
      bestRank = rank;
    }
  }
  return best;
}

function acceptedEndpoints(
  service: Service,
  offered: ReadonlyMap<string, Endpoint> | undefined,
): EndpointSet {
  const accepted = new EndpointSet();
  for (const endpoint of offered?.values() ?? []) {
    if (accepts(service, endpoint)) accepted.set(endpoint);
  }
  return accepted;
}

function accepts(service: Service, endpoint: Endpoint): boolean {
  return endpoint.status === "Healthy" || acceptsAll(service);
}

/** Also workloads that say they are not healthy. */
function acceptsAll(service: Service): boolean {
  return service.loadBalancer?.healthPolicy === "AllowAll";
}

function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  if (a.status !== b.status || a.capacity !== b.capacity) return false;
  if (a.ports.size !== b.ports.size) return false;
  for (const [port, target] of a.ports) if (b.ports.get(port) !== target) return false;
  return true;
}

/** True when both are found under the same addresses, listed in the same order. */
function sameAddresses(a: Service, b: Service): boolean {
  return (
    a.vips.length === b.vips.length &&
    a.cidrVips.length === b.cidrVips.length &&
    a.vips.every((vip, i) => vip.ip === b.vips[i]?.ip && vip.network === b.vips[i]?.network) &&
    a.cidrVips.every(
      ({ network, cidr }, i) =>
        network === b.cidrVips[i]?.network &&
        cidr.ip === b.cidrVips[i]?.cidr.ip &&
        cidr.prefixLength === b.cidrVips[i]?.cidr.prefixLength,
    )
  );
}

function addTo<Key>(index: Map<Key, Slot[]>, key: Key, slot: Slot): void {
  const slots = index.get(key);
  if (slots === undefined) index.set(key, [slot]);
  else if (!slots.includes(slot)) slots.push(slot);
}

function removeFrom<Key>(index: Map<Key, Slot[]>, key: Key, slot: Slot): void {
  const slots = index.get(key)?.filter((other) => other !== slot);
  if (slots === undefined || slots.length === 0) index.delete(key);
  else index.set(key, slots);
}
