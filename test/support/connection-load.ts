/** A steady stream of short connections, each with one message there and back. */
import { connectFrom } from "./lab-application.ts";
import type { MeshLab } from "./mesh-lab.ts";
import { ADDRESS, APP_PORT, pingPong } from "./two-nodes.ts";

export interface LoadPath {
  readonly from: string;
  readonly to: keyof typeof ADDRESS;
}

export interface LoadResult {
  readonly count: number;
  /** Per second, while it ran. */
  readonly rate: number;
  /** What clients saw instead of their message, with the second in which they began. */
  readonly failures: readonly string[];
}

/** Sends at its own pace: an answer that is late does not hold up the next connection. */
export class ConnectionLoad {
  readonly #lab: MeshLab;
  readonly #path: LoadPath;
  readonly #perSecond: number;
  readonly #startedAt = performance.now();
  readonly #timer: NodeJS.Timeout;
  readonly #running = new Set<Promise<void>>();
  readonly #failures: string[] = [];
  #count = 0;

  /** Starts at once. Echo servers listen on {@link APP_PORT}. */
  constructor(lab: MeshLab, path: LoadPath, perSecond: number) {
    this.#lab = lab;
    this.#path = path;
    this.#perSecond = perSecond;
    this.#timer = setInterval(() => this.#catchUp(), 5);
  }

  get count(): number {
    return this.#count;
  }

  /** Those that have ended well so far. */
  get successCount(): number {
    return this.#count - this.#failures.length - this.#running.size;
  }

  get failures(): readonly string[] {
    return this.#failures;
  }

  /** Settles when the last connection has ended. */
  async stop(): Promise<LoadResult> {
    clearInterval(this.#timer);
    const rate = (this.#count * 1000) / (performance.now() - this.#startedAt);
    await Promise.all(this.#running);
    return { count: this.#count, rate, failures: this.#failures };
  }

  #catchUp(): void {
    const elapsedMs = performance.now() - this.#startedAt;
    const due = Math.floor((elapsedMs / 1000) * this.#perSecond) - this.#count;
    // After a pause of this process the rest is not made up for: that would be a burst.
    for (let i = 0; i < Math.min(due, 20); i++) this.#begin();
  }

  #begin(): void {
    const second = ((performance.now() - this.#startedAt) / 1000).toFixed(2);
    this.#count++;
    const one = this.#talk()
      .catch((error: NodeJS.ErrnoException) => {
        this.#failures.push(`${second} s: ${error.code ?? error.message}`);
      })
      .finally(() => this.#running.delete(one));
    this.#running.add(one);
  }

  async #talk(): Promise<void> {
    const { from, to } = this.#path;
    const socket = await connectFrom(this.#lab.host(from), ADDRESS[to], APP_PORT);
    try {
      await pingPong(socket);
    } finally {
      socket.destroy();
    }
  }
}
