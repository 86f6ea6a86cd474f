import assert from "node:assert/strict";
import { test } from "node:test";
import type { PolicyMatch, RbacConnection } from "../../src/mesh/authorization.ts";
import { parseSpiffeId } from "../../src/mesh/identity.ts";
import { evaluatePolicies } from "../../src/rbac/evaluate.ts";
import { explainPolicy } from "../../src/rbac/policy-explanation.ts";
import { address, cidr, mesh } from "../support/mesh-fixture.ts";

const connection: RbacConnection = {
  source: address("10.0.0.1:40000"),
  sourceIdentity: parseSpiffeId("spiffe://td/ns/shop/sa/web"),
  destination: address("10.0.0.2:8080"),
  destinationNetwork: "",
};
const exact = (value: string): { kind: "exact"; value: string } => ({ kind: "exact", value });

const MISSES: readonly [match: Partial<PolicyMatch>, missing: string][] = [
  [
    { namespaces: [exact("a"), { kind: "prefix", value: "b" }] },
    "source namespace shop is none of a, b*",
  ],
  [{ notNamespaces: [{ kind: "suffix", value: "op" }] }, "source namespace shop is *op"],
  [
    { principals: [exact("td/ns/a/sa/b")] },
    "source principal td/ns/shop/sa/web is not td/ns/a/sa/b",
  ],
  [{ notPrincipals: [{ kind: "presence" }] }, "source principal td/ns/shop/sa/web is *"],
  [
    { serviceAccounts: [{ namespace: "shop", serviceAccount: "db" }] },
    "source service account shop/web is not shop/db",
  ],
  [{ sourceIps: [cidr("10.1.0.0/16")] }, "source address 10.0.0.1 is not 10.1.0.0/16"],
  [{ notSourceIps: [cidr("10.0.0.0/8")] }, "source address 10.0.0.1 is 10.0.0.0/8"],
  [{ destinationIps: [cidr("10.1.0.0/16")] }, "destination address 10.0.0.2 is not 10.1.0.0/16"],
  [{ destinationPorts: [80, 443] }, "destination port 8080 is none of 80, 443"],
  [{ notDestinationPorts: [8080, 9090] }, "destination port 8080 is one of 8080, 9090"],
  [{}, "it asks for something that is not known at this layer"],
];

for (const [match, missing] of MISSES) {
  test(`a miss is told: ${missing}`, () => {
    const policy = mesh.allow("p").rule(match).value;
    assert.deepEqual(explainPolicy(policy, connection), {
      policy: "default/p",
      action: "Allow",
      dryRun: false,
      matches: false,
      rule: 1,
      missing: [missing],
    });
    assert.equal(evaluatePolicies([policy], connection).kind, "deny");
  });
}

test("the rule that matches is named, and nothing is missing", () => {
  const policy = mesh
    .deny("p")
    .rule({ destinationPorts: [1] })
    .rule({ destinationPorts: [8080] }).value;
  const { matches, rule, missing } = explainPolicy(policy, connection);
  assert.deepEqual([matches, rule, missing], [true, 2, []]);
});

test("of several rules the one that lacks least is the nearest", () => {
  const policy = mesh
    .allow("p")
    .rule({ destinationPorts: [1], namespaces: [exact("a")] })
    .rule({ destinationPorts: [2] }).value;
  const { rule, missing } = explainPolicy(policy, connection);
  assert.deepEqual([rule, missing], [2, ["destination port 8080 is not 2"]]);
});

test("a policy without a rule says so, and a source without an identity too", () => {
  assert.deepEqual(explainPolicy(mesh.allow("p").value, connection).missing, ["it has no rule"]);
  const policy = mesh.allow("p").rule({ principals: [exact("td/ns/a/sa/b")] }).value;
  assert.deepEqual(explainPolicy(policy, { ...connection, sourceIdentity: undefined }).missing, [
    "a source without an identity is not td/ns/a/sa/b",
  ]);
});
