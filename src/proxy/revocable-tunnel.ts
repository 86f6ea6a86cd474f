/** An outgoing tunnel whose streams end with the right words when its peer is revoked. */
import type { ClientTunnel, HeaderFields, TunnelAnswer, TunnelClosed } from "../engine/engine.ts";
import type { Stoppable } from "./live-set.ts";
import type { UpstreamLease } from "./proxied-connection.ts";
import type { ProxyError } from "./proxy-error.ts";
import type { RevocationGuard } from "./revocation-guard.ts";

/** Says at whom it was, in the words of a route. */
export type Retell = (cause: ProxyError) => ProxyError;

export class RevocableTunnel implements ClientTunnel {
  readonly #tunnel: ClientTunnel;
  readonly #release: () => void;
  /** Connections that are carried, and what each makes of the cause. */
  readonly #members = new Map<Stoppable, Retell>();
  #cause: ProxyError | undefined;

  /** Takes the tunnel. @param chainDer its peer's, see engine/engine.ts. */
  constructor(guard: RevocationGuard, tunnel: ClientTunnel, chainDer: Uint8Array) {
    this.#tunnel = tunnel;
    this.#release = guard.watch({
      reporter: "source",
      chainDer,
      end: (cause) => this.#revoke(cause),
    });
  }

  get streamsMax(): number {
    return this.#tunnel.streamsMax;
  }

  get usable(): boolean {
    return this.#tunnel.usable;
  }

  /** @throws ProxyError `revoked` when that is why no answer comes. */
  async open(authority: string, headers: HeaderFields): Promise<TunnelAnswer> {
    try {
      return await this.#tunnel.open(authority, headers);
    } catch (error) {
      throw this.#cause ?? error;
    }
  }

  /**
   * The connection uses a stream of this tunnel from now on and ends when the peer is revoked.
   *
   * @param retell gives its error.
   * @returns the lease to release when it uses it no more, which releases the given one, too.
   */
  join(connection: Stoppable, lease: UpstreamLease, retell: Retell): UpstreamLease {
    if (this.#cause !== undefined) connection.stop("reset", retell(this.#cause));
    this.#members.set(connection, retell);
    return {
      release: () => {
        this.#members.delete(connection);
        lease.release();
      },
    };
  }

  close(): void {
    this.#tunnel.close();
  }

  destroy(): void {
    this.#tunnel.destroy();
  }

  onClosed(callback: TunnelClosed): void {
    this.#tunnel.onClosed((error, lostStreams) => {
      this.#release();
      callback(error, lostStreams);
    });
  }

  #revoke(cause: ProxyError): void {
    this.#cause = cause;
    for (const [connection, retell] of [...this.#members]) {
      connection.stop("reset", retell(cause));
    }
    this.#tunnel.destroy();
  }
}
