import assert from "node:assert/strict";
import { test } from "node:test";
import type { Workload } from "../../src/mesh/workload.ts";
import { LocalWorkload } from "../../src/proxy/local-workload.ts";
import { ProxyError } from "../../src/proxy/proxy-error.ts";
import { CapturedLog } from "../support/captured-log.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { liveMesh } from "../support/mesh-fixture.ts";
import { workload } from "./recorded-mesh.ts";

const ENROLLED = { uid: "a", name: "client1", namespace: "default", serviceAccount: "client1" };
const known = workload("client1", "10.77.0.11", { node: "node-a", trustDomain: "mesh.example" });

const EXPECTED = "failed to fetch information about local workload: client1.default (client1)";

/** Waits for it for a second. */
function waiting() {
  const [mesh, clock, log] = [liveMesh("node-a"), new FakeClock(), new CapturedLog("info")];
  const local = new LocalWorkload({ mesh, clock }, ENROLLED, 1000);
  const learn = (workload: Workload): void => {
    mesh.apply([{ kind: "workload", workload }]);
  };
  return { learn, clock, log, wait: () => local.waitFor(() => log.root) };
}

test("wait_for_workload: one that is known is there at once", async () => {
  const { learn, clock, wait } = waiting();
  learn(known);
  assert.deepEqual(await wait(), known);
  assert.equal(clock.pendingCount, 0);
});

test("wait_for_workload: one that comes later is taken as soon as it does, another is not", async () => {
  const { learn, clock, log, wait } = waiting();
  const found = wait();
  await clock.advance(999);
  learn(workload("client2", "10.77.0.12", { node: "node-a" }));
  learn(known);
  assert.deepEqual(await found, known);
  assert.deepEqual([clock.pendingCount, log.lines.length], [0, 0]);
});

test("wait_for_workload: one that never comes is an error when the time is over", async () => {
  const { clock, log, wait } = waiting();
  const found = wait();
  await clock.advance(1000);
  const error = await found;
  assert.ok(error instanceof ProxyError);
  assert.equal(error.message, EXPECTED);
  assert.match(log.lines[0]?.message ?? "", /^timed out waiting for workload '.*' from xds$/);
});

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
