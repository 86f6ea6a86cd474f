/** Pods and policies that come, change and go: what it does to connections old and new. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { waitUntil } from "../support/wait-until.ts";
import { Call } from "./calls.ts";
import { identityOf, signedIdentities } from "./identity-cases.ts";
import { DB2, OBJECTS } from "./objects.ts";
import { LEGACY, PODS, type Stage } from "./stage.ts";

const DB_READY_VIP = "10.96.0.50";
const { catalog1, db0, report } = PODS;

export function changeCases(stage: Stage): void {
  const { istiod } = stage;
  const open = (from: string, ip: string, port: number): Promise<Call> =>
    Call.open(stage.host(from), ip, port);
  const becomes = (from: string, ip: string, port: number, answer: string): Promise<void> =>
    waitUntil(
      async () => (await stage.outcome(from, ip, port)) === answer,
      `${from} → ${ip}:${port} never became ${answer}`,
    );
  /** Whoever answers a Service's next calls, each once. */
  const answers = async (calls = 12): Promise<string[]> => {
    const all = new Set<string>();
    for (let i = 0; i < calls; i++) all.add(await stage.outcome("frontend", DB_READY_VIP, 5432));
    return [...all].sort();
  };
  const becomesServedBy = (...names: readonly string[]): Promise<void> =>
    waitUntil(
      async () => (await answers()).join() === names.join(),
      `never served by ${names.join(" and ")}`,
    );
  const setReady = (pod: string, isReady: boolean): Promise<void> =>
    istiod.patch(`/api/v1/namespaces/shop/pods/${pod}/status`, {
      status: { conditions: [{ type: "Ready", status: isReady ? "True" : "False" }] },
    });

  test("a Service that comes is answered by its ready pod alone", async () => {
    await istiod.apply(OBJECTS.dbReady);
    await becomesServedBy("db0");
  });

  test("a pod that becomes ready is chosen, one that becomes unready keeps what it has", async () => {
    const running = await open("frontend", DB_READY_VIP, 5432);
    assert.equal(await running.ask(), "db0");
    await setReady("db-1", true);
    await becomesServedBy("db0", "db1");
    await setReady("db-0", false);
    await becomesServedBy("db1");
    assert.equal(await running.ask(), "db0");
    await setReady("db-0", true);
    await becomesServedBy("db0", "db1");
    running.close();
  });

  test("a pod that comes has its certificate and is chosen", async () => {
    assert.equal(signedIdentities(stage).includes(identityOf("archive")), false);
    await istiod.apply(OBJECTS.db2);
    await stage.addPod("db2", DB2);
    await becomesServedBy("db0", "db1", "db2");
    assert.equal(await stage.outcome("db2", db0.ip, 5432), "db0");
    const signed = signedIdentities(stage).filter((each) => each === identityOf("archive"));
    assert.equal(signed.length, 1);
  });

  test("a pod that terminates keeps its connections and gets no new ones of its Service", async () => {
    const running = await open("frontend", DB2.ip, 5432);
    assert.equal(await running.ask(), "db2");
    await istiod.delete(OBJECTS.db2, 30);
    await becomesServedBy("db0", "db1");
    assert.equal(await running.ask(), "db2");
    running.close();
  });

  test("a pod that goes leaves nothing behind", async () => {
    const node = stage.node("node2");
    const before = await node.daemon.metric("workload_manager_active_proxy_count");
    await istiod.delete(OBJECTS.db2);
    await stage.removePod("db2", DB2);
    await waitUntil(
      async () => (await node.daemon.metric("workload_manager_active_proxy_count")) === before - 1,
      "its proxy is still there",
    );
    assert.deepEqual(await answers(), ["db0", "db1"]);
    await istiod.delete(OBJECTS.dbReady);
    await setReady("db-1", false);
  });

  test("a namespace's policy that comes ends what it forbids, and only that; gone, all is as before", async () => {
    const plain = await open("legacy", report.ip, 8080);
    const meshed = await open("frontend", report.ip, 8080);
    await Promise.all([plain.ask(), meshed.ask()]);
    await istiod.apply("22-policy-add");
    assert.equal(await plain.ended, "ECONNRESET");
    assert.equal(await stage.outcome("legacy", report.ip, 8080), "refused");
    await istiod.apply("23-policy-change");
    assert.equal(await meshed.ask(), "report");
    assert.equal(await stage.outcome("frontend", report.ip, 8080), "report");
    await istiod.delete("23-policy-change");
    await becomes("legacy", report.ip, 8080, "report");
    assert.equal(await meshed.ask(), "report");
    meshed.close();
  });

  // Running connections are judged with the policies that their workload named when they began
  // (spec data-path 7.2), so only a policy that was there already can end them.
  test("a pod's policy that comes is for new connections, one that changes for running ones too", async () => {
    const early = await open("frontend", db0.ip, 5432);
    await early.ask();
    await istiod.apply(OBJECTS.denyFrontend);
    await becomes("frontend", db0.ip, 5432, "refused");
    const late = await open("catalog2", db0.ip, 5432);
    assert.deepEqual(await Promise.all([early.ask(), late.ask()]), ["db0", "db0"]);
    await istiod.apply(OBJECTS.denyCatalog);
    assert.equal(await late.ended, "ECONNRESET");
    assert.equal(await stage.outcome("catalog2", db0.ip, 5432), "refused");
    assert.equal(await stage.outcome("frontend", db0.ip, 5432), "db0");
    await istiod.delete(OBJECTS.denyCatalog);
    await becomes("catalog2", db0.ip, 5432, "db0");
    assert.equal(await early.ask(), "db0");
    early.close();
  });

  test("policies by selector that forbid nothing new disturb nothing", async () => {
    const running = await open("frontend", catalog1.ip, 9080);
    await running.ask();
    const node = stage.node("node1");
    for (const name of ["24-policy-selector-add", "25-policy-root-selector"]) {
      const family = "istio_xds_message_total";
      const before = await node.daemon.metric(family);
      await istiod.apply(name);
      await waitUntil(
        async () => (await node.daemon.metric(family)) > before,
        `${name} never arrived`,
      );
      assert.equal(await stage.outcome("frontend", catalog1.ip, 9080), "catalog1");
      assert.equal(await stage.outcome("report", PODS.frontend.ip, 9999), "frontend");
      await istiod.delete(name);
    }
    assert.equal(await running.ask(), "catalog1");
    running.close();
  });

  test("STRICT of a namespace refuses new plain text into it, not out of it, and no tunnel", async () => {
    const plain = await open("legacy", report.ip, 8080);
    const meshed = await open("frontend", report.ip, 8080);
    await Promise.all([plain.ask(), meshed.ask()]);
    await istiod.apply("10-peerauth-strict");
    await becomes("legacy", report.ip, 8080, "refused");
    await becomes("legacy", db0.ip, 5432, "refused");
    assert.equal(await stage.outcome("frontend", report.ip, 8080), "report");
    assert.equal(await stage.outcome("frontend", LEGACY.ip, LEGACY.port), "legacy");
    // It is a policy by selector to the workloads: see above.
    assert.deepEqual(await Promise.all([plain.ask(), meshed.ask()]), ["report", "report"]);
    plain.close();
    meshed.close();
  });

  test("PERMISSIVE of a pod wins over its namespace's STRICT", async () => {
    await istiod.apply("11-peerauth-ports");
    await becomes("legacy", db0.ip, 5432, "db0");
    assert.equal(await stage.outcome("legacy", report.ip, 8080), "refused");
    assert.equal(await stage.outcome("frontend", catalog1.ip, 9080), "catalog1");
    await istiod.delete("11-peerauth-ports");
    await istiod.delete("10-peerauth-strict");
    await becomes("legacy", report.ip, 8080, "report");
  });

  test("STRICT of the mesh refuses plain text everywhere until it goes", async () => {
    await istiod.apply("12-peerauth-mesh-strict");
    await becomes("legacy", report.ip, 8080, "refused");
    await becomes("legacy", db0.ip, 5432, "refused");
    assert.equal(await stage.outcome("frontend", db0.ip, 5432), "db0");
    await istiod.delete("12-peerauth-mesh-strict");
    await becomes("legacy", report.ip, 8080, "report");
  });
}
