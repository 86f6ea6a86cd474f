/**
 * DNS messages on a TCP connection: each has its length before it, and may come in any pieces.
 *
 * @see RFC 1035 section 4.2.2, RFC 7766.
 */

const LENGTH_BYTES = 2;

export class MessageStream {
  /** What came of a message that is not whole yet: at most its 65537 bytes. */
  #rest: Buffer = Buffer.alloc(0);

  /** @returns the messages that are whole now; they may be empty. */
  take(chunk: Buffer): readonly Buffer[] {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const messages: Buffer[] = [];
    let at = 0;
    while (bytes.length - at >= LENGTH_BYTES) {
      const end = at + LENGTH_BYTES + bytes.readUInt16BE(at);
      if (end > bytes.length) break;
      messages.push(bytes.subarray(at + LENGTH_BYTES, end));
      at = end;
    }
    this.#rest = bytes.subarray(at);
    return messages;
  }
}

/** @param message of at most 65535 bytes. */
export function framed(message: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(LENGTH_BYTES + message.length);
  bytes.writeUInt16BE(message.length, 0);
  bytes.set(message, LENGTH_BYTES);
  return bytes;
}
