import assert from "node:assert/strict";
import fc from "fast-check";
import { HpackDecoder } from "../../src/http2/hpack-decoder.ts";
import { HpackEncoder } from "../../src/http2/hpack-encoder.ts";
import { Http2Error } from "../../src/http2/http2-error.ts";
import { decodeHuffman, encodeHuffman, huffmanLength } from "../../src/http2/huffman.ts";
import { fuzz, lawful, mutated } from "./fuzz.ts";

const LIST_BYTES_MAX = 1_000_000;

const name = fc.oneof(
  fc.constantFrom(":method", ":status", ":authority", "baggage", "forwarded", "traceparent"),
  fc.stringMatching(/^[a-z0-9-]{1,20}$/),
);
const value = fc.oneof(
  fc.constantFrom("", "CONNECT", "200", "k8s.cluster.name=Kubernetes"),
  fc.stringMatching(/^[\t\x20-\x7e\x80-\xff]{0,200}$/),
  fc.string({ unit: fc.constantFrom("\xfe", "a"), minLength: 1000, maxLength: 5000 }),
);
const block = fc.array(fc.tuple(name, value), { maxLength: 12 });

/** A block, and before it perhaps a change of the peer's table. */
const step = fc.record({
  tableBytes: fc.option(fc.nat(6000), { nil: undefined }),
  fields: block,
});

fuzz(
  "blocks read back as they were written, whatever the peer does to the table",
  fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
    const encoder = new HpackEncoder();
    const decoder = new HpackDecoder();
    for (const { tableBytes, fields } of steps) {
      if (tableBytes !== undefined) encoder.limitTable(tableBytes);
      const bytes = encode(encoder, fields);
      assert.deepEqual(decoder.decode(bytes, 0, bytes.length, LIST_BYTES_MAX), fields.flat());
    }
  }),
);

fuzz(
  "bytes that were a block give fields or an Http2Error",
  fc.property(
    fc.array(mutated(block.map((fields) => encode(new HpackEncoder(), fields)))),
    (all) => {
      const decoder = new HpackDecoder();
      for (const bytes of all) {
        const fields = lawful(
          () => decoder.decode(Buffer.from(bytes), 0, bytes.length, 1000),
          (error) => error instanceof Http2Error,
        );
        assert((fields?.join("").length ?? 0) <= 1000);
      }
    },
  ),
);

fuzz(
  "any bytes give fields or an Http2Error",
  fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
    lawful(
      () => new HpackDecoder().decode(Buffer.from(bytes), 0, bytes.length, 1000),
      (error) => error instanceof Http2Error,
    );
  }),
);

fuzz(
  "Huffman strings are of the length foretold and read back",
  fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
    const text = Buffer.from(bytes).toString("latin1");
    const length = huffmanLength(text);
    const coded = new Uint8Array(length + 2);
    assert.equal(encodeHuffman(text, coded, 1), 1 + length);
    assert.deepEqual([coded[0], coded[length + 1]], [0, 0]);
    const decoded = new Uint8Array(Math.floor((length * 8) / 5));
    assert.equal(decodeHuffman(coded, 1, length, decoded), bytes.length);
    assert.deepEqual(decoded.subarray(0, bytes.length), bytes);
  }),
);

fuzz(
  "Huffman bytes have one reading: what decodes is what would be written",
  fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
    const into = Buffer.alloc(64);
    const count = decodeHuffman(bytes, 0, bytes.length, into);
    if (count === undefined) return;
    const text = into.toString("latin1", 0, count);
    const again = new Uint8Array(huffmanLength(text));
    encodeHuffman(text, again, 0);
    assert.deepEqual(again, bytes);
  }),
);

function encode(
  encoder: HpackEncoder,
  fields: readonly (readonly [name: string, value: string])[],
): Buffer {
  encoder.begin();
  for (const [fieldName, fieldValue] of fields) encoder.add(fieldName, fieldValue);
  return Buffer.from(encoder.end());
}
