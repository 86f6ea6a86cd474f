/**
 * A walk through DER, for the few places in certificates that data threads look at: a whole X.509
 * library costs more memory than they have. It is total: nothing is thrown for whatever bytes.
 *
 * @see X.690 section 10.
 */

/** The element's own bytes begin at `at`; its contents are the bytes `start` ≤ i < `end`. */
export interface Element {
  readonly tag: number;
  readonly at: number;
  readonly start: number;
  readonly end: number;
}

/** The one element, when there is one alone and it has the tag. */
export function only(elements: readonly Element[] | undefined, tag: number): Element | undefined {
  return elements?.length === 1 && elements[0]?.tag === tag ? elements[0] : undefined;
}

/** What the contents of an element hold; see {@link children}. */
export function childrenOf(bytes: Uint8Array, parent: Element | undefined): Element[] | undefined {
  return parent === undefined ? undefined : children(bytes, parent.start, parent.end);
}

/** @returns `undefined` unless the bytes `start` ≤ i < `end` are filled exactly with well-formed elements. */
export function children(bytes: Uint8Array, start: number, end: number): Element[] | undefined {
  const found: Element[] = [];
  let at = start;
  while (at < end) {
    const element = elementAt(bytes, at, end);
    if (element === undefined) return undefined;
    found.push(element);
    at = element.end;
  }
  return found;
}

function elementAt(bytes: Uint8Array, at: number, limit: number): Element | undefined {
  const tag = bytes[at];
  const first = bytes[at + 1];
  // Tags of more than one byte do not occur in certificates.
  if (tag === undefined || first === undefined || (tag & 0x1f) === 0x1f) return undefined;
  let start = at + 2;
  let length = first;
  if (first >= 0x80) {
    const lengthBytes = first - 0x80;
    // 0x80 is an indefinite length, which DER has not; three bytes reach 16 MB.
    if (lengthBytes === 0 || lengthBytes > 3) return undefined;
    length = 0;
    for (let i = 0; i < lengthBytes; i++) length = length * 256 + (bytes[start + i] ?? 0);
    start += lengthBytes;
  }
  return start + length <= limit ? { tag, at, start, end: start + length } : undefined;
}
