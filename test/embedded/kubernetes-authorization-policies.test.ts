import assert from "node:assert/strict";
import { test } from "node:test";
import { Scope } from "../../src/wire/proto/istio-security.ts";
import { meshOf, podYaml } from "./translated-mesh.ts";

function policyYaml(spec: string, metadata = ""): string {
  return `
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop${metadata && `, ${metadata}`}}
spec: {${spec}}
`;
}

const HTTP = [
  "to: [{operation: {hosts: [a]}}]",
  "to: [{operation: {notHosts: [a]}}]",
  "to: [{operation: {methods: [GET]}}]",
  "to: [{operation: {notMethods: [GET]}}]",
  "to: [{operation: {paths: [/]}}]",
  "to: [{operation: {notPaths: [/]}}]",
  "from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]",
  "from: [{source: {notRemoteIpBlocks: [10.0.0.0/8]}}]",
  "from: [{source: {requestPrincipals: [a]}}]",
  "from: [{source: {notRequestPrincipals: [a]}}]",
  "when: [{key: request.auth.principal, values: [a]}]",
  "when: [{key: source.ip, values: [10.0.0.0/8]}, {key: 'request.headers[a]', notValues: [a]}]",
];

for (const rule of HTTP) {
  test(`a rule with ${rule} allows nothing and denies what is left of it`, () => {
    const rules = (action: string) =>
      meshOf(policyYaml(`action: ${action}, rules: [{${rule}}]`)).policies.get("shop/p")?.rules;
    assert.deepEqual(rules("ALLOW"), []);
    assert.equal(rules("DENY")?.length, 1);
  });
}

const SCOPES: readonly (readonly [spec: string, namespace: string, scope: Scope])[] = [
  ["", "shop", Scope.NAMESPACE],
  ["", "istio-system", Scope.GLOBAL],
  ["selector: {matchLabels: {app: a}}", "shop", Scope.WORKLOAD_SELECTOR],
  ["selector: {matchLabels: {app: a}}", "istio-system", Scope.WORKLOAD_SELECTOR],
  ["selector: {}", "shop", Scope.WORKLOAD_SELECTOR],
];

for (const [spec, namespace, scope] of SCOPES) {
  test(`the scope of {${spec}} in ${namespace} is ${scope}`, () => {
    const text = policyYaml(spec).replace("namespace: shop", `namespace: ${namespace}`);
    assert.equal(meshOf(text).policies.get(`${namespace}/p`)?.scope, scope);
  });
}

for (const spec of [
  "action: AUDIT",
  "action: CUSTOM, provider: {name: x}",
  "targetRef: {kind: Gateway, name: w}",
  "targetRefs: [{kind: Gateway, name: w}]",
]) {
  test(`a policy with {${spec}} is none of a proxy's on layer 4`, () => {
    const { policies, mistakes } = meshOf(policyYaml(spec));
    assert.equal(policies.size + mistakes.length, 0);
  });
}

test("a workload names the policies that select it, in its namespace and in the root's", () => {
  const selecting = (name: string, namespace: string, labels: string) =>
    policyYaml(`selector: {matchLabels: {${labels}}}`)
      .replace("name: p", `name: ${name}`)
      .replace("namespace: shop", `namespace: ${namespace}`);
  const { workloads } = meshOf(
    selecting("z", "shop", "app: a") +
      selecting("b", "shop", "app: b") +
      selecting("both", "shop", "app: a, tier: x") +
      selecting("a", "istio-system", "app: a") +
      selecting("o", "other", "app: a") +
      podYaml("one", "labels: {app: a}") +
      podYaml("two", "labels: {app: a, tier: x}") +
      podYaml("three", "labels: {other: a}"),
  );
  assert.deepEqual(
    [...workloads.values()].map(({ authorizationPolicies }) => authorizationPolicies),
    [["istio-system/a", "shop/z"], ["istio-system/a", "shop/both", "shop/z"], []],
  );
});

test("dry-run policies are passed on only when that is asked for", () => {
  const text = policyYaml("action: DENY", 'annotations: {istio.io/dry-run: "true"}');
  assert.equal(meshOf(text).policies.size, 0);
  const passed = meshOf(text, { dryRunPolicies: true }).policies.get("shop/p");
  assert.equal(passed?.dryRun, true);
});
