import assert from "node:assert/strict";
import { test } from "node:test";
import {
  decodeServiceExtensions,
  encodeServiceExtensions,
} from "../../src/wire/service-extension.ts";

const other = { name: "somebody's", config: { typeUrl: "t", value: new Uint8Array([255]) } };

test("a service's affinity is said in an extension, and those of others are read over", () => {
  assert.deepEqual(encodeServiceExtensions(undefined), []);
  assert.equal(decodeServiceExtensions([other]), undefined);
  for (const seconds of [1, 10_800, 86_400]) {
    const own = encodeServiceExtensions(seconds);
    assert.equal(decodeServiceExtensions([other, ...own]), seconds);
  }
});

test("an affinity that is not understood is refused by what is wrong with it", () => {
  const [own] = encodeServiceExtensions(60);
  assert.ok(own?.config);
  const { typeUrl, value } = own.config;
  assert.throws(() => decodeServiceExtensions([{ ...own, config: { typeUrl: "t", value } }]), {
    name: "WireError",
    message:
      "ztunnel/client-ip-affinity-seconds is t, not type.googleapis.com/google.protobuf.UInt32Value",
  });
  const broken = { typeUrl, value: new Uint8Array([0x08, 0xff]) };
  assert.throws(() => decodeServiceExtensions([{ ...own, config: broken }]), { name: "WireError" });
});
