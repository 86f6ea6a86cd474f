/**
 * Keeps peers with revoked certificates out: refuses them when they come, and ends their tunnels when
 * a list that names them comes later. One for each data thread.
 *
 * @see spec control-plane 5.10, data-path 7.3.
 */
import type { RevocationList } from "../tls/revocation-list.ts";
import { isReadableChain, Revocations } from "../tls/revocations.ts";
import { type ProxyError, revokedError } from "./proxy-error.ts";
import type { Reporter, TrafficMetrics } from "./traffic-metrics.ts";

/** A tunnel whose peer was let in. */
export interface GuardedTunnel {
  readonly reporter: Reporter;
  /** See {@link TlsOptions.isRevoked} in engine/engine.ts. */
  readonly chainDer: Uint8Array;
  /** Ends the tunnel and its streams; called at most once, and not after the release. */
  end(cause: ProxyError): void;
}

export class RevocationGuard {
  readonly #traffic: TrafficMetrics;
  readonly #tunnels = new Set<GuardedTunnel>();
  #revocations = new Revocations([]);

  constructor(traffic: TrafficMetrics) {
    this.#traffic = traffic;
  }

  /** From now on these lists count and no others; open tunnels are judged by them at once. */
  update(lists: readonly RevocationList[]): void {
    this.#revocations = new Revocations(lists);
    for (const tunnel of [...this.#tunnels]) this.#judge(tunnel);
  }

  /** Judges a newcomer and counts it when it is refused. */
  refuses(reporter: Reporter, chainDer: Uint8Array): boolean {
    const isRevoked = this.#revocations.isRevoked(chainDer);
    if (isRevoked) this.#traffic.revocationRejected(reporter);
    return isRevoked;
  }

  /**
   * Keeps an eye on a tunnel, and judges it once more: lists may have come since its handshake.
   *
   * @returns release, idempotent; to be called when the tunnel is gone.
   */
  watch(tunnel: GuardedTunnel): () => void {
    if (!isReadableChain(tunnel.chainDer)) {
      this.#traffic.revocationUntracked(tunnel.reporter);
      return () => {};
    }
    this.#tunnels.add(tunnel);
    this.#judge(tunnel);
    return () => this.#tunnels.delete(tunnel);
  }

  #judge(tunnel: GuardedTunnel): void {
    if (!this.refuses(tunnel.reporter, tunnel.chainDer)) return;
    this.#tunnels.delete(tunnel);
    tunnel.end(revokedError());
  }
}
