/** What a peer has received: how much, a digest of it, and who waits for more. */
import { createHash } from "node:crypto";

export class ReceivedBytes {
  readonly #hash = createHash("sha256");
  #count = 0;
  #watchers: (() => void)[] = [];

  get count(): number {
    return this.#count;
  }

  add(bytes: Uint8Array): void {
    this.#count += bytes.length;
    this.#hash.update(bytes);
    for (const watcher of this.#watchers) watcher();
  }

  /** Resolves when that much has come in all. */
  reached(count: number): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (this.#count < count) return;
        this.#watchers = this.#watchers.filter((watcher) => watcher !== look);
        resolve();
      };
      this.#watchers.push(look);
      look();
    });
  }

  /** Call once. */
  digest(): string {
    return this.#hash.digest("hex");
  }
}
