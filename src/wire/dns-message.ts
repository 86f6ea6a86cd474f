/**
 * DNS messages as far as their header and question go, for those who pass them on as the bytes that they
 * are. Queries are read in {@link file://./dns-query.ts}, answers written in
 * {@link file://./dns-answer.ts}.
 *
 * @see RFC 1035 section 4.
 */

/** RFC 1035 section 4.1.1 and RFC 2136. */
export const RCODE = { formatError: 1, serverFailure: 2, notImplemented: 4, refused: 5 } as const;

export const DNS_HEADER_BYTES = 12;
/** A record is at least a root name, type, class, time to live and length. */
export const DNS_RECORD_BYTES_MIN = 11;

/** Flag of a message that answers one. */
export const DNS_RESPONSE = 0x8000;
export const DNS_OPCODE = 0x7800;

/** Whether this is the beginning of a query; anything else deserves no answer at all. */
export function isDnsQuery(message: Uint8Array): boolean {
  return message.length >= DNS_HEADER_BYTES && (wordAt(message, 2) & DNS_RESPONSE) === 0;
}

/** Whether the message answers exactly this query: the same number, and the question if it says one. */
export function isDnsReply(message: Uint8Array, query: Uint8Array): boolean {
  if (message.length < DNS_HEADER_BYTES || (wordAt(message, 2) & DNS_RESPONSE) === 0) return false;
  if (wordAt(message, 0) !== wordAt(query, 0)) return false;
  if (wordAt(message, 4) !== 1 || wordAt(query, 4) !== 1) return true;
  for (let at = DNS_HEADER_BYTES; ; at++) {
    const wanted = query[at];
    if (wanted === undefined || !isSameLetter(message[at], wanted)) return false;
    // The zero that ends the name; then type and class.
    if (wanted === 0) return isSameBytes(message, query, at + 1, at + 5);
  }
}

/** What a reply of another server says. @param reply passed {@link isDnsReply}. */
export function readDnsOutcome(reply: Uint8Array): {
  readonly rcode: number;
  readonly answerCount: number;
} {
  return { rcode: wordAt(reply, 2) & 0xf, answerCount: wordAt(reply, 6) };
}

/** The same message for somebody who asked under another number. */
export function withIdOf(query: Uint8Array, reply: Uint8Array): Uint8Array {
  if (wordAt(query, 0) === wordAt(reply, 0)) return reply;
  const copy = Uint8Array.from(reply);
  copy.set(query.subarray(0, 2));
  return copy;
}

/** Two bytes, 0 beyond the end. */
export function wordAt(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

/** @param end not included. */
export function isSameBytes(a: Uint8Array, b: Uint8Array, from: number, end: number): boolean {
  for (let at = from; at < end; at++) if (a[at] !== b[at]) return false;
  return true;
}

function isSameLetter(a: number | undefined, b: number): boolean {
  return a !== undefined && (a === b || ((a ^ b) === 32 && isUpperCase(a & ~32)));
}

export function isUpperCase(byte: number): boolean {
  return byte >= 65 && byte <= 90;
}
