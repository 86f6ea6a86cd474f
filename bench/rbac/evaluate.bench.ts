/** Judges connections against 1,000 policies: what an inbound connection pays before its first byte. */
import assert from "node:assert/strict";
import type { AuthorizationPolicy, RbacConnection } from "../../src/mesh/authorization.ts";
import { parseSpiffeId } from "../../src/mesh/identity.ts";
import { evaluatePolicies } from "../../src/rbac/evaluate.ts";
import { address, cidr, mesh } from "../../test/support/mesh-fixture.ts";
import { report } from "../measure.ts";
import { timeCases } from "../timed-cases.ts";

const COUNT = 1000;

const connection: RbacConnection = {
  source: address("10.1.2.3:40000"),
  sourceIdentity: parseSpiffeId("spiffe://cluster.local/ns/shop/sa/web"),
  destination: address("10.0.0.2:8080"),
  destinationNetwork: "",
};

function policies(make: (i: number) => AuthorizationPolicy): AuthorizationPolicy[] {
  return Array.from({ length: COUNT }, (_, i) => make(i));
}

/** None matches, so that every policy is looked at. */
const sets: Record<string, AuthorizationPolicy[]> = {
  "principals, deny": policies(
    (i) =>
      mesh.deny(`d${i}`).rule({
        principals: [{ kind: "exact", value: `cluster.local/ns/shop/sa/web-${i}` }],
      }).value,
  ),
  "prefixes and suffixes, allow": policies(
    (i) =>
      mesh
        .allow(`a${i}`)
        .rule(
          { principals: [{ kind: "prefix", value: `cluster.local/ns/ns-${i}/` }] },
          { principals: [{ kind: "suffix", value: `/sa/sa-${i}` }] },
        ).value,
  ),
  "ranges and ports, deny": policies(
    (i) =>
      mesh.deny(`d${i}`).rule({
        sourceIps: [cidr(`10.${i % 256}.128.0/17`), cidr("10.1.0.0/16")],
        destinationPorts: [i + 10_000],
      }).value,
  ),
  "strict mutual TLS, deny": policies(
    (i) => mesh.deny(`d${i}`).rule({ notPrincipals: [{ kind: "presence" }] }).value,
  ),
};

const work = Object.entries(sets).map(([name, set]) => {
  const expected = set[0]?.action === "Allow" ? "deny" : "allow";
  assert.equal(evaluatePolicies(set, connection).kind, expected);
  const judge = (): void => {
    evaluatePolicies(set, connection);
  };
  return [`judge a connection (1,000 policies: ${name})`, judge] as const;
});
report(await timeCases(Object.fromEntries(work)));
