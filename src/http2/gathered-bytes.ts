/** Bytes of something that does not lie in one piece. */

/** Of so much memory the next use need not ask for again; a connection keeps no more. */
const KEPT_BYTES_MAX = 4096;

/** Less is not worth growing by. */
const CAPACITY_MIN = 256;

const EMPTY = Buffer.alloc(0);

export class GatheredBytes {
  #bytes: Buffer = EMPTY;
  #count = 0;

  /** The first {@link count} bytes count; valid until the next {@link add} or as long as it is held. */
  get bytes(): Buffer {
    return this.#bytes;
  }

  get count(): number {
    return this.#count;
  }

  add(bytes: Buffer, from: number, length: number): void {
    const count = this.#count + length;
    if (count > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(2 * count, CAPACITY_MIN));
      this.#bytes.copy(larger, 0, 0, this.#count);
      this.#bytes = larger;
    }
    bytes.copy(this.#bytes, this.#count, from, from + length);
    this.#count = count;
  }

  /** Starts anew; what {@link bytes} gave before may be used until the next {@link add}. */
  clear(): void {
    this.#count = 0;
    if (this.#bytes.length > KEPT_BYTES_MAX) this.#bytes = EMPTY;
  }
}
