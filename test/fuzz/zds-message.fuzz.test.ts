import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../../src/wire/wire-error.ts";
import {
  decodeZdsAck,
  decodeZdsHello,
  decodeZdsRequest,
  encodeZdsAck,
  encodeZdsRequest,
  type ZdsRequest,
} from "../../src/wire/zds-message.ts";
import { naiveBytes, naiveEncode, naiveFields, naiveText } from "../support/naive-codecs.ts";
import { fuzz, lawful, mutated, record } from "./fuzz.ts";

const text = fc.string({ unit: "grapheme", maxLength: 40 });
const request: fc.Arbitrary<ZdsRequest> = fc.oneof(
  record({
    kind: fc.constant("add" as const),
    uid: text,
    workload: fc.option(record({ name: text, namespace: text, serviceAccount: text }), {
      nil: undefined,
    }),
  }),
  record({ kind: fc.constantFrom("del" as const, "keep" as const), uid: text }),
  record({ kind: fc.constant("snapshot-sent" as const) }),
);

const isWireError = (error: unknown): boolean => error instanceof WireError;

fuzz(
  "a ZDS request reads back as it was written",
  fc.property(request, (value) => {
    assert.deepEqual(decodeZdsRequest(encodeZdsRequest(value)), value);
  }),
);

fuzz(
  "ZDS requests agree with a naive reader and writer",
  fc.property(request, (value) => {
    assert.deepEqual(naiveRequest(encodeZdsRequest(value)), value);
    assert.deepEqual(decodeZdsRequest(naiveWrite(value)), value);
  }),
);

fuzz(
  "an ack reads back as it was written",
  fc.property(text, (error) => assert.deepEqual(decodeZdsAck(encodeZdsAck(error)), { error })),
);

for (const [name, decode] of [
  ["decodeZdsRequest", decodeZdsRequest],
  ["decodeZdsAck", decodeZdsAck],
  ["decodeZdsHello", decodeZdsHello],
] as const) {
  fuzz(
    `${name} answers any bytes with a value or a WireError`,
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      lawful(() => decode(bytes), isWireError);
    }),
  );
}

fuzz(
  "a damaged ZDS request is read as the naive reader does, or refused",
  fc.property(mutated(request.map(encodeZdsRequest)), (bytes) => {
    const value = lawful(() => decodeZdsRequest(bytes), isWireError);
    if (value !== undefined) naiveFields(bytes);
  }),
);

function naiveRequest(bytes: Uint8Array): ZdsRequest {
  const [payload] = naiveFields(bytes);
  const fields = naiveFields(payload?.value as Uint8Array);
  switch (payload?.number ?? 0) {
    case 1: {
      const workload = naiveBytes(fields, 2);
      const info = workload && naiveFields(workload);
      return {
        kind: "add",
        uid: naiveText(fields, 1),
        workload: info && {
          name: naiveText(info, 1),
          namespace: naiveText(info, 2),
          serviceAccount: naiveText(info, 3),
        },
      };
    }
    case 2:
      return { kind: "del", uid: naiveText(fields, 2) };
    case 5:
      return { kind: "keep", uid: naiveText(fields, 1) };
    default:
      return { kind: "snapshot-sent" };
  }
}

function naiveWrite(value: ZdsRequest): Uint8Array {
  switch (value.kind) {
    case "add": {
      const info = value.workload;
      const workload =
        info &&
        naiveEncode(2, [
          ...naiveEncode(1, info.name),
          ...naiveEncode(2, info.namespace),
          ...naiveEncode(3, info.serviceAccount),
        ]);
      return naiveEncode(1, [...naiveEncode(1, value.uid), ...(workload ?? [])]);
    }
    case "del":
      return naiveEncode(2, naiveEncode(2, value.uid));
    case "keep":
      return naiveEncode(5, naiveEncode(1, value.uid));
    case "snapshot-sent":
      return naiveEncode(3, "");
  }
}
