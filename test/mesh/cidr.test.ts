import assert from "node:assert/strict";
import { BlockList } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import { cidrContainsBytes, makeCidr, parseCidr } from "../../src/mesh/cidr.ts";
import { ipAddressFromBytes, ipAddressToBytes, ipFamily } from "../../src/mesh/ip-address.ts";
import { cidr, ip } from "../support/mesh-fixture.ts";

const rows: readonly [range: string, address: string, inside: boolean][] = [
  ["10.0.0.0/8", "10.255.0.1", true],
  ["10.0.0.0/8", "11.0.0.0", false],
  ["10.0.0.0/9", "10.127.255.255", true],
  ["10.0.0.0/9", "10.128.0.0", false],
  ["10.0.0.1/32", "10.0.0.1", true],
  ["10.0.0.1/32", "10.0.0.2", false],
  ["10.0.0.77/24", "10.0.0.1", true],
  ["0.0.0.0/0", "255.255.255.255", true],
  ["0.0.0.0/0", "::1", false],
  ["::/0", "fd00::1", true],
  ["::/0", "10.0.0.1", false],
  ["fd00::/33", "fd00:0:7fff::1", true],
  ["fd00::/33", "fd00:0:8000::1", false],
  ["fd00::1/128", "fd00::1", true],
];
for (const [range, address, inside] of rows) {
  test(`${range} ${inside ? "contains" : "does not contain"} ${address}`, () => {
    assert.equal(cidrContainsBytes(cidr(range), ipAddressToBytes(ip(address))), inside);
  });
}

for (const text of [
  "10.0.0.0",
  "10.0.0.0/",
  "10.0.0.0/33",
  "10.0.0.0/-1",
  "10.0.0.0/8 ",
  "::/129",
  "x/8",
  "/8",
  "10.0.0.0/0x8",
]) {
  test(`"${text}" is no range`, () => assert.equal(parseCidr(text), undefined));
}

test("a length that does not fit the address makes no range", () => {
  for (const length of [-1, 33, 1.5, Number.NaN]) {
    assert.equal(makeCidr(ip("10.0.0.0"), length), undefined);
  }
});

test("ranges agree with the platform's", () => {
  const anyBytes = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
  );
  const anyCase = anyBytes.chain((bytes) =>
    fc.record({
      network: fc.constant(bytes),
      length: fc.integer({ min: 0, max: bytes.length * 8 }),
      // Mostly near misses: one bit away from the network.
      flipped: fc.integer({ min: 0, max: bytes.length * 8 }),
    }),
  );
  fc.assert(
    fc.property(anyCase, ({ network, length, flipped }) => {
      const bytes = Uint8Array.from(network);
      if (flipped < bytes.length * 8) {
        const at = flipped >> 3;
        bytes[at] = (bytes[at] ?? 0) ^ (0x80 >> (flipped & 7));
      }
      const base = ipAddressFromBytes(network);
      const address = ipAddressFromBytes(bytes);
      assert.ok(base !== undefined && address !== undefined);
      const range = makeCidr(base, length);
      fc.pre(range !== undefined);
      const oracle = new BlockList();
      oracle.addSubnet(base, length, ipFamily(base) === 4 ? "ipv4" : "ipv6");
      const expected =
        ipFamily(base) === ipFamily(address) &&
        oracle.check(address, ipFamily(address) === 4 ? "ipv4" : "ipv6");
      assert.equal(cidrContainsBytes(range, bytes), expected, `${base}/${length} ${address}`);
    }),
    { numRuns: 500 },
  );
});
