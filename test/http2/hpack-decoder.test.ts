import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { HpackDecoder } from "../../src/http2/hpack-decoder.ts";
import { HPACK_EXAMPLES, type HpackBlock, pairs } from "./hpack-examples.ts";

const LIST_BYTES_MAX = 65_536;

function decodeAll(blocks: readonly HpackBlock[]): (readonly string[] | undefined)[] {
  const decoder = new HpackDecoder();
  return blocks.map(({ hex }) => decode(decoder, hex));
}

function decode(decoder: HpackDecoder, hex: string, listBytesMax = LIST_BYTES_MAX) {
  // Neighbours that must not be read.
  const bytes = Buffer.from(`82${hex}82`, "hex");
  return decoder.decode(bytes, 1, bytes.length - 2, listBytesMax);
}

describe("HPACK decoder: the examples of RFC 7541", () => {
  for (const { section, blocks } of HPACK_EXAMPLES) {
    it(`reads ${section}`, () => {
      assert.deepEqual(decodeAll(blocks), blocks.map(pairs));
    });
  }
});

describe("HPACK decoder: bad blocks", () => {
  const cases: readonly (readonly [name: string, hex: string, message: RegExp])[] = [
    ["index 0", "80", /index 0/],
    ["an index behind the static table when the dynamic one is empty", "be", /index 62/],
    ["a name index behind both tables", "7f0000", /index 63/],
    ["an integer that is cut off", "7f", /cut off/],
    ["an integer that is cut off in its middle", "ff80", /cut off/],
    ["an integer of six bytes", "ff8080808080", /too large/],
    ["a string that is longer than its block", "0005616263", /cut off/],
    ["a name without a value", "000161", /cut off/],
    ["a string of 2^28 bytes", "007fffffff7f61", /cut off/],
    ["a table above our limit", "3fe21f", /table size 4097/],
    ["a table size update behind a field", "8220", /behind a field/],
    ["the end-of-string symbol", "000161 84ffffffff", /Huffman/],
    ["padding of eight bits", "000161 82 1fff", /Huffman/],
    ["padding with zeros", "000161 81 18", /Huffman/],
  ];
  for (const [name, hex, message] of cases) {
    it(`refuses ${name}`, () => {
      assert.throws(() => decode(new HpackDecoder(), hex.replaceAll(" ", "")), {
        name: "Http2Error",
        code: "compression",
        message,
      });
    });
  }
});

describe("HPACK decoder: limits", () => {
  it("counts 32 bytes for each field beyond its strings", () => {
    const block = "000161 0162".replaceAll(" ", "");
    assert.deepEqual(decode(new HpackDecoder(), block, 34), ["a", "b"]);
    assert.equal(decode(new HpackDecoder(), block, 33), undefined);
  });

  it("knows the table after a list that was too long", () => {
    const decoder = new HpackDecoder();
    assert.equal(decode(decoder, "4001610162 4001630164".replaceAll(" ", ""), 40), undefined);
    assert.deepEqual(decode(decoder, "bebf"), ["c", "d", "a", "b"]);
  });

  it("evicts the oldest fields when a new one does not fit", () => {
    const decoder = new HpackDecoder();
    // 68 bytes: two fields of 34.
    decode(decoder, "3f25 4001610162 4001630164 4001650166".replaceAll(" ", ""));
    assert.deepEqual(decode(decoder, "bebf"), ["e", "f", "c", "d"]);
    assert.throws(() => decode(decoder, "c0"), { code: "compression" });
  });

  it("empties the table for a field that is larger than all of it", () => {
    const decoder = new HpackDecoder();
    decode(decoder, "3f024001610162");
    assert.throws(() => decode(decoder, "be"), { code: "compression" });
  });

  it("keeps a name that evicts its own field", () => {
    const decoder = new HpackDecoder();
    decode(decoder, "3f034001610162");
    assert.deepEqual(decode(decoder, "7e0163"), ["a", "c"]);
    assert.deepEqual(decode(decoder, "be"), ["a", "c"]);
  });
});
