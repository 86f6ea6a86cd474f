import assert from "node:assert/strict";
import { test } from "node:test";
import { LocalWorkload } from "../../src/proxy/local-workload.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { liveMesh } from "../support/mesh-fixture.ts";
import { workload } from "./recorded-mesh.ts";

const ENROLLED = { uid: "a", name: "client1", namespace: "default", serviceAccount: "client1" };
const known = workload("client1", "10.77.0.11", { trustDomain: "mesh.example" });

for (const [said, trustDomain] of [
  [{}, "mesh.example"],
  [{ trustDomain: "said.example" }, "said.example"],
] as const) {
  test(`the trust domain is ${trustDomain}, once for all connections`, () => {
    const deps = { mesh: liveMesh("node-a"), clock: new FakeClock() };
    const local = new LocalWorkload(deps, { ...ENROLLED, ...said }, 1);
    const identity = local.identity(known);
    assert.deepEqual(identity, { trustDomain, namespace: "default", serviceAccount: "client1" });
    assert.equal(local.identity(known), identity);
  });
}
