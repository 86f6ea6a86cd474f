/** Threads that read while another writes: no answer may be made of two moments. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { systemClock } from "../../src/runtime/clock.ts";
import { MeshMemory } from "../../src/state/mesh-memory.ts";
import { MeshWriter } from "../../src/state/mesh-writer.ts";
import { asUpdate, mesh, seededRandom, type WorkloadBuilder } from "../support/mesh-fixture.ts";
import { type HammerOptions, type HammerResult, steadyAddress } from "../support/mesh-hammer.ts";

const STEADY = 200;
const PASSING = 400;
const WRITING_MS = 1000;

test("readers never see half of a change, however fast the writer is", {
  timeout: 20_000,
}, async (t) => {
  const memory = new MeshMemory();
  const writer = new MeshWriter(memory, { localNode: undefined });
  const crowd = mesh.service("crowd").at("10.96.0.1").port(80, 8080);
  const random = seededRandom(5);
  const upTo = (count: number): number => Math.floor(random.unit() * count);
  const versioned = (builder: WorkloadBuilder): WorkloadBuilder => {
    const version = String(upTo(100_000));
    // Of many lengths, so that freed memory is used again for something else.
    const workloadName = `${version}-${"x".repeat(Number(version) % 400)}`;
    return builder.with({ canonicalRevision: version, workloadName }).on(version);
  };
  const steady = (i: number): WorkloadBuilder =>
    versioned(mesh.workload(`steady-${i}`).at(steadyAddress(i)).behind(crowd));
  writer.apply([asUpdate(crowd), asUpdate(mesh.deny("p").scope("Global"))]);
  for (let i = 0; i < STEADY; i++) writer.apply([asUpdate(steady(i))]);

  const stop = new SharedArrayBuffer(4);
  const options: HammerOptions = { buffer: memory.buffer, stop, steady: STEADY };
  const threads = [1, 2].map(
    () =>
      new Worker(new URL("../support/mesh-hammer.ts", import.meta.url), { workerData: options }),
  );
  await Promise.all(threads.map((thread) => once(thread, "message")));
  const results = threads.map(async (thread) => (await once(thread, "message"))[0] as HammerResult);
  const end = systemClock.monotonic() + WRITING_MS;
  let writes = 0;
  while (systemClock.monotonic() < end) {
    const passing = mesh.workload(`passing-${upTo(PASSING)}`).behind(crowd);
    writer.apply([
      asUpdate(steady(upTo(STEADY))),
      upTo(2) === 0
        ? asUpdate(versioned(passing.at(`10.2.0.${upTo(256)}`)))
        : { kind: "remove-address", name: passing.value.uid },
      asUpdate(writes % 2 === 0 ? crowd.canonical() : crowd),
      asUpdate(mesh.deny("p").scope("Global")),
    ]);
    writes++;
  }
  Atomics.store(new Int32Array(stop), 0, 1);
  for (const { lookups, mistakes } of await Promise.all(results)) {
    t.diagnostic(`${lookups} lookups during ${writes} writes`);
    assert.deepEqual(mistakes, []);
    assert.ok(lookups > 1000, `only ${lookups} lookups`);
  }
  assert.ok(writes > 20, `only ${writes} writes`);
});
