import assert from "node:assert/strict";
import { test } from "node:test";
import { systemRandom } from "../../src/runtime/random.ts";

/** More than one block of what is drawn ahead. */
const DRAWS = 1000;

test("hexadecimal text has two lower-case characters a byte", () => {
  const random = systemRandom();
  for (const byteCount of [0, 1, 8, 16, 4096, 5000]) {
    assert.match(random.hex(byteCount), new RegExp(`^([0-9a-f]{2}){${byteCount}}$`));
  }
});

test("no text is handed out twice, also across the blocks it is cut from and two sources", () => {
  const sources = [systemRandom(), systemRandom()];
  const seen = new Set(sources.flatMap((s) => Array.from({ length: DRAWS }, () => s.hex(16))));
  assert.equal(seen.size, 2 * DRAWS);
});

test("every byte of a block is used once: neighbours do not share any", () => {
  const random = systemRandom();
  // Seven bytes do not divide the block, so its end is met as well.
  const texts = Array.from({ length: DRAWS }, () => random.hex(7));
  for (const [index, text] of texts.entries()) {
    const next = texts[index + 1] ?? "";
    assert.notEqual(text.slice(2), next.slice(0, 12), `texts ${index} and ${index + 1} overlap`);
  }
});

test("units lie in [0, 1) and spread over it", () => {
  const random = systemRandom();
  const tenths = new Set<number>();
  for (let i = 0; i < DRAWS; i++) {
    const unit = random.unit();
    assert.ok(unit >= 0 && unit < 1, `${unit}`);
    tenths.add(Math.floor(unit * 10));
  }
  assert.equal(tenths.size, 10);
});
