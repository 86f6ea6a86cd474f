import { readFileSync } from "node:fs";
import fc from "fast-check";
import { decodeMessage, encodeMessage, type MessageCodec } from "../../src/wire/message-codec.ts";
import { Authorization } from "../../src/wire/proto/istio-security.ts";
import { Address } from "../../src/wire/proto/istio-workload.ts";
import { WireError } from "../../src/wire/wire-error.ts";
import { naiveBytes, naiveFields } from "../support/naive-codecs.ts";
import { fuzz, lawful, mutated } from "./fuzz.ts";

/** The messages of a recorded discovery response. */
function recorded(file: string): readonly Uint8Array[] {
  const bytes = readFileSync(new URL(`../wire/recorded/${file}.bin`, import.meta.url));
  return naiveFields(bytes)
    .filter((field) => field.number === 2)
    .map((field) => {
      const any = naiveBytes(naiveFields(field.value as Uint8Array), 2) ?? new Uint8Array();
      return naiveBytes(naiveFields(any), 2) ?? new Uint8Array();
    });
}

const cases: readonly (readonly [string, MessageCodec<unknown>, readonly Uint8Array[]])[] = [
  ["an address", Address as MessageCodec<unknown>, recorded("addresses")],
  ["a policy", Authorization as MessageCodec<unknown>, recorded("authorizations")],
];

for (const [name, codec, seeds] of cases) {
  fuzz(
    `${name} of damaged bytes is refused or can be written again`,
    fc.property(mutated(fc.constantFrom(...seeds)), (bytes) => {
      const message = lawful(
        () => decodeMessage(name, codec, bytes),
        (error) => error instanceof WireError,
      );
      if (message === undefined) return;
      decodeMessage(name, codec, encodeMessage(codec, message));
    }),
  );
}
