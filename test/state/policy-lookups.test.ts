import assert from "node:assert/strict";
import { test } from "node:test";
import { asUpdate, mesh } from "../support/mesh-fixture.ts";

const web = mesh.workload("web").in("shop");

function names(state: ReturnType<typeof mesh.state>, workload = web): string[] {
  return state.policiesFor(workload.value).policies.map(({ name }) => name);
}

test("a workload gets the policies of its namespace, the global ones and its own", () => {
  const state = mesh.state(
    mesh.allow("selected", "shop"),
    mesh.allow("unselected", "shop"),
    mesh.deny("everywhere", "istio-system").scope("Global"),
    mesh.allow("shop-wide", "shop").scope("Namespace"),
    mesh.allow("elsewhere", "other").scope("Namespace"),
  );
  const workload = web.policies("shop/selected");
  assert.deepEqual(names(state, workload), ["shop-wide", "everywhere", "selected"]);
});

test("a policy that nobody has defined is named, not invented", () => {
  const state = mesh.state(mesh.allow("known", "shop"));
  const { policies, unknown } = state.policiesFor(web.policies("shop/known", "shop/gone").value);
  assert.deepEqual(
    policies.map(({ name }) => name),
    ["known"],
  );
  assert.deepEqual(unknown, ["shop/gone"]);
});

test("a policy that changes its scope no longer applies to the old one", () => {
  const policy = mesh.deny("p", "shop");
  const state = mesh.state(policy.scope("Namespace"));
  assert.deepEqual(names(state), ["p"]);
  state.apply([asUpdate(policy.scope("WorkloadSelector"))]);
  assert.deepEqual(names(state), []);
  state.apply([asUpdate(policy.scope("Global"))]);
  assert.deepEqual(names(state), ["p"]);
  state.apply([asUpdate(mesh.deny("p", "shop").scope("Namespace"))]);
  assert.deepEqual(names(state, mesh.workload("web").in("other")), []);
  assert.equal(state.counts().policies, 1);
});

test("a removed policy applies to nobody", () => {
  const state = mesh.state(
    mesh.deny("a", "shop").scope("Namespace"),
    mesh.deny("b", "shop").scope("Global"),
    mesh.deny("c", "shop"),
  );
  const workload = web.policies("shop/c");
  const removals = ["shop/a", "shop/b", "shop/c"].map(
    (name) => ({ kind: "remove-policy", name }) as const,
  );
  assert.equal(state.apply(removals).policiesChanged, true);
  assert.deepEqual(names(state, workload), []);
  assert.equal(state.counts().policies, 0);
});

test("removing a policy that was never known changes nothing", () => {
  const state = mesh.state();
  const change = state.apply([{ kind: "remove-policy", name: "shop/never" }]);
  assert.equal(change.policiesChanged, false);
});
