/** What a component must see the end of before it has drained. */
import type { ProxyError } from "./proxy-error.ts";

export interface Stoppable {
  /** Ends it soon, with the cause in its report; `close` as EOF, `reset` as RST. Idempotent. */
  stop(how: "close" | "reset", cause: ProxyError): void;
}

export class LiveSet<T extends Stoppable> implements Iterable<T> {
  readonly #members = new Set<T>();
  #emptied: (() => void)[] = [];

  [Symbol.iterator](): Iterator<T> {
    return this.#members.values();
  }

  get isEmpty(): boolean {
    return this.#members.size === 0;
  }

  add(member: T): void {
    this.#members.add(member);
  }

  delete(member: T): void {
    if (!this.#members.delete(member) || this.#members.size > 0) return;
    const emptied = this.#emptied;
    this.#emptied = [];
    for (const tell of emptied) tell();
  }

  /** Resolves when the last member is gone; at once when there is none. */
  whenEmpty(): Promise<void> {
    if (this.isEmpty) return Promise.resolve();
    return new Promise((resolve) => this.#emptied.push(resolve));
  }

  stopAll(how: "close" | "reset", cause: ProxyError): void {
    for (const member of [...this.#members]) member.stop(how, cause);
  }
}
