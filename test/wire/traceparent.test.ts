import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { systemRandom } from "../../src/runtime/random.ts";
import { makeTraceparent, parseTraceparent } from "../../src/wire/traceparent.ts";

const TRACE = "a8d04109924644e61a70fa51a6c26c3f";

describe("traceparent", () => {
  test("a new one is not sampled and reads back", () => {
    const header = makeTraceparent(systemRandom());
    assert.match(header, /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    assert.equal(parseTraceparent(header), header.slice(3, 35));
  });

  test("two are different in both ids", () => {
    const random = systemRandom();
    const [first = "", second = ""] = [makeTraceparent(random), makeTraceparent(random)];
    assert.notEqual(first.slice(3, 35), second.slice(3, 35));
    assert.notEqual(first.slice(36, 52), second.slice(36, 52));
  });

  for (const [what, text, id] of [
    ["a recorded one", `00-${TRACE}-6be57aab08e5058f-00`, TRACE],
    ["a sampled one", `00-${TRACE}-6be57aab08e5058f-01`, TRACE],
    ["a later version of the same length", `01-${TRACE}-6be57aab08e5058f-00`, TRACE],
    ["upper case", `00-${TRACE.toUpperCase()}-6be57aab08e5058f-00`, TRACE],
    ["version ff", `ff-${TRACE}-6be57aab08e5058f-00`, undefined],
    ["a trace id of zeros", `00-${"0".repeat(32)}-6be57aab08e5058f-00`, undefined],
    ["a parent id of zeros", `00-${TRACE}-${"0".repeat(16)}-00`, undefined],
    ["55 characters without dashes", "0".repeat(55), undefined],
    ["a character that is not hexadecimal", `00-${TRACE}-6be57aab08e5058g-00`, undefined],
    ["a longer one", `00-${TRACE}-6be57aab08e5058f-00-x`, undefined],
    ["a line break at the end", `00-${TRACE}-6be57aab08e5058f-00\n`, undefined],
    ["nothing", "", undefined],
  ] as const) {
    test(`${what} gives ${id ?? "no trace id"}`, () => assert.equal(parseTraceparent(text), id));
  }
});
