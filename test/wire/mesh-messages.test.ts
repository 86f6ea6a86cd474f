/** The generated messages of the mesh, against what a real control plane sent. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { decodeMessage, encodeMessage } from "../../src/wire/message-codec.ts";
import { Authorization } from "../../src/wire/proto/istio-security.ts";
import { Address, Workload } from "../../src/wire/proto/istio-workload.ts";
import { naiveBytes, naiveFields, naiveText } from "../support/naive-codecs.ts";

/** Name → bytes of the message of each resource of a discovery response. */
function resources(file: string): ReadonlyMap<string, Uint8Array> {
  const response = readFileSync(new URL(`recorded/${file}.bin`, import.meta.url));
  const found = new Map<string, Uint8Array>();
  for (const field of naiveFields(response)) {
    if (field.number !== 2) continue;
    const resource = naiveFields(field.value as Uint8Array);
    const any = naiveFields(naiveBytes(resource, 2) ?? new Uint8Array());
    found.set(naiveText(resource, 3), naiveBytes(any, 2) ?? new Uint8Array());
  }
  return found;
}

const addresses = resources("addresses");
const authorizations = resources("authorizations");

describe("mesh messages of a real control plane", () => {
  test("every address encodes to the bytes that it was decoded from", () => {
    assert.equal(addresses.size, 66);
    for (const [name, bytes] of addresses) {
      const again = encodeMessage(Address, decodeMessage("Address", Address, bytes));
      assert.deepEqual(Buffer.from(again), Buffer.from(bytes), name);
    }
  });

  test("every policy encodes to the bytes that it was decoded from", () => {
    assert.equal(authorizations.size, 14);
    for (const [name, bytes] of authorizations) {
      const again = encodeMessage(
        Authorization,
        decodeMessage("Authorization", Authorization, bytes),
      );
      assert.deepEqual(Buffer.from(again), Buffer.from(bytes), name);
    }
  });

  test("a workload has its fields under their names", () => {
    const bytes = addresses.get("Kubernetes//Pod/shop/db-0") ?? new Uint8Array();
    const { type } = decodeMessage("Address", Address, bytes);
    assert(type?.$case === "workload");
    const { value } = type;
    assert.equal(value.uid, "Kubernetes//Pod/shop/db-0");
    assert.equal(value.tunnelProtocol, 1);
    assert.deepEqual([...(value.addresses[0] ?? [])], [10, 244, 1, 20]);
    assert.deepEqual(value.waypoint, {
      destination: {
        $case: "hostname",
        value: { namespace: "shop", hostname: "waypoint.shop.svc.cluster.local" },
      },
      hboneMtlsPort: 15008,
    });
    assert.deepEqual(
      [...value.services],
      [
        [
          "shop/db-all.shop.svc.cluster.local",
          { ports: [{ servicePort: 5432, targetPort: 5432, appProtocol: 0 }] },
        ],
        [
          "shop/db.shop.svc.cluster.local",
          { ports: [{ servicePort: 5432, targetPort: 5432, appProtocol: 0 }] },
        ],
      ],
    );
    assert.deepEqual(value.locality, { region: "region1", zone: "zone1a", subzone: "rack1" });
  });

  test("decoded messages survive structuredClone", () => {
    for (const bytes of addresses.values()) {
      const message = decodeMessage("Address", Address, bytes);
      assert.deepEqual(structuredClone(message), message);
    }
  });
});

describe("what a message does not say is told apart", () => {
  const presence = "2a080a0612040a022200";

  test("a presence match arrives as an empty message", () => {
    const message = decodeMessage("Authorization", Authorization, Buffer.from(presence, "hex"));
    assert.deepEqual(message.rules[0]?.clauses[0]?.matches[0]?.namespaces, [
      { matchType: { $case: "presence", value: {} } },
    ]);
    assert.equal(Buffer.from(encodeMessage(Authorization, message)).toString("hex"), presence);
  });

  for (const [what, hex, capacity] of [
    ["a capacity that is not set", "", undefined],
    ["a capacity of 0", "da0100", 0],
    ["a capacity of 5", "da01020805", 5],
  ] as const) {
    test(`${what} is ${capacity}`, () => {
      const message = decodeMessage("Workload", Workload, Buffer.from(hex, "hex"));
      assert.equal(message.capacity, capacity);
    });
  }

  test("messages nested beyond reason are refused", () => {
    // Extension.config cannot nest; a struct can.
    let bytes = new Uint8Array(0);
    for (let depth = 0; depth < 5000; depth++) bytes = Uint8Array.from([0x0b, ...bytes, 0x0c]);
    assert.throws(() => decodeMessage("Workload", Workload, bytes), { code: "malformed" });
  });
});
