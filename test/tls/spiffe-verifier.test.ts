import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { test } from "node:test";
import type { AlternativeName } from "../../src/embedded/certificate-builder.ts";
import { formatSpiffeId } from "../../src/mesh/identity.ts";
import {
  expectIdentity,
  expectTrustDomain,
  peerIdentities,
} from "../../src/tls/spiffe-verifier.ts";
import { dnsName, testCa, testIdentity, uriName } from "../support/test-ca.ts";

const ca = await testCa();
const cart = testIdentity("cart", "shop");
const pay = testIdentity("pay", "shop");
const abroad = testIdentity("cart", "shop", "other.example");

async function leafWith(...names: AlternativeName[]) {
  const [pem] = (await ca.certificate(cart, { names })).chainPem;
  return { leafDer: new X509Certificate(pem as string).raw };
}
const spiffe = (identity: typeof cart) => uriName(formatSpiffeId(identity));

test("all SPIFFE IDs among the URIs count, other names do not", async () => {
  const { leafDer } = await leafWith(
    dnsName("cart.shop.svc"),
    uriName("https://cart.shop.svc"),
    spiffe(cart),
    uriName("spiffe://cluster.local/ns/shop/sa/cart/x"),
    spiffe(pay),
  );
  assert.deepEqual(peerIdentities(leafDer), [cart, pay]);
});

test("a peer with one of the expected identities is let in", async () => {
  const verify = expectIdentity([pay, cart]);
  assert.equal(verify(await leafWith(spiffe(cart))), undefined);
  assert.equal(verify(await leafWith(spiffe(abroad), spiffe(pay))), undefined);
});

test("a peer with another identity is refused in the original's words", async () => {
  assert.equal(
    expectIdentity([cart, pay])(await leafWith(spiffe(abroad), spiffe(testIdentity("x")))),
    "identity verification error: peer did not present the expected SAN " +
      "(spiffe://cluster.local/ns/shop/sa/cart,spiffe://cluster.local/ns/shop/sa/pay), " +
      "got spiffe://other.example/ns/shop/sa/cart,spiffe://cluster.local/ns/default/sa/x",
  );
  assert.equal(
    expectIdentity([cart])(await leafWith(dnsName("spiffe://cluster.local/ns/shop/sa/cart"))),
    "identity verification error: peer did not present the expected SAN " +
      "(spiffe://cluster.local/ns/shop/sa/cart), got ",
  );
});

test("nobody is let in where nobody is expected", async () => {
  assert.ok(expectIdentity([])(await leafWith(spiffe(cart))) !== undefined);
});

test("a peer of another trust domain is refused in the original's words", async () => {
  const verify = expectTrustDomain("cluster.local", []);
  assert.equal(verify(await leafWith(spiffe(abroad), spiffe(pay))), undefined);
  assert.equal(
    verify(await leafWith(spiffe(abroad))),
    "Custom { kind: InvalidData, error: InvalidCertificate(Other(OtherError(" +
      'SanTrustDomainError("cluster.local", [Spiffe { trust_domain: "other.example", ' +
      'namespace: "shop", service_account: "cart" }])))) }',
  );
  assert.ok(verify(await leafWith()) !== undefined);
});

test("a peer of an alias of our trust domain is let in, and no other", async () => {
  const verify = expectTrustDomain("cluster.local", ["other.example", "third.example"]);
  assert.equal(verify(await leafWith(spiffe(abroad))), undefined);
  assert.equal(verify(await leafWith(spiffe(cart))), undefined);
  assert.match(
    verify(await leafWith(uriName("spiffe://fourth.example/ns/shop/sa/cart"))) ?? "",
    /SanTrustDomainError\("cluster.local", \[Spiffe \{ trust_domain: "fourth.example"/,
  );
});
