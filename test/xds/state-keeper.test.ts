/** The mesh over a restart, in a real folder. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { MeshMemory } from "../../src/state/mesh-memory.ts";
import { MeshState } from "../../src/state/mesh-state.ts";
import { type MeshCommit, MeshWriter } from "../../src/state/mesh-writer.ts";
import { encodeAddress } from "../../src/wire/address-resource.ts";
import { encodeAuthorization } from "../../src/wire/authorization-resource.ts";
import { writeStateFile } from "../../src/xds/state-file.ts";
import { StateKeeper } from "../../src/xds/state-keeper.ts";
import { policy, workload } from "../proxy/recorded-mesh.ts";
import { CapturedLog } from "../support/captured-log.ts";
import { FakeClock } from "../support/fake-clock.ts";

const HOUR_MS = 3_600_000;

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ztunnel-keeper-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function process(startAt?: number) {
  const clock = new FakeClock(startAt);
  const log = new CapturedLog();
  const memory = new MeshMemory();
  const writer = new MeshWriter(memory, { localNode: "node-a" });
  const commits: MeshCommit[] = [];
  const keeper = new StateKeeper(
    { writer, committed: (commit) => commits.push(commit), clock, log: log.root },
    { folder, everyMs: 10_000, ageMsMax: 24 * HOUR_MS },
  );
  return { clock, log, writer, commits, keeper, state: new MeshState(memory) };
}

async function keep(): Promise<ReturnType<typeof process>> {
  const first = process();
  const one = workload("one", "10.0.0.1", { authorizationPolicies: ["default/p"], node: "node-a" });
  first.writer.putAddress(encodeAddress({ kind: "workload", workload: one }), "v1");
  first.writer.putPolicy(encodeAuthorization(policy("p", "Allow", {})), "");
  first.keeper.changed();
  await first.keeper.close();
  return first;
}

test("what one process kept another serves, and offers by its versions", async () => {
  const first = await keep();
  const second = process(first.clock.now() + HOUR_MS);
  assert.equal(await restored(second), first.clock.now());
  const known = second.state.findWorkload("lab//Pod/default/one");
  assert(known !== undefined);
  assert.deepEqual(second.state.policiesFor(known).unknown, []);
  assert.deepEqual([...second.writer.versions("address")], [["lab//Pod/default/one", "v1"]]);
  assert.deepEqual([...second.writer.versions("policy")], [["default/p", ""]]);
  assert.equal(second.commits[0]?.localWorkloads.length, 1);
  assert.match(second.log.lines[0]?.message ?? "", /^serving the mesh that was kept, 3600s old$/);
});

test("changes are written once for many, and at the end", async () => {
  const one = process();
  const file = join(folder, "mesh.state");
  one.keeper.changed();
  one.keeper.changed();
  assert.equal(one.clock.pendingCount, 1);
  await one.clock.advance(9999);
  assert.throws(() => readFileSync(file), { code: "ENOENT" });
  await one.clock.advance(1);
  await one.keeper.close();
  const size = readFileSync(file).length;
  const more = workload("more", "10.0.0.2");
  one.writer.putAddress(encodeAddress({ kind: "workload", workload: more }), "v");
  one.keeper.changed();
  await one.keeper.close();
  assert(readFileSync(file).length > size);
});

test("what is too old is not served", async () => {
  const first = await keep();
  const second = process(first.clock.now() + 25 * HOUR_MS);
  assert.equal(await restored(second), undefined);
  assert.equal(second.state.counts().workloads, 0);
  assert.match(second.log.lines[0]?.message ?? "", /^starting without .*is 90000s old$/);
});

test("a damaged file is told and left alone", async () => {
  await keep();
  writeFileSync(
    join(folder, "mesh.state"),
    "ztunnel mesh 1\nnonsense that is long enough to be a hash",
  );
  const second = process();
  assert.equal(await restored(second), undefined);
  assert.match(second.log.lines[0]?.message ?? "", /is damaged: its checksum differs$/);
});

test("a resource that is not understood any more is left out alone", async () => {
  const one = workload("one", "10.0.0.1");
  await writeStateFile(folder, new FakeClock().now(), [
    { type: "address", name: "odd", version: "v", bytes: new Uint8Array() },
    {
      type: "address",
      name: one.uid,
      version: "v",
      bytes: encodeAddress({ kind: "workload", workload: one }),
    },
  ]);
  const second = process();
  assert.notEqual(await restored(second), undefined);
  assert.equal(second.state.counts().workloads, 1);
  assert.match(second.log.lines[0]?.message ?? "", /^odd of the mesh that was kept: /);
});

test("a policy that is not understood is unknown after a restart, as it was before", async () => {
  const first = process();
  const wide = encodeAuthorization({ ...policy("wide", "Deny", {}), scope: "Namespace" });
  // A rule that is cut off.
  first.writer.refusePolicy("default/wide", Uint8Array.of(...wide, 0x2a, 0x7f));
  first.writer.refusePolicy("default/empty", undefined);
  first.keeper.changed();
  await first.keeper.close();
  const second = process(first.clock.now());
  assert.notEqual(await restored(second), undefined);
  const { unknown, policies } = second.state.policiesFor(workload("one", "10.0.0.1"));
  assert.deepEqual([unknown, policies], [["default/empty", "default/wide"], []]);
  // Not offered, so that it comes again.
  assert.deepEqual([...second.writer.versions("policy")], []);
});

test("what was taken in a future that far off is not served", async () => {
  const first = await keep();
  const second = process(first.clock.now() - 25 * HOUR_MS);
  assert.equal(await restored(second), undefined);
  const third = process(first.clock.now() - HOUR_MS);
  assert.notEqual(await restored(third), undefined);
});

test("what a mesh file says is not kept: the file will say it again", async () => {
  const first = process();
  first.writer.apply([{ kind: "workload", workload: workload("one", "10.0.0.1") }]);
  first.keeper.changed();
  await first.keeper.close();
  const second = process(first.clock.now());
  await restored(second);
  assert.equal(second.state.counts().workloads, 0);
});

test("a folder that can't be written is told", async () => {
  writeFileSync(join(folder, "file"), "");
  folder = join(folder, "file", "below");
  const one = process();
  one.keeper.changed();
  await one.keeper.close();
  folder = join(folder, "../..");
  assert.match(one.log.lines[0]?.message ?? "", /^can't keep the mesh in .*ENOTDIR/);
});

async function restored({ keeper, clock }: ReturnType<typeof process>) {
  const done = keeper.restore();
  await clock.advance(1);
  return done;
}
