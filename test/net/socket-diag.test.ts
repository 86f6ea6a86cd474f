import assert from "node:assert/strict";
import { endianness } from "node:os";
import { test } from "node:test";
import { type DiagEntry, encodeDiagQuestion, takeDiagAnswer } from "../../src/net/socket-diag.ts";
import { RECORDED_DIAG } from "../support/recorded-sockets.ts";

/** No such file or directory. */
const ENOENT = 2;

const skip = endianness() === "LE" ? false : "recorded where numbers are little-endian";

function read(bytes: Uint8Array): { end: number | undefined; entries: DiagEntry[] } {
  const entries: DiagEntry[] = [];
  return { end: takeDiagAnswer(bytes, (entry) => entries.push(entry)), entries };
}

const bytesOf = (hex: string): Buffer => Buffer.from(hex, "hex");

test("sockets are told with state, mark and peer", { skip }, () => {
  const { end, entries } = read(bytesOf(RECORDED_DIAG.tcp));
  assert.equal(end, undefined);
  assert.deepEqual(
    entries.map(({ state, mark, remote }) => ({ state, mark, remote })),
    [
      { state: 10, mark: 1337, remote: { ip: "0.0.0.0", port: 0 } },
      { state: 8, mark: 0, remote: { ip: "127.0.0.1", port: 9000 } },
      { state: 4, mark: 1337, remote: { ip: "127.0.0.1", port: 9100 } },
    ],
  );
});

test("peers over IPv6 are told in their shortest form", { skip }, () => {
  const entries = [RECORDED_DIAG.tcpOverIpv6, RECORDED_DIAG.udpOverIpv6].flatMap(
    (hex) => read(bytesOf(hex)).entries,
  );
  assert.deepEqual(
    entries.map(({ state, remote }) => ({ state, remote })),
    [
      { state: 1, remote: { ip: "127.0.0.1", port: 9101 } },
      { state: 1, remote: { ip: "::1", port: 443 } },
    ],
  );
});

test("the end is told, also with a part of the list before it", { skip }, () => {
  assert.equal(read(bytesOf(RECORDED_DIAG.end)).end, 0);
  const both = read(bytesOf(RECORDED_DIAG.tcp + RECORDED_DIAG.end));
  assert.deepEqual([both.end, both.entries.length], [0, 3]);
});

test("a question that the kernel can't answer ends with its errno", { skip }, () => {
  assert.equal(read(bytesOf(RECORDED_DIAG.unknownProtocol)).end, ENOENT);
  assert.equal(read(bytesOf(RECORDED_DIAG.unknownFamily)).end, ENOENT);
});

test("a socket whose mark is not told has none", { skip }, () => {
  const bytes = bytesOf(RECORDED_DIAG.udpOverIpv6);
  bytes.writeUInt16LE(99, bytes.indexOf("08000f00", "hex") + 2);
  assert.equal(read(bytes).entries[0]?.mark, undefined);
});

test("a question is as long as its header says", { skip }, () => {
  const question = encodeDiagQuestion({ family: 6, protocol: "udp", states: 0x0102 });
  assert.equal(
    Buffer.from(question).toString("hex"),
    `48000000140001030000000000000000${"0a110000"}02010000${"00".repeat(48)}`,
  );
});

test("what is no answer is refused", () => {
  const refused = { name: "NetError", code: "socket-diag" };
  for (const hex of ["00", "00".repeat(16), `ff000000${"00".repeat(12)}`]) {
    assert.throws(() => read(bytesOf(hex)), refused, hex);
  }
  const message = "the kernel's list of sockets has a message of 0 bytes where 3 are left";
  assert.throws(() => read(new Uint8Array(3)), { ...refused, message });
});
