/**
 * How much of what costs us and brings nothing a peer may send: for each kind a bucket that starts
 * full and refills with time. Limits on bytes and counts within one frame stand where they are
 * read; the bytes that wait for a peer who does not read are bounded by who owns the socket
 * (CVE-2019-9517 internal data buffering).
 */

export interface FloodLimit {
  /** At once. */
  readonly burst: number;
  /** For ever. */
  readonly perSecond: number;
  /** The published attack, in the words of the failure's message. */
  readonly attack: string;
}

export type FloodKind =
  | "settings"
  | "ping"
  | "unansweredReset"
  | "provokedReset"
  | "emptyData"
  | "ignored"
  | "smallWindow";

export const FLOOD_LIMITS: Readonly<Record<FloodKind, FloodLimit>> = {
  /** Each costs an answer and a walk over all streams; peers send one, now and then another. */
  settings: { burst: 64, perSecond: 4, attack: "settings flood (CVE-2019-9515)" },
  /** Each costs an answer. Peers that estimate bandwidth ask once a round trip, while data flows. */
  ping: { burst: 1000, perSecond: 100, attack: "ping flood (CVE-2019-9512)" },
  /**
   * Requests taken back before their answer: work for a policy check and a connect that no limit of
   * concurrent streams holds. Applications that give up early do so too, hence the room: five times
   * the streams of a tunnel.
   */
  unansweredReset: { burst: 1000, perSecond: 200, attack: "rapid reset (CVE-2023-44487)" },
  /** Frames that break a rule of their stream, which we answer. Good peers have no reason to. */
  provokedReset: {
    burst: 1000,
    perSecond: 20,
    attack: "resets provoked by bad frames (CVE-2019-9514, CVE-2025-8671)",
  },
  /** DATA without payload or end. */
  emptyData: { burst: 100, perSecond: 10, attack: "empty frames flood (CVE-2019-9518)" },
  /** PRIORITY, which old clients send a few times a stream; unknown types, interim answers, GOAWAY. */
  ignored: { burst: 1000, perSecond: 100, attack: "priority flood (CVE-2019-9513)" },
  /** Window increments below a kilobyte, which cut what we send into crumbs. */
  smallWindow: { burst: 10_000, perSecond: 1000, attack: "window dribble (CVE-2019-9511)" },
};

interface Bucket {
  left: number;
  at: number;
}

export class FloodGauge {
  readonly #share: number;
  readonly #buckets = new Map<FloodKind, Bucket>();
  #now = 0;

  /** @param percent of the limits that is granted. */
  constructor(percent = 100) {
    this.#share = percent / 100;
  }

  /** @param now monotonic milliseconds. */
  advance(now: number): void {
    this.#now = now;
  }

  /** Takes one of a kind. @returns false when the peer has used up its allowance. */
  charge(kind: FloodKind): boolean {
    const now = this.#now;
    const burst = FLOOD_LIMITS[kind].burst * this.#share;
    const perSecond = FLOOD_LIMITS[kind].perSecond * this.#share;
    let bucket = this.#buckets.get(kind);
    if (bucket === undefined) {
      bucket = { left: burst, at: now };
      this.#buckets.set(kind, bucket);
    }
    bucket.left = Math.min(burst, bucket.left + ((now - bucket.at) * perSecond) / 1000);
    bucket.at = now;
    if (bucket.left < 1) return false;
    bucket.left -= 1;
    return true;
  }
}
