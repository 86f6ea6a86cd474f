/**
 * HBONE tunnels shared by the connections of one workload's proxy.
 *
 * A key has at most one tunnel that takes more streams, or one dial for which all its requests wait.
 * A tunnel that once carried as many streams as it may is left out for good and closes with its last
 * stream, so n streams at once make ceil(n / limit) tunnels. Dials that fail are spaced out.
 *
 * @see spec data-path 3.5.
 */
import type { ClientTunnel, HeaderFields, TunnelAnswer } from "../engine/engine.ts";
import { EngineError } from "../engine/engine-error.ts";
import { ErrorCode } from "../http2/error-code.ts";
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import { formatSocketAddress } from "../mesh/socket-address.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import { DialBackoff } from "./dial-backoff.ts";
import {
  closeWhenUnused,
  type HboneTarget,
  type SharedTunnel,
  StreamLease,
} from "./shared-tunnel.ts";

/**
 * Streams that are on their way when the peer says that it takes none may be sent again, elsewhere
 * (RFC 9113 section 8.7). Each time others may be quicker.
 */
const REFUSED_RETRIES_MAX = 3;

/** One CONNECT that was answered. */
export interface PooledStream {
  readonly answer: TunnelAnswer;
  /** The one that was dialled. */
  readonly tunnel: ClientTunnel;
  /** Already released when the answer has no end. */
  readonly lease: StreamLease;
}

export interface HbonePoolDeps {
  /** Opens a new tunnel. What it throws is thrown to every request that waits for it. */
  dial(target: HboneTarget): Promise<ClientTunnel>;
  /** Told of each tunnel that did not end in order, and how many streams broke with it. */
  readonly lost?: (target: HboneTarget, error: EngineError, streamCount: number) => void;
  readonly clock: Clock;
}

export interface HbonePoolOptions {
  /** Streams of one tunnel at a time; the peer may allow fewer. At least 1. */
  readonly streamsPerConnectionMax: number;
  /** After its last request a tunnel takes no more once this long has passed. */
  readonly unusedReleaseMs: number;
  /** The longest time between two dials to a peer that fails, milliseconds. */
  readonly dialBackoffMaxMs: number;
  /** Tunnels that take more streams; beyond it the least recently used one is left out. */
  readonly connectionsMax: number;
}

export class HbonePool {
  readonly #deps: HbonePoolDeps;
  readonly #options: HbonePoolOptions;
  /** By key, the tunnels that take more streams; least recently used first. */
  readonly #pooled = new Map<string, SharedTunnel>();
  /** By key, the requests that wait for a dial. Never the key of a pooled tunnel. */
  readonly #dialling = new Map<string, WaitingRequest[]>();
  /** By whom the peer may be; connections mostly go where the last one went. */
  readonly #keys = new WeakMap<readonly Identity[], KnownKey>();
  /** Every tunnel that is not gone. */
  readonly #tunnels = new Set<SharedTunnel>();
  readonly #backoff: DialBackoff;
  /** Dials that wait for their time. */
  readonly #pauses = new Set<Timer>();
  #draining = false;
  #closed = false;

  constructor(deps: HbonePoolDeps, options: HbonePoolOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#backoff = new DialBackoff(deps.clock, options.dialBackoffMaxMs);
  }

  /**
   * Sends a CONNECT through a tunnel to the target, a new one if need be. A request that was sent and
   * failed is not repeated, unless the peer did not look at it: it had said GOAWAY or its limit of
   * streams while the request was on its way.
   *
   * @throws EngineError of the dial, or of {@link ClientTunnel.open}; `tunnel-closed` after `close`.
   */
  open(target: HboneTarget, authority: string, headers: HeaderFields): Promise<PooledStream> {
    return this.#request(target, { authority, headers, retries: REFUSED_RETRIES_MAX });
  }

  #request(target: HboneTarget, request: PoolRequest): Promise<PooledStream> {
    if (this.#closed) return Promise.reject(poolClosedError());
    const key = this.#keyOf(target);
    const waiting = this.#dialling.get(key);
    if (waiting === undefined) {
      const shared = this.#checkOut(key);
      if (shared !== undefined) return this.#send(shared, request);
    }
    return new Promise((resolve, reject) => {
      const one = { request, resolve, reject };
      if (waiting === undefined) this.#dialInTime(key, target, [one]);
      else waiting.push(one);
    });
  }

  /** Tunnels end with their last stream, idle ones now; those of further requests, too. Idempotent. */
  drain(): void {
    this.#draining = true;
    for (const shared of [...this.#pooled.values()]) this.#leaveOut(shared);
  }

  /** Ends idle tunnels in order, all others at once; waiting requests fail. Idempotent. */
  close(): void {
    this.#closed = true;
    const error = poolClosedError();
    for (const waiting of this.#dialling.values()) {
      for (const request of waiting.splice(0)) request.reject(error);
    }
    this.#backoff.close();
    for (const pause of this.#pauses) pause.cancel();
    for (const shared of this.#tunnels) {
      shared.unusedTimer?.cancel();
      if (shared.streamCount === 0) shared.tunnel.close();
      else shared.tunnel.destroy();
    }
    this.#pooled.clear();
  }

  #dialInTime(key: string, target: HboneTarget, waiting: WaitingRequest[]): void {
    this.#dialling.set(key, waiting);
    const delayMs = this.#backoff.delayMs(key);
    if (delayMs === 0) {
      void this.#serveByDial(key, target, waiting);
      return;
    }
    const pause = this.#deps.clock.after(delayMs, () => {
      this.#pauses.delete(pause);
      void this.#serveByDial(key, target, waiting);
    });
    this.#pauses.add(pause);
  }

  /** Dials until nobody waits, one tunnel at a time; a failure is everybody's. Never rejects. */
  async #serveByDial(key: string, target: HboneTarget, waiting: WaitingRequest[]): Promise<void> {
    while (waiting.length > 0) {
      let tunnel: ClientTunnel;
      try {
        tunnel = await this.#deps.dial(target);
      } catch (error) {
        if (!this.#closed) this.#backoff.failed(key);
        for (const request of waiting.splice(0)) request.reject(error);
        break;
      }
      if (this.#closed) {
        tunnel.destroy();
        break;
      }
      // The first request uses the new tunnel whatever became of it meanwhile: a peer that says
      // GOAWAY to every newcomer must not be dialled for ever.
      let shared: SharedTunnel | undefined = this.#adopt(key, target, tunnel);
      let served = 0;
      for (const { request, resolve } of waiting) {
        if (shared === undefined) break;
        resolve(this.#send(shared, request));
        served++;
        shared = this.#checkOut(key);
      }
      waiting.splice(0, served);
    }
    this.#dialling.delete(key);
  }

  #keyOf(target: HboneTarget): string {
    const { source, sourceIp, expected, destinationUid, remote } = target;
    const known = this.#keys.get(expected);
    if (
      known !== undefined &&
      known.target.source === source &&
      known.target.sourceIp === sourceIp &&
      known.target.destinationUid === destinationUid &&
      known.target.remote.ip === remote.ip &&
      known.target.remote.port === remote.port
    ) {
      return known.key;
    }
    const key = poolKey(target);
    this.#keys.set(expected, { target, key });
    return key;
  }

  #adopt(key: string, target: HboneTarget, tunnel: ClientTunnel): SharedTunnel {
    this.#leaveOutFormerOwners(target);
    const shared: SharedTunnel = {
      key,
      target,
      tunnel,
      streamCount: 0,
      wasAnswered: false,
      isPooled: false,
      usedAt: 0,
      unusedTimer: undefined,
    };
    this.#tunnels.add(shared);
    tunnel.onClosed((error, lostStreams) => {
      this.#tunnels.delete(shared);
      this.#leaveOut(shared);
      if (!shared.wasAnswered && !this.#closed) this.#backoff.failed(key);
      if (error !== undefined) this.#deps.lost?.(target, error, lostStreams);
    });
    return shared;
  }

  /** The address has another owner now: idle tunnels to the one before are not kept. */
  #leaveOutFormerOwners({ destinationUid, remote }: HboneTarget): void {
    for (const shared of this.#pooled.values()) {
      const { target } = shared;
      const isThere = target.remote.ip === remote.ip && target.remote.port === remote.port;
      if (isThere && target.destinationUid !== destinationUid) this.#leaveOut(shared);
    }
  }

  /** The key's tunnel if it still takes a stream; one that does not is left out. */
  #checkOut(key: string): SharedTunnel | undefined {
    const shared = this.#pooled.get(key);
    if (shared === undefined) return undefined;
    // The peer may have lowered its limit since the last request.
    const isFull = shared.streamCount > 0 && shared.streamCount >= this.#streamsMax(shared.tunnel);
    if (shared.tunnel.usable && !isFull) return shared;
    this.#leaveOut(shared);
    return undefined;
  }

  /** The request leaves before this returns, so that nothing comes between it and the check. */
  async #send(shared: SharedTunnel, request: PoolRequest): Promise<PooledStream> {
    const { authority, headers, retries } = request;
    const lease = new StreamLease(shared);
    this.#checkIn(shared);
    try {
      const answer = await shared.tunnel.open(authority, headers);
      if (!shared.wasAnswered) this.#backoff.succeeded(shared.key);
      shared.wasAnswered = true;
      if (answer.end === undefined) lease.release();
      return { answer, tunnel: shared.tunnel, lease };
    } catch (error) {
      lease.release();
      if (retries === 0 || !isRefused(error) || !this.#isSpent(shared)) throw error;
      return this.#request(shared.target, { ...request, retries: retries - 1 });
    }
  }

  /** It takes no more streams for now. */
  #isSpent({ tunnel, streamCount }: SharedTunnel): boolean {
    return !tunnel.usable || streamCount >= this.#streamsMax(tunnel);
  }

  /**
   * Pools the tunnel as the most recently used one, unless it has as many streams as it may or this is
   * the end.
   */
  #checkIn(shared: SharedTunnel): void {
    const { key, tunnel } = shared;
    this.#pooled.delete(key);
    shared.isPooled = !this.#draining && shared.streamCount < this.#streamsMax(tunnel);
    if (!shared.isPooled) {
      shared.unusedTimer?.cancel();
      shared.unusedTimer = undefined;
      return;
    }
    this.#pooled.set(key, shared);
    shared.usedAt = this.#deps.clock.monotonic();
    shared.unusedTimer ??= this.#releaseUnused(shared, this.#options.unusedReleaseMs);
    if (this.#pooled.size > this.#options.connectionsMax) {
      for (const oldest of this.#pooled.values()) {
        this.#leaveOut(oldest);
        break;
      }
    }
  }

  /** One timer for any number of requests: it looks how long ago the last one was. */
  #releaseUnused(shared: SharedTunnel, delayMs: number): Timer {
    const { clock } = this.#deps;
    return clock.after(delayMs, () => {
      const restMs = shared.usedAt + this.#options.unusedReleaseMs - clock.monotonic();
      if (restMs > 0) shared.unusedTimer = this.#releaseUnused(shared, restMs);
      else this.#leaveOut(shared);
    });
  }

  /** No more requests go here; streams that run go on. */
  #leaveOut(shared: SharedTunnel): void {
    if (shared.isPooled) this.#pooled.delete(shared.key);
    shared.isPooled = false;
    shared.unusedTimer?.cancel();
    shared.unusedTimer = undefined;
    closeWhenUnused(shared);
  }

  #streamsMax(tunnel: ClientTunnel): number {
    return Math.min(this.#options.streamsPerConnectionMax, tunnel.streamsMax);
  }
}

interface KnownKey {
  readonly target: HboneTarget;
  readonly key: string;
}

interface PoolRequest {
  readonly authority: string;
  readonly headers: HeaderFields;
  /** How often it may still be sent again. */
  readonly retries: number;
}

interface WaitingRequest {
  readonly request: PoolRequest;
  readonly resolve: (stream: Promise<PooledStream>) => void;
  readonly reject: (error: unknown) => void;
}

/** Identities contain a fixed number of slashes, so no two targets have the same text. */
function poolKey(target: HboneTarget): string {
  const expected = target.expected.map(formatSpiffeId).join(",");
  const source = formatSpiffeId(target.source);
  const remote = formatSocketAddress(target.remote);
  return `${target.sourceIp} ${remote} ${source} ${expected} ${target.destinationUid}`;
}

function isRefused(error: unknown): boolean {
  return error instanceof EngineError && error.http2Code === ErrorCode.refusedStream;
}

function poolClosedError(): EngineError {
  return new EngineError("tunnel-closed", "connection pool is closed");
}
