/**
 * The file of revocation lists: looked at again and again, so that it may come late, be written in
 * place, or lie behind the links that Kubernetes switches.
 *
 * @see spec control-plane 5.10.
 */
import { readFile } from "node:fs/promises";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import { parseRevocationLists, type RevocationList } from "../tls/revocation-list.ts";

/** A revocation takes effect within so long. */
const LOOK_EVERY_MS = 2000;

export interface RevocationFileDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Told of the first good content, and of each further one. */
  readonly changed: (lists: readonly RevocationList[]) => void;
}

export class RevocationFile {
  readonly #deps: RevocationFileDeps;
  readonly #path: string;
  /** Good or bad, as it was last read. */
  #content: Buffer | undefined;
  #hasLists = false;
  #timer: Timer | undefined;
  #closed = false;

  private constructor(deps: RevocationFileDeps, path: string) {
    this.#deps = deps;
    this.#path = path;
  }

  /** Settles when the file was looked at once. Never rejects: without lists nobody is revoked. */
  static async open(deps: RevocationFileDeps, path: string): Promise<RevocationFile> {
    const file = new RevocationFile(deps, path);
    await file.#look((error) =>
      deps.log.write(
        "warn",
        `can't read the certificate revocation lists: ${error.message}; nobody is revoked until they are there`,
      ),
    );
    return file;
  }

  /** Idempotent. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** A file that is gone has not changed: whoever wants no revocations empties it. Never rejects. */
  async #look(unreadable: (error: Error) => void): Promise<void> {
    try {
      const content = await readFile(this.#path);
      if (!this.#closed && this.#content?.equals(content) !== true) this.#take(content);
    } catch (error) {
      unreadable(error as Error);
    }
    if (this.#closed) return;
    this.#timer = this.#deps.clock.after(LOOK_EVERY_MS, () => void this.#look(() => {}));
  }

  #take(content: Buffer): void {
    const { changed, log } = this.#deps;
    this.#content = content;
    let lists: readonly RevocationList[];
    try {
      lists = parseRevocationLists(content);
    } catch (error) {
      const consequence = this.#hasLists ? "keeping the former ones" : "nobody is revoked";
      log.write("warn", `${this.#path}: ${(error as Error).message}; ${consequence}`);
      return;
    }
    this.#hasLists = true;
    const count = lists.reduce((sum, { serials }) => sum + serials.count, 0);
    log.write("info", `${lists.length} certificate revocation lists name ${count} certificates`);
    changed(lists);
  }
}
