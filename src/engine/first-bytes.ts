/** The bytes that somebody waits for before an end is relayed. */
import { EngineError } from "./engine-error.ts";

export class FirstBytes {
  readonly arrived: Promise<Uint8Array>;
  readonly #bytes: Uint8Array;
  readonly #settle: PromiseWithResolvers<Uint8Array>;
  #count = 0;

  constructor(byteCount: number) {
    this.#bytes = new Uint8Array(byteCount);
    this.#settle = Promise.withResolvers<Uint8Array>();
    this.arrived = this.#settle.promise;
  }

  /** How many more are to be read. */
  get missing(): number {
    return this.#bytes.length - this.#count;
  }

  /** @param bytes copied; at most the missing ones. */
  take(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#count);
    this.#count += bytes.length;
    if (this.missing === 0) this.#settle.resolve(this.#bytes);
  }

  /** @param error `undefined`: the peer stopped, or the end was closed. */
  fail(error: EngineError | undefined): void {
    this.#settle.reject(error ?? new EngineError("disconnected", "early eof"));
  }
}
