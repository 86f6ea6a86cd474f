import assert from "node:assert/strict";
import { test } from "node:test";
import type { RbacConnection } from "../../src/mesh/authorization.ts";
import { parseSpiffeId } from "../../src/mesh/identity.ts";
import { evaluatePolicies } from "../../src/rbac/evaluate.ts";
import { address, mesh, type PolicyBuilder } from "../support/mesh-fixture.ts";

const connection: RbacConnection = {
  source: address("10.0.0.1:40000"),
  sourceIdentity: parseSpiffeId("spiffe://td/ns/shop/sa/web"),
  destination: address("10.0.0.2:8080"),
  destinationNetwork: "",
};
const HIT = { destinationPorts: [8080] };
const MISS = { destinationPorts: [1] };

function judge(policies: readonly PolicyBuilder[]): { verdict: string; trace: string[] } {
  const trace: string[] = [];
  const values = policies.map(({ value }) => value);
  const verdict = evaluatePolicies(values, connection, (event, key) =>
    trace.push(key === undefined ? event : `${event} ${key}`),
  );
  // The trace must not decide anything.
  assert.deepEqual(evaluatePolicies(values, connection), verdict);
  return { verdict: verdict.kind === "allow" ? "allow" : verdict.reason, trace };
}

const cases: readonly [title: string, PolicyBuilder[], verdict: string, trace: string[]][] = [
  ["without policies everything is allowed", [], "allow", ["no allow policies, allow"]],
  [
    "a deny policy that matches denies",
    [mesh.deny("d").rule(HIT)],
    "explicitly denied by: default/d",
    ["deny policy match default/d"],
  ],
  [
    "a deny policy that does not match lets pass",
    [mesh.deny("d").rule(MISS)],
    "allow",
    ["no allow policies, allow"],
  ],
  [
    "an allow policy that matches allows",
    [mesh.allow("miss").rule(MISS), mesh.allow("a").rule(HIT)],
    "allow",
    ["allow policy match default/a"],
  ],
  [
    "with allow policies, none of which matches, nothing is allowed",
    [mesh.allow("a").rule(MISS)],
    "allow policies exist, but none allowed",
    ["no allow policies matched"],
  ],
  [
    "deny wins over allow",
    [mesh.allow("a").rule(HIT), mesh.deny("d").rule(HIT)],
    "explicitly denied by: default/d",
    ["deny policy match default/d"],
  ],
  [
    "an allow policy decides when no deny policy matches",
    [mesh.deny("d").rule(MISS), mesh.allow("a").rule(HIT)],
    "allow",
    ["allow policy match default/a"],
  ],
  [
    "an allow policy without rules allows nothing",
    [mesh.allow("nothing")],
    "allow policies exist, but none allowed",
    ["no allow policies matched"],
  ],
  [
    "a deny policy without rules denies nothing",
    [mesh.deny("nothing")],
    "allow",
    ["no allow policies, allow"],
  ],
  [
    "a dry-run deny only speaks",
    [mesh.deny("d").dryRun().rule(HIT)],
    "allow",
    ["dry-run: deny policy match default/d", "no allow policies, allow"],
  ],
  [
    "a dry-run deny speaks before an enforced one denies",
    [mesh.deny("d").rule(HIT), mesh.deny("dry").dryRun().rule(HIT)],
    "explicitly denied by: default/d",
    ["dry-run: deny policy match default/dry", "deny policy match default/d"],
  ],
  [
    "a dry-run allow does not make others need an allow",
    [mesh.allow("dry").dryRun().rule(MISS)],
    "allow",
    ["dry-run: no allow policies match", "no allow policies, allow"],
  ],
  [
    "a dry-run allow that matches only speaks",
    [mesh.allow("dry").dryRun().rule(HIT)],
    "allow",
    ["dry-run: allow policy match default/dry", "no allow policies, allow"],
  ],
  [
    "a dry-run allow does not open what enforced policies keep shut",
    [mesh.allow("dry").dryRun().rule(HIT), mesh.allow("a").rule(MISS)],
    "allow policies exist, but none allowed",
    ["dry-run: allow policy match default/dry", "no allow policies matched"],
  ],
  [
    "the would-be denial is silent when enforced policies decide",
    [mesh.allow("dry").dryRun().rule(MISS), mesh.allow("a").rule(HIT)],
    "allow",
    ["allow policy match default/a"],
  ],
];
for (const [title, policies, verdict, trace] of cases) {
  test(title, () => assert.deepEqual(judge(policies), { verdict, trace }));
}
