import assert from "node:assert/strict";
import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { test } from "node:test";
import { CertificationRequest, Extensions } from "pkijs";
import { createCertificateRequest } from "../../src/tls/csr.ts";
import { testIdentity } from "../support/test-ca.ts";

const cart = testIdentity("cart", "shop");

test("a request has an empty subject and one critical URI SAN, and is signed by its key", async () => {
  const { csrPem, privateKeyPem } = await createCertificateRequest(cart);
  const der = Buffer.from(csrPem.replaceAll(/-----[^-]*-----/g, ""), "base64");
  const request = CertificationRequest.fromBER(new Uint8Array(der).buffer);

  assert.equal(Buffer.from(request.subject.toSchema().toBER()).toString("hex"), "3000");
  assert.ok(await request.verify());
  assert.equal(request.signatureAlgorithm.algorithmId, "1.2.840.10045.4.3.2");
  assert.equal(request.attributes?.length, 1);
  const asked = new Extensions({ schema: request.attributes?.[0]?.values[0] }).extensions;
  assert.equal(asked.length, 1);
  assert.equal(asked[0]?.extnID, "2.5.29.17");
  assert.equal(asked[0]?.critical, true);
  assert.deepEqual(
    asked[0]?.parsedValue.altNames.map((n: { type: number; value: string }) => [n.type, n.value]),
    [[6, "spiffe://cluster.local/ns/shop/sa/cart"]],
  );

  assert.match(privateKeyPem, /^-----BEGIN PRIVATE KEY-----\n/);
  const key = createPrivateKey(privateKeyPem);
  assert.equal(key.asymmetricKeyDetails?.namedCurve, "prime256v1");
  const spki = Buffer.from(request.subjectPublicKeyInfo.toSchema().toBER());
  const publicKey = createPublicKey({ key: spki, format: "der", type: "spki" });
  const text = Buffer.from("text");
  assert.ok(verify("sha256", text, publicKey, sign("sha256", text, key)));
});

test("every request has a key of its own", async () => {
  const [one, two] = await Promise.all([
    createCertificateRequest(cart),
    createCertificateRequest(cart),
  ]);
  assert.notEqual(one.privateKeyPem, two.privateKeyPem);
});
