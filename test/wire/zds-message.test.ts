import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { WireError } from "../../src/wire/wire-error.ts";
import {
  decodeZdsAck,
  decodeZdsHello,
  decodeZdsRequest,
  encodeZdsAck,
  encodeZdsHello,
  encodeZdsRequest,
  type ZdsRequest,
} from "../../src/wire/zds-message.ts";

import { recordedBytes } from "../support/istiod-recording.ts";

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));
const hex = (value: Uint8Array): string => Buffer.from(value).toString("hex");

/** Packets of Istio's agent as recorded, then the cases that it does not send. */
const requests: readonly (readonly [what: string, hex: string, request: ZdsRequest])[] = [
  [
    "an add as the agent sends it",
    "0a430a2430303030303030302d303030302d343030302d383030302d303030303030303030303131121b0a07636c69656e7431120764656661756c741a07636c69656e7431",
    {
      kind: "add",
      uid: "00000000-0000-4000-8000-000000000011",
      workload: { name: "client1", namespace: "default", serviceAccount: "client1" },
    },
  ],
  [
    "a del, whose uid is field 2",
    "1226122430303030303030302d303030302d343030302d383030302d303030303030303030303231",
    { kind: "del", uid: "00000000-0000-4000-8000-000000000021" },
  ],
  ["the end of the snapshot", "1a00", { kind: "snapshot-sent" }],
  ["a keep, which is payload 5", "2a040a027531", { kind: "keep", uid: "u1" }],
  ["an add without its workload", "0a040a027531", { kind: "add", uid: "u1", workload: undefined }],
  [
    "an add with an empty workload",
    "0a060a0275311200",
    { kind: "add", uid: "u1", workload: { name: "", namespace: "", serviceAccount: "" } },
  ],
  ["an add of nothing", "0a00", { kind: "add", uid: "", workload: undefined }],
];

describe("ZDS requests", () => {
  for (const [what, packet, request] of requests) {
    test(`${what} decodes`, () => assert.deepEqual(decodeZdsRequest(bytes(packet)), request));
    test(`${what} encodes`, () => assert.equal(hex(encodeZdsRequest(request)), packet));
  }

  test("unknown fields are passed over", () => {
    assert.deepEqual(decodeZdsRequest(bytes("380112021a001a007a0178")), { kind: "snapshot-sent" });
  });

  test("the last payload counts", () => {
    assert.deepEqual(decodeZdsRequest(bytes("0a040a0275311a00")), { kind: "snapshot-sent" });
  });

  for (const [what, packet] of [
    ["an empty packet", ""],
    ["a packet with unknown fields only", "3a0178"],
  ] as const) {
    test(`${what} has no payload`, () => {
      assert.throws(() => decodeZdsRequest(bytes(packet)), {
        name: "WireError",
        code: "incomplete",
        message: "no payload",
      });
    });
  }

  for (const [what, packet] of [
    ["a uid that is cut off", "0a040a0475"],
    ["a length beyond the packet", "0a7f0a027531"],
    ["a tag alone", "0a"],
    ["a varint without end", "0a040a02ffff"],
    ["text that is not UTF-8", "0a040a02c328"],
    ["field number 0", "1a000001"],
    ["a tag of 0", "1a0000"],
    ["a uid that reaches past its message", "0a030a027531"],
    ["the end of a group", "1a000c"],
    ["a group that ends as another", "1a005374"],
  ] as const) {
    test(`${what} is refused`, () => {
      assert.throws(() => decodeZdsRequest(bytes(packet)), {
        name: "WireError",
        code: "malformed",
      });
    });
  }

  test("every shorter part of a packet is refused or another message, never a crash", () => {
    const whole = bytes(requests[0]?.[1] ?? "");
    for (let length = 0; length < whole.length; length++) {
      assert.throws(() => decodeZdsRequest(whole.subarray(0, length)), WireError);
    }
  });
});

for (const which of ["base", "full"] as const) {
  test(`every packet between the original and the agent of the interop run is read and written alike (${which})`, () => {
    const packet = (name: string): Buffer => recordedBytes(`real-ztunnel/${which}/zds/${name}.bin`);
    assert.deepEqual(Buffer.from(encodeZdsHello()), packet("01-client-hello"));
    assert.equal(decodeZdsHello(packet("01-client-hello")), 1);
    const add: ZdsRequest = {
      kind: "add",
      uid: "76238341-b8dd-4126-958a-54c49a707882",
      workload: {
        name: "frontend-6f7d8c9b5d-aaaaa",
        namespace: "shop",
        serviceAccount: "frontend",
      },
    };
    assert.deepEqual(decodeZdsRequest(packet("02-server-add")), add);
    assert.deepEqual(Buffer.from(encodeZdsRequest(add)), packet("02-server-add"));
    assert.deepEqual(decodeZdsAck(packet("03-client-ack")), { error: "" });
    assert.deepEqual(Buffer.from(encodeZdsAck("")), packet("03-client-ack"));
    const snapshot = packet("04-server-snapshot");
    assert.deepEqual(decodeZdsRequest(snapshot), { kind: "snapshot-sent" });
    assert.deepEqual(Buffer.from(encodeZdsRequest({ kind: "snapshot-sent" })), snapshot);
  });
}

describe("what the proxy sends", () => {
  test("hello names version 1", () => {
    assert.equal(hex(encodeZdsHello()), "0801");
    assert.equal(decodeZdsHello(bytes("0801")), 1);
  });

  test("an unknown version is still a number", () => {
    assert.equal(decodeZdsHello(bytes("087b")), 123);
    assert.equal(decodeZdsHello(bytes("")), 0);
  });

  test("a positive ack is two bytes", () => {
    assert.equal(hex(encodeZdsAck("")), "0a00");
    assert.deepEqual(decodeZdsAck(bytes("0a00")), { error: "" });
  });

  test("a negative ack carries its text, as recorded", () => {
    const text =
      'failure to start proxy : Bind([::]:15006, Os { code: 98, kind: AddrInUse, message: "Address already in use" })';
    const packet =
      "0a700a6e6661696c75726520746f2073746172742070726f7879203a2042696e64285b3a3a5d3a31353030362c204f73207b20636f64653a2039382c206b696e643a2041646472496e5573652c206d6573736167653a20224164647265737320616c726561647920696e2075736522207d29";
    assert.equal(hex(encodeZdsAck(text)), packet);
    assert.deepEqual(decodeZdsAck(bytes(packet)), { error: text });
  });

  test("an answer that is no ack has no payload", () => {
    assert.throws(() => decodeZdsAck(bytes("")), { code: "incomplete", message: "no payload" });
  });
});
