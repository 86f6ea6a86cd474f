/**
 * Which service is meant when several claim the same address, range or host name.
 *
 * - addresses and host names: of each namespace canonical ones, then the first by name; of these the
 *   client's namespace, then canonical ones (the last known), then the one known longest;
 * - ranges: the client's namespace, then the longest prefix, then canonical ones, then the one known
 *   longest.
 *
 * @see spec control-plane 3.4
 */
import type { Service } from "../mesh/service.ts";
import { bestRecord, type CachedRecord } from "./record-cache.ts";

/** @param clientNamespace decides visibility and preference; `undefined` sees everything. */
export function chooseService(
  sharing: readonly CachedRecord<Service>[],
  clientNamespace: string | undefined,
  preferredNamespace?: string,
): Service | undefined {
  if (sharing.length <= 1) {
    const only = sharing[0]?.value;
    return only !== undefined && isVisible(only, clientNamespace) ? only : undefined;
  }
  /** One of each namespace. */
  const winners = new Map<string, CachedRecord<Service>>();
  for (const record of sharing) {
    const { value: service } = record;
    if (!isVisible(service, clientNamespace)) continue;
    const other = winners.get(service.namespace);
    if (other === undefined || winsNamespace(service, other.value)) {
      winners.set(service.namespace, record);
    }
  }
  const own = clientNamespace === undefined ? undefined : winners.get(clientNamespace);
  const winner = own ?? bestRecord([...winners.values()], isPreferred);
  const preferred = preferredNamespace === undefined ? undefined : winners.get(preferredNamespace);
  const isDecided = own !== undefined || winner?.value.canonical === true;
  return (isDecided ? winner : (preferred ?? winner))?.value;
}

/** The best of services with a range that contains an address, offered one by one. */
export class RangeChoice {
  readonly #clientNamespace: string | undefined;
  #rank = -1;
  #since = 0;
  /** `undefined` as long as none was visible. */
  service: Service | undefined;

  constructor(clientNamespace: string | undefined) {
    this.#clientNamespace = clientNamespace;
  }

  /** @param prefixLength of its range. */
  offer({ value: service, since }: CachedRecord<Service>, prefixLength: number): void {
    if (!isVisible(service, this.#clientNamespace)) return;
    const rank =
      (service.namespace === this.#clientNamespace ? 1024 : 0) +
      prefixLength * 2 +
      (service.canonical ? 1 : 0);
    if (rank < this.#rank || (rank === this.#rank && since >= this.#since)) return;
    this.#rank = rank;
    this.#since = since;
    this.service = service;
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

/** The control plane gives no order for these, so the name must decide, not the arrival. */
function winsNamespace(service: Service, other: Service): boolean {
  if (service.canonical !== other.canonical) return service.canonical;
  return service.hostname < other.hostname;
}

/** The last known of canonical ones, else the first known. */
function isPreferred(a: CachedRecord<Service>, b: CachedRecord<Service>): boolean {
  if (a.value.canonical !== b.value.canonical) return a.value.canonical;
  return a.value.canonical ? a.since > b.since : a.since < b.since;
}
