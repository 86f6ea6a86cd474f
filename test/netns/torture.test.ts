/**
 * Hundreds of connections at once with sizes, pieces, pauses and ends from a seed, over all ways that
 * there are: every byte, every log line, every counter. `npm run bench -- path/torture` takes longer.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { requireNetns } from "../support/netns-lab.ts";
import { Torture } from "../support/torture/torture.ts";
import { TORTURE_PATHS, TortureLab } from "../support/torture/torture-lab.ts";

/** Those on which nobody but our daemons ends tunnels. */
const PATH_NAMES = Object.keys(TORTURE_PATHS).filter(
  (name) => name !== "waypoint" && name !== "double HBONE",
);
const COUNT = 150;
const TIMEOUT_MS = 150_000;

describe("torture", { skip: requireNetns("iptables", "ss") }, () => {
  test(`${COUNT} random connections keep every byte, and reports tell of each`, {
    timeout: TIMEOUT_MS,
  }, async (t) => {
    const lab = await TortureLab.start({
      environment: { ZTUNNEL_WORKER_THREADS: "1", HTTP2_STREAM_WINDOW_SIZE: "65535" },
    });
    t.after(() => lab.close());
    const { count, problems } = await new Torture(lab, {
      seed: 1,
      concurrency: 30,
      countMax: COUNT,
      durationMs: TIMEOUT_MS,
      pathNames: PATH_NAMES,
    }).run();
    assert.deepEqual(problems, []);
    assert.equal(count, COUNT);
  });
});
