/**
 * Certificates that will be wanted soon, fetched one after another, so that what is wanted now
 * always finds a free place at the authority.
 *
 * @see spec control-plane 5.7.
 */
import { formatSpiffeId, type Identity } from "../mesh/identity.ts";
import { errorText } from "../runtime/error-text.ts";
import type { Logger } from "../telemetry/logger.ts";

/** Identities that may wait; a node has fewer. */
const WAITING_MAX = 256;

export class PrefetchQueue {
  readonly #fetch: (identity: Identity) => Promise<unknown>;
  readonly #log: Logger;
  /** Key is the SPIFFE ID; in order of arrival. */
  readonly #waiting = new Map<string, Identity>();
  #running = false;
  #closed = false;

  /** @param deps.fetch resolves when the certificate is there; called with one identity at a time. */
  constructor(deps: {
    readonly fetch: (identity: Identity) => Promise<unknown>;
    readonly log: Logger;
  }) {
    this.#fetch = deps.fetch;
    this.#log = deps.log;
  }

  /** An identity that already waits keeps its place; one too many is dropped with a log line. */
  add(identity: Identity): void {
    const id = formatSpiffeId(identity);
    if (this.#waiting.size >= WAITING_MAX && !this.#waiting.has(id)) {
      this.#log.write("info", `couldn't prefetch: ${WAITING_MAX} identities wait`, [["id", id]]);
      return;
    }
    this.#waiting.set(id, identity);
    if (!this.#running) void this.#drain();
  }

  remove(isUnwanted: (identity: Identity) => boolean): void {
    for (const [id, identity] of this.#waiting) if (isUnwanted(identity)) this.#waiting.delete(id);
  }

  /** What waits is not fetched, and what is on its way fails unsaid. */
  close(): void {
    this.#closed = true;
    this.#waiting.clear();
  }

  /** Never rejects. */
  async #drain(): Promise<void> {
    this.#running = true;
    for (const [id, identity] of this.#waiting) {
      this.#waiting.delete(id);
      try {
        await this.#fetch(identity);
      } catch (error) {
        if (this.#closed) return;
        const reason = errorText(error);
        this.#log.write("error", `unable to prefetch cert for "${id}", skipping, ${reason}`);
      }
    }
    this.#running = false;
  }
}
