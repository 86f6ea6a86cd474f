/** Both data planes in real namespaces, and what only one with threads of its own can do. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { DataThreadOptions } from "../../src/dataplane/data-thread.ts";
import { startDataThreads } from "../../src/dataplane/data-threads.ts";
import { InlineDataPlane } from "../../src/dataplane/inline-data-plane.ts";
import { makeEngine } from "../../src/dataplane/make-engine.ts";
import { WorkerDataPlane } from "../../src/dataplane/worker-data-plane.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { measureLoopDelay } from "../../src/runtime/loop-delay.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { makeAffinityMemory } from "../../src/state/affinity-table.ts";
import { MeshState } from "../../src/state/mesh-state.ts";
import { createRootLogger } from "../../src/telemetry/root-logger.ts";
import {
  DataPlaneLab,
  type DataPlaneParts,
  DataPlaneStage,
  dataPlaneSuite,
} from "../conformance/data-plane.ts";
import { ip, makeAffinity } from "../support/mesh-fixture.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { silentLogger } from "../support/silent-logger.ts";
import { pingPong } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

const THREAD_COUNT = 2;

function workerDataPlane(
  { memory, ...parts }: DataPlaneParts,
  options: DataThreadOptions,
  threadFailed: (error: Error) => void = (error) => {
    throw error;
  },
): WorkerDataPlane {
  return new WorkerDataPlane(
    { ...parts, clock: systemClock, outlierChanged() {}, threadFailed },
    {
      threads: startDataThreads(THREAD_COUNT),
      mesh: memory.buffer,
      affinity: makeAffinityMemory(64),
      options,
      log: { format: "plain", filter: "info" },
    },
  );
}

dataPlaneSuite("the inline data plane", {
  threadCount: 1,
  makeDataPlane: ({ memory, certificateFor, learn, addressesOf, writeLog }, options) =>
    new InlineDataPlane(
      {
        engine: makeEngine(systemClock, silentLogger, options),
        mesh: new MeshState(memory),
        certificateFor,
        learn: options.onDemand ? learn : undefined,
        outlierChanged() {},
        affinity: makeAffinity(systemClock),
        addressesOf,
        log: createRootLogger({
          format: "plain",
          filter: "info",
          sink: { write: writeLog, flush() {} },
          clock: systemClock,
        }).root,
        clock: systemClock,
        random: systemRandom(),
        loopDelay: measureLoopDelay(),
      },
      options,
    ),
});

dataPlaneSuite("the data plane of two threads", {
  threadCount: THREAD_COUNT,
  makeDataPlane: workerDataPlane,
});

describe("data threads", { skip: requireNetns("iptables", "ss") }, () => {
  test("write through the main thread, filtered as it says", { timeout: 90_000 }, async () => {
    const lab = await DataPlaneLab.open();
    const stage = new DataPlaneStage(lab, workerDataPlane, {});
    try {
      await stage.startBoth();
      const established = (): number => stage.log.match(/listener established/g)?.length ?? 0;
      await waitUntil(() => established() === 2 * 3 * THREAD_COUNT, "lines are missing");
      stage.dataPlane.setLogFilter("off");
      await stage.dataPlane.stopWorkload("uid-client", 0).ended;
      assert.doesNotMatch(stage.log, /shutdown complete/);
      stage.dataPlane.setLogFilter("info");
      await stage.dataPlane.stopWorkload("uid-server", 0).ended;
      // Lines come before the answer to the command that caused them.
      assert.equal(stage.log.match(/shutdown complete/g)?.length, 3 * THREAD_COUNT);
    } finally {
      await stage.close();
      lab.close();
    }
  });

  test("undo a start that one of them refused", { timeout: 90_000 }, async () => {
    const lab = await DataPlaneLab.open();
    const stage = new DataPlaneStage(lab, workerDataPlane, {
      // Ours alone, also in the namespace of this process.
      listenIp: ip("127.0.15.8"),
    });
    try {
      // On one thread, which can't run the same workload again.
      await stage.dataPlane.startSelf(stage.enrolled(lab.client));
      await assert.rejects(stage.start(lab.client), /workload uid-client runs already/);
      assert.deepEqual(lab.listening(lab.client), {});
      await stage.start(lab.client);
      assert.deepEqual(lab.listening(lab.client)["15008"], THREAD_COUNT);
    } finally {
      await stage.close();
      lab.close();
    }
  });

  test("that die are told once, and nobody waits for them", { timeout: 90_000 }, async () => {
    const failures: string[] = [];
    const lab = await DataPlaneLab.open();
    const stage = new DataPlaneStage(
      lab,
      (parts, options) => workerDataPlane(parts, options, (error) => failures.push(error.message)),
      {},
    );
    try {
      await stage.startBoth();
      stage.echo();
      await pingPong(await stage.connect());
      // No caller does this: it stands for any bug in a thread.
      stage.dataPlane.certificateRenewed(undefined as never);
      await waitUntil(() => failures.length === THREAD_COUNT, "not all failures told");
      for (const message of failures) assert.match(message, /undefined/);
      await assert.rejects(stage.dataPlane.collect(), /undefined/);
      await assert.rejects(stage.dataPlane.drain(1000), /undefined/);
    } finally {
      await stage.close();
      lab.close();
    }
    assert.equal(failures.length, THREAD_COUNT);
  });
});
