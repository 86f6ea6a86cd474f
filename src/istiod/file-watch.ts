/**
 * Notices that a small file has other content: written in place, replaced, or behind a symbolic link
 * that was switched, as Kubernetes does with mounted secrets.
 */
import { readFile } from "node:fs/promises";
import type { Clock, Timer } from "../runtime/clock.ts";

/** Looks every now and then: it survives everything that makes change notifications go missing. */
export class FileWatch {
  readonly #clock: Clock;
  readonly #path: string;
  readonly #everyMs: number;
  readonly #changed: () => void;
  #content: Buffer | undefined;
  #timer: Timer | undefined;
  #closed = false;

  /** @param changed called after each change; a file that can't be read has not changed. */
  constructor(
    clock: Clock,
    changed: () => void,
    options: { readonly path: string; readonly everyMs: number },
  ) {
    this.#clock = clock;
    this.#changed = changed;
    this.#path = options.path;
    this.#everyMs = options.everyMs;
    void this.#look();
  }

  /** Idempotent. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  async #look(): Promise<void> {
    const content = await readFile(this.#path).catch(() => undefined);
    if (this.#closed) return;
    const previous = this.#content;
    if (content !== undefined) this.#content = content;
    this.#timer = this.#clock.after(this.#everyMs, () => void this.#look());
    if (content !== undefined && previous !== undefined && !content.equals(previous)) {
      this.#changed();
    }
  }
}
