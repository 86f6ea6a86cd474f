import assert from "node:assert/strict";
import { test } from "node:test";
import { formatSpiffeId, parseSpiffeId, sameIdentity } from "../../src/mesh/identity.ts";

test("a SPIFFE id survives being parsed and formatted", () => {
  for (const uri of ["spiffe://td/ns/shop/sa/web", "spiffe:///ns//sa/"]) {
    const identity = parseSpiffeId(uri);
    assert.ok(identity);
    assert.equal(formatSpiffeId(identity), uri);
  }
});

const refused = [
  "",
  "td/ns/shop/sa/web",
  "https://td/ns/shop/sa/web",
  "spiffe://td/ns/shop/sa",
  "spiffe://td/ns/shop/sa/web/extra",
  "spiffe://td/sa/web/ns/shop",
  "spiffe://td/NS/shop/sa/web",
  "spiffe://td",
];
for (const uri of refused) {
  test(`"${uri}" is no workload identity`, () => assert.equal(parseSpiffeId(uri), undefined));
}

test("identities are the same when all three parts are", () => {
  const identity = { trustDomain: "td", namespace: "shop", serviceAccount: "web" };
  assert.equal(sameIdentity(identity, { ...identity }), true);
  for (const part of ["trustDomain", "namespace", "serviceAccount"]) {
    assert.equal(sameIdentity(identity, { ...identity, [part]: "other" }), false);
  }
});
