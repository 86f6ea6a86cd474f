/**
 * Read buffers of all sockets of one engine.
 *
 * A quiet socket owns no memory: it reads into {@link BufferPool.shared}, which is free again when
 * its read callback returns, so what came is copied out. A busy socket reads into buffers of its
 * own, which go from the read to the write on the other side without a copy and come back when
 * they are written.
 */
export class BufferPool {
  /** One for all sockets: a read is followed by its callback before the next read. */
  readonly shared: Buffer;
  readonly #bufferBytes: number;
  readonly #idleMax: number;
  readonly #idle: Buffer[] = [];

  /** @param options `idleMax` buffers are kept for reuse, the others go to the garbage collector. */
  constructor(options: { readonly bufferBytes: number; readonly idleMax: number }) {
    this.#bufferBytes = options.bufferBytes;
    this.#idleMax = options.idleMax;
    this.shared = Buffer.allocUnsafeSlow(options.bufferBytes);
  }

  /** A buffer with anything in it; the caller owns it until {@link give}. */
  take(): Buffer {
    return this.#idle.pop() ?? Buffer.allocUnsafeSlow(this.#bufferBytes);
  }

  /** Takes a buffer of {@link take} back; nobody may hold a part of it any more. */
  give(buffer: Buffer): void {
    if (this.#idle.length < this.#idleMax) this.#idle.push(buffer);
  }
}
