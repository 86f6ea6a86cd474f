import { readFileSync } from "node:fs";
import fc from "fast-check";
import { decodeAddress, encodeAddress } from "../../src/wire/address-resource.ts";
import {
  decodeAuthorization,
  encodeAuthorization,
  readPolicyScope,
} from "../../src/wire/authorization-resource.ts";
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

fuzz(
  "an address of damaged bytes is refused or can be written again",
  fc.property(mutated(fc.constantFrom(...recorded("addresses"))), (bytes) => {
    const address = lawful(() => decodeAddress(bytes), isWireError);
    if (address !== undefined) decodeAddress(encodeAddress(address));
  }),
);

fuzz(
  "a policy of damaged bytes is refused or can be written again",
  fc.property(mutated(fc.constantFrom(...recorded("authorizations"))), (bytes) => {
    const policy = lawful(() => decodeAuthorization(bytes), isWireError);
    if (policy !== undefined) decodeAuthorization(encodeAuthorization(policy));
    // Of a policy that is refused, whom it is about.
    readPolicyScope(bytes);
  }),
);

function isWireError(error: unknown): boolean {
  return error instanceof WireError;
}
