/**
 * The Huffman code of header strings, RFC 7541 section 5.2 and appendix B.
 *
 * The code is canonical: it follows from the lengths alone. Decoding walks four bits a step through
 * a table of 256 states, the inner nodes of the code's tree.
 */

/** Bits of the code of each byte; the end-of-string symbol has 30. Appendix B. */
// biome-ignore format: sixteen to a line
const LENGTHS: Uint8Array = Uint8Array.of(
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
);

const END_OF_STRING = 256;
const END_OF_STRING_BITS = 30;
/** Padding is shorter than a byte and made of the first bits of the end-of-string code: ones. */
const PADDING_BITS_MAX = 7;

/** A step of the decoder: next state in the low byte, symbol above it, then these. */
const EMIT = 1 << 16;
const MAY_END = 1 << 17;
const FAIL = 1 << 18;

const CODES = canonicalCodes();
const STEPS = decoderSteps(CODES);

/** Bytes that a text of Latin-1 characters takes when encoded. */
export function huffmanLength(text: string): number {
  let bitCount = 0;
  for (let i = 0; i < text.length; i++) bitCount += LENGTHS[text.charCodeAt(i)] as number;
  return (bitCount + 7) >> 3;
}

/**
 * Encodes a text of Latin-1 characters.
 *
 * @param into has {@link huffmanLength} bytes of room at `offset`.
 * @returns the offset behind the last byte.
 */
export function encodeHuffman(text: string, into: Uint8Array, offset: number): number {
  let at = offset;
  let pending = 0;
  let pendingBits = 0;
  for (let i = 0; i < text.length; i++) {
    const byte = text.charCodeAt(i);
    let code = CODES[byte] as number;
    let bitCount = LENGTHS[byte] as number;
    if (bitCount > 16) {
      // Seven bits left over and thirty new ones do not fit into a word.
      bitCount -= 16;
      pending = (pending << bitCount) | (code >>> 16);
      pendingBits += bitCount;
      while (pendingBits >= 8) {
        pendingBits -= 8;
        into[at++] = pending >>> pendingBits;
      }
      pending &= (1 << pendingBits) - 1;
      code &= 0xffff;
      bitCount = 16;
    }
    pending = (pending << bitCount) | code;
    pendingBits += bitCount;
    while (pendingBits >= 8) {
      pendingBits -= 8;
      into[at++] = pending >>> pendingBits;
    }
    pending &= (1 << pendingBits) - 1;
  }
  if (pendingBits > 0) {
    const paddingBits = 8 - pendingBits;
    into[at++] = (pending << paddingBits) | ((1 << paddingBits) - 1);
  }
  return at;
}

/**
 * Decodes `length` bytes.
 *
 * @param into has room for 8/5 of them; no code is shorter than five bits.
 * @returns how many bytes came out; `undefined` when the padding is wrong, too long, or the
 *   end-of-string symbol occurs.
 */
export function decodeHuffman(
  bytes: Uint8Array,
  offset: number,
  length: number,
  into: Uint8Array,
): number | undefined {
  let step = MAY_END;
  let count = 0;
  for (let at = offset; at < offset + length; at++) {
    const byte = bytes[at] as number;
    step = STEPS[((step & 0xff) << 4) | (byte >> 4)] as number;
    if ((step & EMIT) !== 0) into[count++] = step >> 8;
    if ((step & FAIL) !== 0) return undefined;
    step = STEPS[((step & 0xff) << 4) | (byte & 0xf)] as number;
    if ((step & EMIT) !== 0) into[count++] = step >> 8;
    if ((step & FAIL) !== 0) return undefined;
  }
  return (step & MAY_END) === 0 ? undefined : count;
}

/** Codes by symbol: shorter ones first, among equals in the order of the symbols. */
function canonicalCodes(): Uint32Array {
  const codes = new Uint32Array(END_OF_STRING + 1);
  let code = 0;
  for (let bitCount = 5; bitCount <= END_OF_STRING_BITS; bitCount++) {
    code <<= 1;
    for (let symbol = 0; symbol <= END_OF_STRING; symbol++) {
      if (lengthOf(symbol) === bitCount) codes[symbol] = code++;
    }
  }
  return codes;
}

function lengthOf(symbol: number): number {
  return symbol === END_OF_STRING ? END_OF_STRING_BITS : (LENGTHS[symbol] as number);
}

function decoderSteps(codes: Uint32Array): Int32Array {
  // Child of node n for bit b at 2n + b: an inner node's number, or the complement of a symbol.
  const children = new Int16Array(2 * 256);
  let nodeCount = 1;
  for (let symbol = 0; symbol <= END_OF_STRING; symbol++) {
    let node = 0;
    for (let bit = lengthOf(symbol) - 1; bit > 0; bit--) {
      const edge = 2 * node + (((codes[symbol] as number) >>> bit) & 1);
      if (children[edge] === 0) children[edge] = nodeCount++;
      node = children[edge] as number;
    }
    children[2 * node + ((codes[symbol] as number) & 1)] = ~symbol;
  }
  const mayEnd = new Set([0]);
  for (let node = 0, i = 0; i < PADDING_BITS_MAX; i++) {
    node = children[2 * node + 1] as number;
    mayEnd.add(node);
  }
  const steps = new Int32Array(256 * 16);
  for (let state = 0; state < 256; state++) {
    for (let bits = 0; bits < 16; bits++) {
      let node = state;
      let step = 0;
      for (let bit = 3; bit >= 0; bit--) {
        node = children[2 * node + ((bits >> bit) & 1)] as number;
        if (node >= 0) continue;
        const symbol = ~node;
        step |= symbol === END_OF_STRING ? FAIL : EMIT | (symbol << 8);
        node = 0;
      }
      steps[(state << 4) | bits] = step | node | (mayEnd.has(node) ? MAY_END : 0);
    }
  }
  return steps;
}
