import assert from "node:assert/strict";
import { isIP } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import {
  ipAddressFromBytes,
  ipAddressToBytes,
  ipFamily,
  isLoopback,
  parseIpAddress,
} from "../../src/mesh/ip-address.ts";

const texts: readonly [text: string, canonical: string | undefined][] = [
  ["10.0.0.1", "10.0.0.1"],
  ["0.0.0.0", "0.0.0.0"],
  ["255.255.255.255", "255.255.255.255"],
  ["::", "::"],
  ["::1", "::1"],
  ["FD00:0:0::00A", "fd00::a"],
  ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
  ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
  ["::ffff:10.0.0.1", "10.0.0.1"],
  ["::ffff:a00:1", "10.0.0.1"],
  ["", undefined],
  ["10.0.0", undefined],
  ["10.0.0.256", undefined],
  ["010.0.0.1", undefined],
  ["0x0a.0.0.1", undefined],
  ["10.0.0.1.", undefined],
  ["10.0.0.1/32", undefined],
  ["167772161", undefined],
  ["fe80::1%eth0", undefined],
  ["1::2::3", undefined],
  [":::", undefined],
  ["localhost", undefined],
];
for (const [text, canonical] of texts) {
  test(`"${text}" ${canonical === undefined ? "is no address" : `is the address ${canonical}`}`, () => {
    assert.equal(parseIpAddress(text), canonical);
  });
}

test("bytes and text tell the same address", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ minLength: 4, maxLength: 4 }),
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
      ),
      (bytes) => {
        const ip = ipAddressFromBytes(bytes);
        assert.ok(ip);
        assert.equal(isIP(ip), ipFamily(ip));
        assert.equal(parseIpAddress(ip), ip);
        const mapped = bytes.length === 16 && ipFamily(ip) === 4;
        assert.deepEqual(ipAddressToBytes(ip), mapped ? bytes.slice(12) : bytes);
      },
    ),
  );
});

test("IPv4-mapped bytes are the IPv4 address", () => {
  const bytes = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1]);
  assert.equal(ipAddressFromBytes(bytes), "10.0.0.1");
});

for (const length of [0, 1, 3, 5, 15, 17, 32]) {
  test(`${length} bytes are no address`, () => {
    assert.equal(ipAddressFromBytes(new Uint8Array(length)), undefined);
  });
}

test("only text that the platform accepts too is an address", () => {
  const anyText = fc.string({ unit: fc.constantFrom(..."0123456789abf:.%/ "), maxLength: 20 });
  fc.assert(
    fc.property(fc.oneof(anyText, fc.ipV4(), fc.ipV6()), (text) => {
      const known = isIP(text) !== 0 && !text.includes("%");
      assert.equal(parseIpAddress(text) !== undefined, known, text);
    }),
    { numRuns: 500 },
  );
});

test("loopback is 127.0.0.0/8 and ::1", () => {
  const loopback = ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"];
  const others = ["128.0.0.1", "10.0.0.1", "::", "::2"];
  const judge = (text: string): boolean => {
    const ip = parseIpAddress(text);
    assert.ok(ip);
    return isLoopback(ip);
  };
  assert.deepEqual(loopback.map(judge), [true, true, true, true]);
  assert.deepEqual(others.map(judge), [false, false, false, false]);
});
