/**
 * Header blocks of a peer to fields, RFC 7541. One for each connection, for its whole life: the
 * dynamic table is shared by all blocks.
 */
import { fieldBytes, HpackTable } from "./hpack-table.ts";
import { Http2Error } from "./http2-error.ts";
import { decodeHuffman } from "./huffman.ts";
import { STATIC_COUNT, STATIC_FIELDS } from "./static-table.ts";

/** SETTINGS_HEADER_TABLE_SIZE, ours: the default that needs no announcement. RFC 9113 section 6.5.2. */
const TABLE_BYTES_MAX = 4096;

/** Integers stay below 2^28: more than any block has bytes. */
const INTEGER_SHIFT_MAX = 21;

/** First bits of a field's representation, RFC 7541 section 6. */
const INDEXED = 0x80;
const LITERAL_INDEXED = 0x40;
const SIZE_UPDATE = 0x20;

/** First bit of a string: it is Huffman coded. */
const HUFFMAN = 0x80;

export class HpackDecoder {
  readonly #table = new HpackTable(TABLE_BYTES_MAX);
  #text: Buffer = Buffer.alloc(256);
  #bytes: Buffer = this.#text;
  #at = 0;
  #end = 0;
  /** Of the representation that is being read. */
  #name = "";

  /**
   * Decodes one whole block.
   *
   * @param listBytesMax limit of the decoded list, 32 bytes a field beyond its strings.
   * @returns name, value, name, value …, one character a byte; `undefined` when the list is above
   *   the limit: the block was read to its end, so that later ones can be.
   * @throws Http2Error `compression`; no further block can be decoded after it.
   */
  decode(
    bytes: Buffer,
    offset: number,
    length: number,
    listBytesMax: number,
  ): readonly string[] | undefined {
    this.#bytes = bytes;
    this.#at = offset;
    this.#end = offset + length;
    const fields: string[] = [];
    let listBytes = 0;
    let mayResize = true;
    while (this.#at < this.#end) {
      const first = bytes[this.#at] as number;
      if ((first & (INDEXED | LITERAL_INDEXED | SIZE_UPDATE)) === SIZE_UPDATE) {
        if (!mayResize) throw new Http2Error("compression", "table size update behind a field");
        this.#resize();
        continue;
      }
      mayResize = false;
      const value = this.#field(first);
      listBytes += fieldBytes(this.#name, value);
      if (listBytes <= listBytesMax) fields.push(this.#name, value);
    }
    return listBytes <= listBytesMax ? fields : undefined;
  }

  #resize(): void {
    const bytesMax = this.#integer(0x1f);
    if (bytesMax > TABLE_BYTES_MAX) {
      throw new Http2Error("compression", `table size ${bytesMax} above ${TABLE_BYTES_MAX}`);
    }
    this.#table.resize(bytesMax);
  }

  /** Leaves the name behind and returns the value. */
  #field(first: number): string {
    if ((first & INDEXED) !== 0) {
      const index = this.#integer(0x7f);
      this.#name = this.#nameAt(index);
      if (index <= STATIC_COUNT)
        return (STATIC_FIELDS[index - 1] as readonly string[])[1] as string;
      return this.#table.value(index - STATIC_COUNT - 1);
    }
    const isKept = (first & LITERAL_INDEXED) !== 0;
    const index = this.#integer(isKept ? 0x3f : 0x0f);
    const name = index === 0 ? this.#string() : this.#nameAt(index);
    const value = this.#string();
    if (isKept) this.#table.add(name, value);
    this.#name = name;
    return value;
  }

  #nameAt(index: number): string {
    const position = index - STATIC_COUNT - 1;
    if (index === 0 || position >= this.#table.count) {
      throw new Http2Error("compression", `no header field has the index ${index}`);
    }
    if (position < 0) return (STATIC_FIELDS[index - 1] as readonly string[])[0] as string;
    return this.#table.name(position);
  }

  #string(): string {
    const isHuffman = ((this.#bytes[this.#at] as number) & HUFFMAN) !== 0;
    const length = this.#integer(0x7f);
    const start = this.#at;
    if (length > this.#end - start) throw new Http2Error("compression", "header block is cut off");
    this.#at += length;
    if (!isHuffman) return this.#bytes.toString("latin1", start, this.#at);
    const lengthMax = Math.floor((length * 8) / 5);
    if (lengthMax > this.#text.length) this.#text = Buffer.allocUnsafe(2 * lengthMax);
    const count = decodeHuffman(this.#bytes, start, length, this.#text);
    if (count === undefined) throw new Http2Error("compression", "bad Huffman code");
    return this.#text.toString("latin1", 0, count);
  }

  /** @param mask the bits of the first byte that belong to the number. */
  #integer(mask: number): number {
    if (this.#at >= this.#end) throw new Http2Error("compression", "header block is cut off");
    let value = (this.#bytes[this.#at++] as number) & mask;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      if (this.#at >= this.#end) throw new Http2Error("compression", "header block is cut off");
      if (shift > INTEGER_SHIFT_MAX) throw new Http2Error("compression", "integer is too large");
      const byte = this.#bytes[this.#at++] as number;
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }
}
