import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encode } from "dns-packet";
import { encodeAddressQuestion, readAddresses } from "../../src/wire/address-question.ts";

test("a question asks for recursion", () => {
  const packet = decode(Buffer.from(encodeAddressQuestion(0xbeef, "echo.default.svc.", "AAAA")));
  assert.deepEqual(
    [packet.id, packet.flag_rd, packet.questions?.map(({ name, type }) => [name, type])],
    [0xbeef, true, [["echo.default.svc", "AAAA"]]],
  );
});

for (const name of [
  "",
  "a..b",
  ".a",
  "x".repeat(64),
  `${"abcdefg.".repeat(32)}a`,
  "ä".repeat(32),
]) {
  test(`${JSON.stringify(name)} is no name in DNS`, () => {
    assert.throws(() => encodeAddressQuestion(1, name, "A"), { name: "WireError" });
  });
}

test("addresses are found behind an alias, in their order", () => {
  const reply = encode({
    type: "response",
    id: 1,
    questions: [{ name: "a.b", type: "A", class: "IN" }],
    answers: [
      { name: "a.b", type: "CNAME", ttl: 1, data: "c.d" },
      { name: "c.d", type: "A", ttl: 1, data: "10.0.0.2" },
      { name: "c.d", type: "A", ttl: 1, data: "10.0.0.1" },
      { name: "c.d", type: "AAAA", ttl: 1, data: "fd00:0::1" },
    ],
  });
  assert.deepEqual(readAddresses(reply), ["10.0.0.2", "10.0.0.1", "fd00::1"]);
});

test("a refusal has none, and what is no message is an error", () => {
  assert.deepEqual(readAddresses(encode({ type: "response", id: 1, flags: 3 })), []);
  assert.throws(() => readAddresses(Uint8Array.of(1, 2, 3)), { name: "WireError" });
});
