/** From a control plane's answer to what proxies read. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeAddress } from "../../src/wire/address-resource.ts";
import { encodeAuthorization } from "../../src/wire/authorization-resource.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource } from "../../src/wire/delta-discovery.ts";
import { DeltaClient } from "../../src/xds/delta-client.ts";
import { meshSubscription } from "../../src/xds/mesh-subscription.ts";
import { type LiveMesh, liveMesh, mesh, type PolicyBuilder } from "../support/mesh-fixture.ts";

function setup(): {
  state: LiveMesh;
  answer: (...resources: Resource[]) => string | undefined;
  beginAnew: () => void;
} {
  const state = liveMesh("node-1");
  const committed = (): void => {};
  const client = new DeltaClient(
    meshSubscription({ writer: state.writer, committed }, { onDemand: false }),
    { node: { id: "", metadata: {} }, offeredBytesMax: 1e6 },
  );
  client.open();
  const answer = (...resources: Resource[]): string | undefined => {
    const typeUrl = resources[0]?.resource?.typeUrl ?? AUTHORIZATION_TYPE;
    const exchange = client.receive({
      systemVersionInfo: "",
      typeUrl,
      nonce: "",
      resources,
      removedResources: [],
    });
    while (exchange.step(10));
    return exchange.finish().errorDetail?.message;
  };
  return { state, answer, beginAnew: () => void client.open() };
}

function policyResource({ value }: PolicyBuilder, rest: readonly number[] = []): Resource {
  const bytes = Uint8Array.of(...encodeAuthorization(value), ...rest);
  const resource = { typeUrl: AUTHORIZATION_TYPE, value: bytes };
  return { name: `${value.namespace}/${value.name}`, version: "", aliases: [], resource };
}

/** A rule that is cut off. */
const BROKEN = [0x2a, 0x7f];

test("policies that are refused are unknown wherever they may apply", () => {
  const { state, answer } = setup();
  const reasons = answer(
    policyResource(mesh.deny("wide", "shop").scope("Namespace"), BROKEN),
    policyResource(mesh.deny("all", "root").scope("Global"), BROKEN),
    policyResource(mesh.deny("chosen", "shop"), BROKEN),
    policyResource(mesh.deny("fine", "shop").scope("Namespace")),
    { name: "shop/empty", version: "", aliases: [], resource: undefined },
  );
  assert.equal(reasons?.split("; ").length, 4);
  const unknown = (namespace: string, ...policies: string[]): readonly string[] =>
    state.policiesFor(
      mesh
        .workload("w")
        .in(namespace)
        .policies(...policies).value,
    ).unknown;
  assert.deepEqual(unknown("shop"), ["shop/empty", "shop/wide", "root/all"]);
  assert.deepEqual(unknown("other"), ["root/all"]);
  assert.deepEqual(unknown("other", "shop/chosen"), ["root/all", "shop/chosen"]);
  const { policies } = state.policiesFor(mesh.workload("w").in("shop").value);
  assert.deepEqual(
    policies.map(({ name }) => name),
    ["fine"],
  );
});

test("an earlier version of a refused policy stays in force, a later one takes its place", () => {
  const { state, answer } = setup();
  const policy = mesh.deny("p", "shop").scope("Namespace");
  const { value } = mesh.workload("w").in("shop");
  const applies = (): [string[], readonly string[]] => {
    const { policies, unknown } = state.policiesFor(value);
    return [policies.map(({ name, action }) => `${action} ${name}`), unknown];
  };
  answer(policyResource(policy, BROKEN));
  assert.deepEqual(applies(), [[], ["shop/p"]]);
  answer(policyResource(policy));
  assert.deepEqual(applies(), [["Deny p"], []]);
  assert.match(answer(policyResource(policy, BROKEN)) ?? "", /^shop\/p: undecodable Authorization/);
  assert.deepEqual(applies(), [["Deny p"], []]);
});

test("a refused policy that went while nobody listened is forgotten with the next conversation", () => {
  const { state, answer, beginAnew } = setup();
  const gone = policyResource(mesh.deny("gone", "shop").scope("Namespace"), BROKEN);
  const stays = policyResource(mesh.deny("stays", "shop").scope("Namespace"), BROKEN);
  const { value } = mesh.workload("w").in("shop");
  answer(gone, stays);
  beginAnew();
  assert.deepEqual(state.policiesFor(value).unknown, ["shop/gone", "shop/stays"]);
  answer(stays);
  assert.deepEqual(state.policiesFor(value).unknown, ["shop/stays"]);
});

test("names too long to be kept are refused, and stop neither what comes beside them nor the stream", () => {
  const { state, answer } = setup();
  const long = "x".repeat(70_000);
  const too = /: name or version of more than 65535 bytes$/;
  const addressOf = (name: string): Resource => {
    const { value } = mesh.workload(name);
    const bytes = encodeAddress({ kind: "workload", workload: value });
    const resource = { typeUrl: ADDRESS_TYPE, value: bytes };
    return { name: value.uid, version: "1", aliases: [], resource };
  };
  assert.match(answer(addressOf(long), addressOf("fine")) ?? "", too);
  assert.equal(state.findWorkload(mesh.workload("fine").value.uid)?.name, "fine");
  const wide = (name: string): PolicyBuilder => mesh.deny(name, "shop").scope("Namespace");
  assert.match(answer(policyResource(wide(long)), policyResource(wide("fine"))) ?? "", too);
  const { policies, unknown } = state.policiesFor(mesh.workload("w").in("shop").value);
  assert.deepEqual([policies.map(({ name }) => name), unknown], [["fine"], []]);
});

test("a workload that is refused leaves its earlier version, with its version", () => {
  const { state, answer } = setup();
  const { value } = mesh.workload("w");
  const bytes = encodeAddress({ kind: "workload", workload: value });
  const resource = { typeUrl: ADDRESS_TYPE, value: bytes };
  const named = { name: value.uid, aliases: [] };
  answer({ ...named, version: "1", resource });
  const broken = { typeUrl: ADDRESS_TYPE, value: bytes.subarray(0, -1) };
  assert.match(answer({ ...named, version: "2", resource: broken }) ?? "", /undecodable Address/);
  assert.deepEqual(state.findWorkload(value.uid), value);
  assert.equal(state.writer.versionOf("address", value.uid), "1");
});
