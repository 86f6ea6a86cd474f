/** A steady stream of short connections, each with one message there and back. */
import { setTimeout as delay } from "node:timers/promises";
import { connectFrom } from "./lab-application.ts";
import type { MeshLab } from "./mesh-lab.ts";
import { APP_PORT, pingPong } from "./two-nodes.ts";

const TICK_MS = 5;
/** What a pause of this process has held up begins in pieces of that size. */
const AT_ONCE_MAX = 20;

export interface LoadPath {
  /** Name of a host. */
  readonly from: string;
  readonly ip: string;
}

export interface LoadResult {
  /** How many were begun: as many as were due. */
  readonly count: number;
  readonly failures: readonly string[];
}

/**
 * Connections begin by the clock, whatever becomes of those before them. One that this process was too
 * busy to begin in time begins late: none is left out.
 */
export class ConnectionLoad {
  readonly #lab: MeshLab;
  readonly #path: LoadPath;
  readonly #perSecond: number;
  readonly #startedAt = performance.now();
  #stoppedAt: number | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #running = new Set<Promise<void>>();
  readonly #failures: string[] = [];
  #count = 0;

  /** Starts at once. Echo servers listen on {@link APP_PORT}. */
  constructor(lab: MeshLab, path: LoadPath, perSecond: number) {
    this.#lab = lab;
    this.#path = path;
    this.#perSecond = perSecond;
    this.#timer = setInterval(() => this.#catchUp(), TICK_MS);
  }

  get count(): number {
    return this.#count;
  }

  /** Those that have ended well so far. */
  get successCount(): number {
    return this.#count - this.#failures.length - this.#running.size;
  }

  /** What clients saw instead of their message, with the second in which they began. */
  get failures(): readonly string[] {
    return this.#failures;
  }

  /** Settles when all that are due by now have begun and ended. Idempotent. */
  async stop(): Promise<LoadResult> {
    this.#stoppedAt ??= performance.now();
    while (this.#dueCount > this.#count) await delay(TICK_MS);
    clearInterval(this.#timer);
    await Promise.all(this.#running);
    return { count: this.#count, failures: this.#failures };
  }

  get #dueCount(): number {
    const elapsedMs = (this.#stoppedAt ?? performance.now()) - this.#startedAt;
    return Math.floor((elapsedMs / 1000) * this.#perSecond);
  }

  #catchUp(): void {
    const late = this.#dueCount - this.#count;
    for (let i = 0; i < Math.min(late, AT_ONCE_MAX); i++) this.#begin();
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
    const { from, ip } = this.#path;
    const socket = await connectFrom(this.#lab.host(from), ip, APP_PORT);
    try {
      await pingPong(socket);
    } finally {
      socket.destroy();
    }
  }
}
