import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parseIpAddress } from "../../src/mesh/ip-address.ts";
import {
  decodeSockaddr,
  encodeSockaddr,
  encodeUnixSockaddr,
  SOCKADDR_BYTES,
} from "../../src/net/sockaddr.ts";

/** Bytes as the kernel of a little-endian machine has them. */
const CASES: [ip: string, port: number, bytes: string][] = [
  ["127.0.0.1", 80, "02000050 7f000001 0000000000000000"],
  ["255.255.255.255", 65535, "0200ffff ffffffff 0000000000000000"],
  ["::", 0, "0a000000 00000000 00000000000000000000000000000000 00000000"],
  ["::1", 15008, "0a003aa0 00000000 00000000000000000000000000000001 00000000"],
  ["fd00::", 1, "0a000001 00000000 fd000000000000000000000000000000 00000000"],
  ["2001:db8::ff:0:1", 443, "0a0001bb 00000000 20010db8000000000000 00ff00000001 00000000"],
  ["1:2:3:4:5:6:7:8", 53, "0a000035 00000000 00010002000300040005000600070008 00000000"],
];

describe("an address of IP", () => {
  for (const [ip, port, text] of CASES) {
    test(`${ip} is written as the kernel has it, and read again`, () => {
      const bytes = encodeSockaddr(ip, port);
      assert.ok(bytes);
      assert.equal(Buffer.from(bytes).toString("hex"), text.replaceAll(" ", ""));
      assert.deepEqual(decodeSockaddr(bytes), { ip, port });
    });
  }

  test("in capitals is the same", () => {
    assert.deepEqual(encodeSockaddr("FD00::A", 1), encodeSockaddr("fd00::a", 1));
  });

  for (const text of [
    "",
    "localhost",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "01.2.3.4",
    ":",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4::5:6:7:8",
    "12345::",
    "g::",
    "::1%lo",
    "::ffff:1.2.3.4",
  ]) {
    test(`can't be made of ${JSON.stringify(text)}`, () => {
      assert.equal(encodeSockaddr(text, 1), undefined);
    });
  }

  test("mapped into IPv6 is given as IPv4", () => {
    assert.deepEqual(decodeSockaddr(encodeSockaddr("::ffff:a01:203", 9) ?? new Uint8Array()), {
      ip: "10.1.2.3",
      port: 9,
    });
  });

  test("is read where it begins", () => {
    const memory = new Uint8Array(100).fill(0xff);
    memory.set(encodeSockaddr("10.0.0.1", 80) ?? [], 40);
    assert.deepEqual(decodeSockaddr(memory, 40), { ip: "10.0.0.1", port: 80 });
  });

  test("any that has a canonical text comes back from its bytes", () => {
    const ips = fc.oneof(fc.ipV4(), fc.ipV6()).map(parseIpAddress);
    const canonical = ips.filter((ip) => ip !== undefined);
    fc.assert(
      fc.property(canonical, fc.integer({ min: 0, max: 65535 }), (ip, port) => {
        assert.deepEqual(decodeSockaddr(encodeSockaddr(ip, port) ?? new Uint8Array()), {
          ip,
          port,
        });
      }),
    );
  });
});

describe("no address of IP", () => {
  for (const [name, bytes] of [
    ["nothing", new Uint8Array()],
    ["zeros", new Uint8Array(SOCKADDR_BYTES)],
    ["a family alone", Uint8Array.of(2, 0)],
    ["half of an IPv6 address", encodeSockaddr("::1", 80)?.subarray(0, 16) ?? new Uint8Array()],
    ["a file", encodeUnixSockaddr("/run/socket") ?? new Uint8Array()],
  ] as const) {
    test(`is ${name}`, () => {
      assert.equal(decodeSockaddr(bytes), undefined);
    });
  }
});

describe("an address of a file", () => {
  test("has the family, the name and its end", () => {
    const bytes = encodeUnixSockaddr("/é");
    assert.equal(bytes?.length, 110);
    assert.deepEqual([...(bytes?.subarray(0, 7) ?? [])], [1, 0, 47, 0xc3, 0xa9, 0, 0]);
  });

  test("has a name of 1 to 107 bytes", () => {
    assert.equal(encodeUnixSockaddr(""), undefined);
    assert.equal(encodeUnixSockaddr("é".repeat(54)), undefined);
    assert.notEqual(encodeUnixSockaddr(`${"é".repeat(53)}x`), undefined);
  });

  test("has no null character, which would end it early", () => {
    assert.throws(() => encodeUnixSockaddr("/run/a\0b"), {
      name: "TypeError",
      message: "path must be a string without null characters",
    });
  });
});
