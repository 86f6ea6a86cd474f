/**
 * Fields to header blocks, RFC 7541, in the manner of the original: every field enters the dynamic
 * table, so that repeated ones (method, authority, baggage) are one byte from the second block on,
 * and strings are Huffman coded unless that makes them longer.
 */
import { fieldBytes, HpackTable } from "./hpack-table.ts";
import { encodeHuffman, huffmanLength } from "./huffman.ts";
import { STATIC_COUNT, STATIC_FIELDS, STATIC_INDICES } from "./static-table.ts";

/** Our limit for the table, whatever more a peer offers: RFC 9113's default. */
const TABLE_BYTES_MAX = 4096;

/** A field above this share of the table would drive out all others for nothing. */
const FIELD_SHARE_MAX = 0.75;

/** Index of the newest field of the table. */
const DYNAMIC_INDEX_MIN = STATIC_COUNT + 1;

/** No integer of a block takes more bytes. */
const INTEGER_BYTES_MAX = 6;

export class HpackEncoder {
  readonly #table = new HpackTable(TABLE_BYTES_MAX);
  #block: Buffer = Buffer.allocUnsafe(512);
  #at = 0;
  /** The smallest limit since the last block; `undefined` when there is nothing to announce. */
  #announcedMin: number | undefined;

  /** Honours the peer's SETTINGS_HEADER_TABLE_SIZE from the next block on, bytes. */
  limitTable(peerBytesMax: number): void {
    const bytesMax = Math.min(peerBytesMax, TABLE_BYTES_MAX);
    if (bytesMax === this.#table.bytesMax) return;
    this.#announcedMin = Math.min(this.#announcedMin ?? bytesMax, bytesMax);
    this.#table.resize(bytesMax);
  }

  /** Starts a block. */
  begin(): void {
    this.#at = 0;
    if (this.#announcedMin === undefined) return;
    this.#reserve(2 * INTEGER_BYTES_MAX);
    // The peer must see the lowest point too: both tables were cut there. RFC 7541 section 4.2.
    const { bytesMax } = this.#table;
    if (this.#announcedMin < bytesMax) this.#integer(0x20, 0x1f, this.#announcedMin);
    this.#integer(0x20, 0x1f, bytesMax);
    this.#announcedMin = undefined;
  }

  /**
   * Adds a field to the block. Characters that a field must not have are replaced by `?`: a peer
   * would refuse them, or read something else.
   *
   * @param name lower case.
   */
  add(name: string, value: string): void {
    const found = this.#find(name, value);
    if (found > 0) {
      this.#reserve(INTEGER_BYTES_MAX);
      this.#integer(0x80, 0x7f, found);
      return;
    }
    // What the tables hold is clean.
    const text = FIELD_TEXT.test(value) ? value : cleaned(value);
    this.#reserve(3 * INTEGER_BYTES_MAX + name.length + text.length);
    const isKept = fieldBytes(name, text) <= this.#table.bytesMax * FIELD_SHARE_MAX;
    if (isKept) this.#integer(0x40, 0x3f, -found);
    else this.#integer(0x00, 0x0f, -found);
    if (found === 0) this.#string(name);
    this.#string(text);
    if (isKept) this.#table.add(name, text);
  }

  /** The block so far, in memory that the next block reuses. */
  end(): Uint8Array {
    return this.#block.subarray(0, this.#at);
  }

  /** The index of the field; the negative index of one with this name; 0. */
  #find(name: string, value: string): number {
    let named = 0;
    const first = STATIC_INDICES.get(name);
    if (first !== undefined) {
      named = -first;
      for (let index = first; index <= STATIC_COUNT; index++) {
        const field = STATIC_FIELDS[index - 1] as readonly [string, string];
        if (field[0] !== name) break;
        if (field[1] === value) return index;
      }
    }
    const position = this.#table.find(name, value);
    if (position === undefined) return named;
    if (position >= 0) return DYNAMIC_INDEX_MIN + position;
    return named === 0 ? -(DYNAMIC_INDEX_MIN + ~position) : named;
  }

  #string(text: string): void {
    const length = huffmanLength(text);
    if (length <= text.length && length > 0) {
      this.#integer(0x80, 0x7f, length);
      this.#at = encodeHuffman(text, this.#block, this.#at);
    } else {
      this.#integer(0x00, 0x7f, text.length);
      this.#at += this.#block.write(text, this.#at, "latin1");
    }
  }

  /** @param mask the bits of the first byte that belong to the number. */
  #integer(flags: number, mask: number, value: number): void {
    if (value < mask) {
      this.#block[this.#at++] = flags | value;
      return;
    }
    this.#block[this.#at++] = flags | mask;
    let rest = value - mask;
    for (; rest >= 0x80; rest >>>= 7) this.#block[this.#at++] = 0x80 | (rest & 0x7f);
    this.#block[this.#at++] = rest;
  }

  #reserve(byteCount: number): void {
    if (this.#at + byteCount <= this.#block.length) return;
    const larger = Buffer.allocUnsafe(2 * (this.#at + byteCount));
    larger.set(this.#block.subarray(0, this.#at));
    this.#block = larger;
  }
}

/** Visible characters, spaces, tabs and the upper half of Latin-1. RFC 9110 section 5.5. */
const FIELD_TEXT = /^[\t\x20-\x7e\x80-\xff]*$/;

function cleaned(value: string): string {
  return value.replace(/[^\t\x20-\x7e\x80-\xff]/g, "?");
}
