import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeProxyHeader } from "../../src/wire/proxy-header.ts";
import { address } from "../support/mesh-fixture.ts";
import { readProxyHeader } from "../support/proxy-header-reader.ts";

const SIGNATURE = "0d0a0d0a000d0a515549540a21";
const IDENTITY = "spiffe://td/ns/n/sa/s";
const TLV = `d0 0015 ${Buffer.from(IDENTITY).toString("hex")}`;
const NO_IPV6 = "0".repeat(28);

const cases: readonly [string, string, string, string | undefined, string][] = [
  [
    "IPv4",
    "10.0.0.1:4711",
    "10.0.0.2:80",
    undefined,
    `${SIGNATURE} 11 000c 0a000001 0a000002 1267 0050`,
  ],
  [
    "IPv6",
    "[fd00::1]:4711",
    "[fd00::2]:65535",
    undefined,
    `${SIGNATURE} 21 0024 fd00${NO_IPV6.slice(1)}1 fd00${NO_IPV6.slice(1)}2 1267 ffff`,
  ],
  [
    "a peer with an identity",
    "10.0.0.1:4711",
    "10.0.0.2:80",
    IDENTITY,
    `${SIGNATURE} 11 0024 0a000001 0a000002 1267 0050 ${TLV}`,
  ],
  [
    "two families, which leaves the addresses out",
    "10.0.0.1:4711",
    "[fd00::2]:80",
    IDENTITY,
    `${SIGNATURE} 01 0018 ${TLV}`,
  ],
];
for (const [title, source, destination, identity, hex] of cases) {
  test(`a header of ${title}`, () => {
    const ends = { source: address(source), destination: address(destination) };
    const bytes = Buffer.from(encodeProxyHeader({ ...ends, identity }));
    assert.equal(bytes.toString("hex"), hex.replaceAll(" ", ""));
    const read = readProxyHeader(bytes);
    assert.deepEqual([read?.identity, read?.length], [identity, bytes.length]);
  });
}
