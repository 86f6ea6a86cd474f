/**
 * Notices that a small file has other content: written in place, replaced, or behind a symbolic link
 * that was switched, as Kubernetes does with mounted secrets. It looks every now and then, which
 * survives everything that makes change notifications go missing.
 */
import { readFile } from "node:fs/promises";
import type { Clock, Timer } from "./clock.ts";

export interface FileWatchOptions {
  readonly path: string;
  readonly everyMs: number;
}

export class FileWatch {
  /** What was there when it was opened, or why that can't be read. */
  readonly first: Buffer | Error;
  readonly #clock: Clock;
  readonly #changed: (content: Buffer) => void;
  readonly #options: FileWatchOptions;
  #content: Buffer | undefined;
  #timer: Timer | undefined;
  #closed = false;

  private constructor(
    clock: Clock,
    changed: (content: Buffer) => void,
    options: FileWatchOptions,
    first: Buffer | Error,
  ) {
    this.first = first;
    this.#clock = clock;
    this.#changed = changed;
    this.#options = options;
    this.#content = first instanceof Error ? undefined : first;
    this.#lookLater();
  }

  /**
   * Settles when the file was looked at once; never rejects.
   *
   * @param changed gets what differs from the content before, or comes late. A file that is gone has
   *   not changed.
   */
  static async open(
    clock: Clock,
    changed: (content: Buffer) => void,
    options: FileWatchOptions,
  ): Promise<FileWatch> {
    const first = await readFile(options.path).catch((error: Error) => error);
    return new FileWatch(clock, changed, options, first);
  }

  /** Idempotent. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  #lookLater(): void {
    this.#timer = this.#clock.after(this.#options.everyMs, () => void this.#look());
  }

  async #look(): Promise<void> {
    const content = await readFile(this.#options.path).catch(() => undefined);
    if (this.#closed) return;
    this.#lookLater();
    if (content === undefined || this.#content?.equals(content) === true) return;
    this.#content = content;
    this.#changed(content);
  }
}
