import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAuthority } from "../../src/wire/connect-authority.ts";

describe("the authority of a CONNECT", () => {
  for (const [text, ip, port] of [
    ["10.0.0.1:80", "10.0.0.1", 80],
    ["10.0.0.1:0", "10.0.0.1", 0],
    ["10.0.0.1:65535", "10.0.0.1", 65535],
    ["[::1]:15008", "::1", 15008],
    ["[2001:DB8:0:0::1]:1", "2001:db8::1", 1],
    ["[::ffff:10.0.0.1]:80", "10.0.0.1", 80],
  ] as const) {
    test(`${text} is an address`, () => {
      assert.deepEqual(parseAuthority(text), { kind: "address", address: { ip, port } });
    });
  }

  for (const [text, hostname, port] of [
    ["echo.default.svc.cluster.local:80", "echo.default.svc.cluster.local", 80],
    ["Echo:80", "Echo", 80],
    ["*.dyn.example.com:443", "*.dyn.example.com", 443],
    ["a_b:1", "a_b", 1],
    ["10.0.0.256:80", "10.0.0.256", 80],
    ["010.0.0.1:80", "010.0.0.1", 80],
  ] as const) {
    test(`${text} is a host name`, () => {
      assert.deepEqual(parseAuthority(text), { kind: "hostname", hostname, port });
    });
  }

  for (const text of [
    "",
    ":80",
    "10.0.0.1",
    "10.0.0.1:",
    "10.0.0.1:65536",
    "10.0.0.1:+80",
    "10.0.0.1: 80",
    "echo",
    "echo:",
    "echo:http",
    "echo:-1",
    "echo:99999",
    "::1:80",
    "[::1]",
    "[::1:80",
    "[10.0.0.1]:80x",
    "[fe80::1%eth0]:80",
    "user@echo:80",
    "echo/path:80",
    "http://echo:80",
    "echo:80:80",
    "ec ho:80",
    "é:80",
    "echo:80\n",
  ]) {
    test(`${JSON.stringify(text)} is refused`, () => {
      assert.equal(parseAuthority(text), undefined);
    });
  }
});
