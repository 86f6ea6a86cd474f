import assert from "node:assert/strict";
import { test } from "node:test";
import {
  formatHostPort,
  formatSocketAddress,
  parsePort,
  parseSocketAddress,
} from "../../src/mesh/socket-address.ts";

for (const text of ["10.0.0.1:80", "0.0.0.0:0", "[::1]:65535", "[fd00::a]:15008"]) {
  test(`${text} survives being parsed and formatted`, () => {
    const address = parseSocketAddress(text);
    assert.ok(address);
    assert.equal(formatSocketAddress(address), text);
  });
}

const refused = [
  "",
  ":80",
  "10.0.0.1",
  "10.0.0.1:",
  "10.0.0.1:65536",
  "10.0.0.1:+80",
  "10.0.0.1: 80",
  "10.0.0.1:0x50",
  "::1:80",
  "[::1]",
  "[::1:80",
  "::1]:80",
  "[10.0.0.1:80",
  "echo:80",
];
for (const text of refused) {
  test(`"${text}" is no socket address`, () => assert.equal(parseSocketAddress(text), undefined));
}

test("a mapped address is unwrapped", () => {
  assert.deepEqual(parseSocketAddress("[::ffff:10.0.0.1]:80"), { ip: "10.0.0.1", port: 80 });
});

test("host names stand without brackets", () => {
  assert.equal(formatHostPort("echo.example", 80), "echo.example:80");
  assert.equal(formatHostPort("fd00::1", 80), "[fd00::1]:80");
});

test("a port is a decimal number of 0 to 65535", () => {
  assert.deepEqual(["0", "80", "65535"].map(parsePort), [0, 80, 65535]);
  for (const text of ["", "-1", "65536", "1e3", "8 ", "999999"]) {
    assert.equal(parsePort(text), undefined);
  }
});
