/**
 * Services whose clients stay with one endpoint (Kubernetes' `sessionAffinity: ClientIP`). A client is
 * where it last was, as long as that was not too long ago; else where its address and those of the
 * endpoints lead (rendezvous hashing): to the same one on every thread and node, and when an endpoint
 * comes or goes, only those clients move that win or lose it.
 */
import type { IpAddress } from "../mesh/ip-address.ts";
import { type Service, serviceKey } from "../mesh/service.ts";
import type { Workload } from "../mesh/workload.ts";
import { type AffinityTable, affinityKey } from "./affinity-table.ts";
import { hashText, mixHashes } from "./mesh-keys.ts";
import type { ChosenEndpoint } from "./mesh-state.ts";

/** Where one client of one service likes to go. */
export interface ClientPreference {
  /** How much it likes an endpoint: the most wins, 0 never does. */
  readonly score: (uidHash: number, capacity: number) => number;
}

export class SessionAffinity {
  readonly #table: AffinityTable;
  /** Seconds by `namespace/hostname`. */
  readonly #services: ReadonlyMap<string, number>;

  /** @param services seconds by `namespace/hostname`, also where the mesh says otherwise. */
  constructor(table: AffinityTable, services: Readonly<Record<string, number>>) {
    this.#table = table;
    this.#services = new Map(Object.entries(services));
  }

  /** After a client's last connection; `undefined`: its connections may go anywhere. */
  seconds(service: Service): number | undefined {
    if (this.#services.size === 0) return service.affinitySeconds;
    return this.#services.get(serviceKey(service)) ?? service.affinitySeconds;
  }

  /** @returns `undefined` where the service has no affinity. */
  preference(service: Service, client: IpAddress): ClientPreference | undefined {
    if (this.seconds(service) === undefined) return undefined;
    const kept = this.#table.find(affinityKey(serviceKey(service), client));
    const clientHash = hashText(client);
    return {
      score(uidHash, capacity) {
        if (capacity <= 0) return 0;
        if (uidHash === kept) return Number.POSITIVE_INFINITY;
        // Weighted rendezvous hashing: each endpoint wins in proportion to its capacity.
        const unit = (mixHashes(clientHash, uidHash) + 0.5) / 2 ** 32;
        return capacity / -Math.log(unit);
      },
    };
  }

  /** Whether the client's last connection was to that workload, not too long ago. */
  isAt(service: Service, client: IpAddress, { uid }: Workload): boolean {
    return this.#table.find(affinityKey(serviceKey(service), client)) === hashText(uid);
  }

  /** A connection of the client came about. */
  keep(
    { service: known, workload }: Pick<ChosenEndpoint, "service" | "workload">,
    client: IpAddress,
  ): void {
    const seconds = known && this.seconds(known.service);
    if (known === undefined || seconds === undefined) return;
    const key = affinityKey(serviceKey(known.service), client);
    this.#table.keep(key, hashText(workload.uid), seconds);
  }
}
