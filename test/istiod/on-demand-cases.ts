/** A daemon that learns of workloads and services when a connection needs them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { expectNews, expectNoFailure, steadyTraffic } from "./outage-cases.ts";
import { LEGACY, PODS, type Stage } from "./stage.ts";

const { db0, db1, catalog1 } = PODS;

/** What both istiod and the original want with `XDS_ON_DEMAND`. */
const ON_DEMAND = { XDS_ON_DEMAND: "true", ISTIO_META_DNS_CAPTURE: "false" };

export function onDemandCases(stage: Stage): void {
  const node = stage.node("node1");

  test("on demand, the first connection to what is not known fetches it, once", async () => {
    await node.restartDaemon(ON_DEMAND);
    const before = node.daemon.lines.length;
    for (const [from, ip, port, answer] of [
      ["frontend", db1.ip, 5432, "db1"],
      ["frontend", db1.ip, 6000, "refused"],
      ["frontend", "10.96.0.11", 80, "catalog1"],
      ["frontend", "10.96.0.30", 80, "legacy"],
      ["frontend", LEGACY.ip, LEGACY.port, "legacy"],
      ["frontend", catalog1.ip, 9080, "catalog1"],
      ["report", db0.ip, 5432, "db0"],
      ["legacy", db0.ip, 6000, "refused"],
    ] as const) {
      assert.equal(await stage.outcome(from, ip, port), answer, `${from} → ${ip}:${port}`);
    }
    const demanded = node.daemon.lines
      .slice(before)
      .flatMap((line) => /received on demand request \S+Address\/(\S+)"/.exec(line)?.[1] ?? []);
    // A Service comes with its pods, and the pods of this node come by themselves.
    assert.deepEqual(demanded, [`/${db1.ip}`, "/10.96.0.11", "/10.96.0.30"]);
  });

  test("on demand, istiod restarts under traffic: no call fails, news arrive afterwards", async () => {
    const traffic = steadyTraffic(stage);
    await stage.istiod.restart();
    await expectNews(stage);
    expectNoFailure(await traffic.stop(), 100);
    await node.restartDaemon();
  });
}
