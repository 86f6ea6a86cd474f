import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { createCertificateMethod } from "../../src/wire/istio-ca.ts";

const {
  requestSerialize: encodeCertificateRequest,
  requestDeserialize: decodeCertificateRequest,
  responseSerialize: encodeCertificateResponse,
  responseDeserialize: decodeCertificateResponse,
} = createCertificateMethod;

const recorded = (name: string): Buffer =>
  readFileSync(new URL(`recorded/${name}.bin`, import.meta.url));

describe("the call to the certificate authority", () => {
  test("has the path of Istio's service", () => {
    assert.equal(
      createCertificateMethod.path,
      "/istio.v1.auth.IstioCertificateService/CreateCertificate",
    );
  });

  test("a recorded request for a pod decodes and encodes to the same bytes", () => {
    const bytes = recorded("certificate-request");
    const request = decodeCertificateRequest(bytes);
    assert.equal(request.impersonatedIdentity, "spiffe://cluster.local/ns/shop/sa/frontend");
    assert.equal(request.validitySeconds, 86400);
    assert.match(request.csrPem, /^-----BEGIN CERTIFICATE REQUEST-----\n/);
    assert.deepEqual(Buffer.from(encodeCertificateRequest(request)), bytes);
  });

  test("a recorded request for the own identity has no metadata", () => {
    const bytes = recorded("own-certificate-request");
    const request = decodeCertificateRequest(bytes);
    assert.equal(request.impersonatedIdentity, undefined);
    assert.deepEqual(Buffer.from(encodeCertificateRequest(request)), bytes);
  });

  test("a recorded answer decodes and encodes to the same bytes", () => {
    const bytes = recorded("certificate-response");
    const response = decodeCertificateResponse(bytes);
    assert.equal(response.certChain.length, 4);
    assert.equal(response.certChain[3]?.split("-----BEGIN CERTIFICATE-----").length, 3);
    assert.deepEqual(Buffer.from(encodeCertificateResponse(response)), bytes);
  });

  test("an identity that is not text is no identity", () => {
    // metadata { ImpersonatedIdentity: 1.0 }
    const value = Buffer.from("11000000000000f03f", "hex");
    const key = Buffer.from("ImpersonatedIdentity");
    const entry = Buffer.concat([
      Buffer.from([0x0a, key.length]),
      key,
      Buffer.from([0x12, value.length]),
      value,
    ]);
    const struct = Buffer.concat([Buffer.from([0x0a, entry.length]), entry]);
    const bytes = Buffer.concat([Buffer.from([0x22, struct.length]), struct]);
    assert.equal(decodeCertificateRequest(bytes).impersonatedIdentity, undefined);
  });

  test("a validity that no number can hold is refused", () => {
    assert.throws(() => decodeCertificateRequest(Buffer.from("18ffffffffffffffff7f", "hex")), {
      name: "WireError",
      code: "malformed",
    });
  });

  test("the serializers give the buffers that a gRPC library wants", () => {
    const request = { csrPem: "pem", validitySeconds: 3600, impersonatedIdentity: undefined };
    assert(Buffer.isBuffer(encodeCertificateRequest(request)));
    assert(Buffer.isBuffer(encodeCertificateResponse({ certChain: [] })));
  });

  test("an answer that is cut off is refused", () => {
    const bytes = recorded("certificate-response");
    assert.throws(() => decodeCertificateResponse(bytes.subarray(0, 100)), { code: "malformed" });
  });
});
