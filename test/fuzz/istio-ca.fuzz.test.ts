import assert from "node:assert/strict";
import fc from "fast-check";
import { createCertificateMethod } from "../../src/wire/istio-ca.ts";
import { WireError } from "../../src/wire/wire-error.ts";
import { naiveBytes, naiveEncode, naiveFields, naiveText } from "../support/naive-codecs.ts";
import { fuzz, lawful, mutated, record } from "./fuzz.ts";

const {
  requestSerialize: encodeCertificateRequest,
  requestDeserialize: decodeCertificateRequest,
  responseSerialize: encodeCertificateResponse,
  responseDeserialize: decodeCertificateResponse,
} = createCertificateMethod;

const text = fc.string({ unit: "grapheme", maxLength: 60 });
const request = record({
  csrPem: text,
  validitySeconds: fc.maxSafeInteger(),
  impersonatedIdentity: fc.option(text, { nil: undefined }),
});
const response = record({ certChain: fc.array(text, { maxLength: 4 }) });

const isWireError = (error: unknown): boolean => error instanceof WireError;

fuzz(
  "a certificate request reads back as it was written",
  fc.property(request, (value) => {
    assert.deepEqual(decodeCertificateRequest(encodeCertificateRequest(value)), value);
  }),
);

fuzz(
  "a certificate request is what a naive reader sees",
  fc.property(request, ({ csrPem, impersonatedIdentity }) => {
    const bytes = encodeCertificateRequest({ csrPem, validitySeconds: 60, impersonatedIdentity });
    const fields = naiveFields(bytes);
    assert.equal(naiveText(fields, 1), csrPem);
    assert.equal(fields.find((field) => field.number === 3)?.value, 60);
    const struct = naiveBytes(fields, 4);
    if (struct === undefined) return assert.equal(impersonatedIdentity, undefined);
    const entry = naiveFields(naiveBytes(naiveFields(struct), 1) ?? new Uint8Array());
    assert.equal(naiveText(entry, 1), "ImpersonatedIdentity");
    const value = naiveFields(naiveBytes(entry, 2) ?? new Uint8Array());
    assert.equal(naiveText(value, 3), impersonatedIdentity);
  }),
);

fuzz(
  "a certificate chain reads back and is what a naive writer writes",
  fc.property(response, (value) => {
    const bytes = encodeCertificateResponse(value);
    assert.deepEqual(decodeCertificateResponse(bytes), value);
    const naive = value.certChain.flatMap((element) => [...naiveEncode(1, element)]);
    assert.deepEqual([...bytes], naive);
  }),
);

for (const [name, decode, valid] of [
  ["a certificate request", decodeCertificateRequest, request.map(encodeCertificateRequest)],
  ["a certificate chain", decodeCertificateResponse, response.map(encodeCertificateResponse)],
] as const) {
  fuzz(
    `${name} of any or damaged bytes is a value or a WireError`,
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 80 }), mutated(valid)), (bytes) => {
      lawful(() => decode(bytes), isWireError);
    }),
  );
}
