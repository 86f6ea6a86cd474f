export interface PendingTask {
  readonly task: string;
  /** For how long it has been pending, milliseconds. */
  readonly forMs: number;
}

/**
 * What must happen before this process is ready, by name.
 *
 * @see spec control-plane 7.4 for the names and the answer built from them.
 */
export class Readiness {
  readonly #pending = new Map<string, number>();
  readonly #changed: (task: string, readyAfterMs: number, pending: number) => void;
  readonly #monotonic: () => number;

  /**
   * @param monotonic milliseconds; the time until ready is counted from `await`.
   * @param changed called once each time a task becomes ready.
   */
  constructor(
    monotonic: () => number,
    changed: (task: string, readyAfterMs: number, pending: number) => void,
  ) {
    this.#monotonic = monotonic;
    this.#changed = changed;
  }

  /** From now on the process is not ready until {@link complete} names the same task. */
  await(task: string): void {
    if (!this.#pending.has(task)) this.#pending.set(task, this.#monotonic());
  }

  /** Idempotent. A task may become pending again later. */
  complete(task: string): void {
    const since = this.#pending.get(task);
    if (since === undefined) return;
    this.#pending.delete(task);
    this.#changed(task, this.#monotonic() - since, this.#pending.size);
  }

  /** What is still awaited, sorted by name. */
  pending(): readonly PendingTask[] {
    const now = this.#monotonic();
    return [...this.#pending]
      .map(([task, since]) => ({ task, forMs: now - since }))
      .sort((a, b) => (a.task < b.task ? -1 : 1));
  }
}
