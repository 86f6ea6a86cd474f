import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { HpackDecoder } from "../../src/http2/hpack-decoder.ts";
import { HpackEncoder } from "../../src/http2/hpack-encoder.ts";
import { HPACK_EXAMPLES } from "./hpack-examples.ts";
import { type RecordedFrame, recordedConversations } from "./recorded-frames.ts";

type Fields = readonly (readonly [name: string, value: string, how?: string])[];

function encode(encoder: HpackEncoder, fields: Fields): string {
  encoder.begin();
  for (const [name, value] of fields) encoder.add(name, value);
  return Buffer.from(encoder.end()).toString("hex");
}

describe("HPACK encoder: the examples of RFC 7541", () => {
  for (const { section, blocks } of HPACK_EXAMPLES) {
    if (!section.includes("with Huffman")) continue;
    it(`writes ${section}`, () => {
      const encoder = new HpackEncoder();
      if (section.startsWith("C.6")) encoder.limitTable(256);
      assert.deepEqual(
        blocks.map(({ fields }) => encode(encoder, fields)),
        blocks.map(({ hex }) => hex),
      );
    });
  }
});

describe("HPACK encoder: blocks of the original", () => {
  for (const name of ["call", "serve", "drain"] as const) {
    it(`says what ${name}.json has, byte for byte`, () => {
      let blockCount = 0;
      for (const { what, frames } of recordedConversations(name)) {
        const encoder = new HpackEncoder();
        const decoder = new HpackDecoder();
        for (const { hex, fields } of blocksOfProxy(frames)) {
          assert.equal(encode(encoder, fields), hex, what);
          const bytes = Buffer.from(hex, "hex");
          assert.deepEqual(
            decoder.decode(bytes, 0, bytes.length, 65_536),
            fields.flatMap((field) => field.slice(0, 2)),
            what,
          );
          blockCount += 1;
        }
      }
      assert(blockCount > 0);
    });
  }
});

function blocksOfProxy(frames: readonly RecordedFrame[]) {
  return frames.flatMap(({ from, type, hex, headers }) =>
    from === "proxy" && type === "HEADERS" && hex !== undefined && headers !== undefined
      ? [{ hex, fields: headers }]
      : [],
  );
}

describe("HPACK encoder: the table", () => {
  it("says once what repeats", () => {
    const encoder = new HpackEncoder();
    const fields: Fields = [["baggage", "k8s.cluster.name=Kubernetes"]];
    encode(encoder, fields);
    assert.equal(encode(encoder, fields), "be");
  });

  it("announces a smaller table of the peer, and its lowest point", () => {
    const encoder = new HpackEncoder();
    encode(encoder, [["a", "b"]]);
    encoder.limitTable(0);
    encoder.limitTable(100);
    assert.equal(encode(encoder, [[":method", "GET"]]), "203f4582");
    assert.equal(encode(encoder, [[":method", "GET"]]), "82");
  });

  it("does not take more than 4096 bytes, whatever the peer offers", () => {
    const encoder = new HpackEncoder();
    encoder.limitTable(1_000_000);
    assert.equal(encode(encoder, [[":method", "GET"]]), "82");
  });

  it("keeps nothing when the peer has no table", () => {
    const encoder = new HpackEncoder();
    encoder.limitTable(0);
    assert.equal(encode(encoder, [["a", "b"]]), "2000811f818f");
    assert.equal(encode(encoder, [["a", "b"]]), "00811f818f");
  });

  it("does not let one long field drive out all others", () => {
    const encoder = new HpackEncoder();
    encode(encoder, [["a", "b"]]);
    encode(encoder, [["long", "v".repeat(4000)]]);
    assert.equal(encode(encoder, [["a", "b"]]), "be");
  });
});

describe("HPACK encoder: values", () => {
  it("writes strings of any length", () => {
    for (const length of [0, 1, 126, 127, 128, 254, 255, 16_384, 100_000]) {
      const value = "\xfe~".repeat(length).slice(0, length);
      const bytes = Buffer.from(encode(new HpackEncoder(), [["name", value]]), "hex");
      const fields = new HpackDecoder().decode(bytes, 0, bytes.length, 200_000);
      assert.deepEqual(fields, ["name", value]);
    }
  });

  it("never says what a field must not have", () => {
    const bytes = Buffer.from(encode(new HpackEncoder(), [["n", "a\r\nb\u010ac\0\x7f"]]), "hex");
    assert.deepEqual(new HpackDecoder().decode(bytes, 0, bytes.length, 1000), ["n", "a??b?c??"]);
  });
});
