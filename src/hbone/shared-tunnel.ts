/** A tunnel as the pool keeps it, and the places that streams take up in it. */
import type { ClientTunnel } from "../engine/engine.ts";
import type { Identity } from "../mesh/identity.ts";
import type { IpAddress } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Timer } from "../runtime/clock.ts";

/** Where a tunnel goes and for whom; streams to different authorities share one. */
export interface HboneTarget {
  readonly source: Identity;
  /** The client's address: tunnels are never shared by two pods. */
  readonly sourceIp: IpAddress;
  /** Identities that the peer may have; the order is part of the key. */
  readonly expected: readonly Identity[];
  /** The workload that has the address now: another one there is never spoken to through its tunnel. */
  readonly destinationUid: string;
  readonly remote: SocketAddress;
}

export interface SharedTunnel {
  readonly key: string;
  readonly target: HboneTarget;
  readonly tunnel: ClientTunnel;
  /** Requests that were sent and whose stream has not ended. */
  streamCount: number;
  /** The peer has answered a request, whatever it said. */
  wasAnswered: boolean;
  /** It takes more streams. */
  isPooled: boolean;
  /** Monotonic milliseconds of the last request. */
  usedAt: number;
  /** Runs while the tunnel is pooled. */
  unusedTimer: Timer | undefined;
}

/** The place of one stream in a tunnel; all that is kept of a request while its stream lives. */
export class StreamLease {
  #shared: SharedTunnel | undefined;

  /** Takes a place. */
  constructor(shared: SharedTunnel) {
    this.#shared = shared;
    shared.streamCount++;
  }

  /** Call when the stream has ended. Idempotent. */
  release(): void {
    const shared = this.#shared;
    if (shared === undefined) return;
    this.#shared = undefined;
    shared.streamCount--;
    if (!shared.isPooled) closeWhenUnused(shared);
  }
}

/** Call when no more streams go through it. */
export function closeWhenUnused(shared: SharedTunnel): void {
  if (shared.streamCount === 0) shared.tunnel.close();
}
