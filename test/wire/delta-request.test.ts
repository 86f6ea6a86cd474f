import assert from "node:assert/strict";
import { test } from "node:test";
import { ADDRESS_TYPE, deltaDiscoveryMethod } from "../../src/wire/delta-discovery.ts";

function request(metadata: Record<string, unknown>): Buffer {
  return deltaDiscoveryMethod.requestSerialize({
    node: { id: "id", cluster: "", metadata },
    typeUrl: ADDRESS_TYPE,
    resourceNamesSubscribe: [],
    resourceNamesUnsubscribe: [],
    initialResourceVersions: new Map(),
    responseNonce: "",
    errorDetail: undefined,
  });
}

test("JSON of any kind becomes metadata and is read as it was written", () => {
  const metadata = {
    text: "x",
    number: -1.5,
    yes: true,
    no: false,
    nothing: null,
    list: [1, "two", null, [], {}],
    object: { deep: { deeper: ["x"] }, empty: {} },
  };
  const { node } = deltaDiscoveryMethod.requestDeserialize(request(metadata));
  assert.deepEqual(node?.metadata, metadata);
});

/** Tags and values of `google.protobuf.Value`. */
const values: readonly [value: unknown, hex: string][] = [
  [null, "0800"],
  [2, "110000000000000040"],
  ["a", "1a0161"],
  [true, "2001"],
  [{ k: "a" }, "2a0a0a080a016b12031a0161"],
  [["a"], "32050a031a0161"],
];
for (const [value, hex] of values) {
  test(`metadata of ${JSON.stringify(value)} has the bytes of its kind`, () => {
    assert.ok(
      request({ m: value })
        .toString("hex")
        .includes(`0a016d12${byte(hex)}${hex}`),
    );
  });
}

function byte(hex: string): string {
  return (hex.length / 2).toString(16).padStart(2, "0");
}
