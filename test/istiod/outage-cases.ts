/** istiod goes and comes: traffic must not notice, and news must arrive afterwards. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { waitUntil } from "../support/wait-until.ts";
import { SteadyTraffic } from "./calls.ts";
import { type ConfigDump, names, signedIdentities } from "./identity-cases.ts";
import type { IstiodNode } from "./istiod-node.ts";
import { DB2, OBJECTS } from "./objects.ts";
import { LEGACY, PODS, type Stage } from "./stage.ts";

const { catalog1, db0, db1, report } = PODS;
const TERMINATIONS = "istio_xds_connection_terminations_total";
const ADDRESSES = 'url="type.googleapis.com/istio.workload.Address"';
const CONNECTION_AGE_S = 10;

export function outageCases(stage: Stage): void {
  const { istiod } = stage;
  const nodes = [stage.node("node1"), stage.node("node2")];

  test("istiod restarts under traffic: no call fails, news arrive afterwards", async () => {
    const traffic = steadyTraffic(stage);
    const before = await Promise.all(nodes.map((node) => node.daemon.metric(TERMINATIONS)));
    await istiod.restart();
    for (const [i, node] of nodes.entries()) {
      await waitUntil(
        async () => (await node.daemon.metric("ztunnel_xds_connected")) === 1,
        "no new conversation",
        60_000,
      );
      assert.ok(
        (await node.daemon.metric(TERMINATIONS)) > (before[i] ?? 0),
        "the old one never ended",
      );
    }
    await expectNews(stage);
    expectNoFailure(await traffic.stop(), 100);
  });

  test(`istiod ends each conversation after ${CONNECTION_AGE_S} s: the next goes on where it was`, async () => {
    await istiod.restart({ args: [`--keepaliveMaxServerConnectionAge=${CONNECTION_AGE_S}s`] });
    for (const node of nodes) {
      await waitUntil(
        async () => (await node.daemon.metric("ztunnel_xds_connected")) === 1,
        "away",
        60_000,
      );
    }
    const signed = signedIdentities(stage).length;
    const before = await Promise.all(nodes.map((node) => tally(node)));
    const traffic = steadyTraffic(stage);
    await waitUntil(
      async () => {
        const now = await Promise.all(nodes.map((node) => tally(node)));
        return now.every(({ reconnects }, i) => reconnects >= (before[i]?.reconnects ?? 0) + 2);
      },
      "istiod never ended two conversations with each",
      120_000,
    );
    expectNoFailure(await traffic.stop(), 500);
    const afterwards = await Promise.all(nodes.map((node) => tally(node)));
    for (const [i, now] of afterwards.entries()) {
      const then = before[i];
      assert.equal(now.others, then?.others, "a conversation ended for another reason");
      // Whatever is retained is offered, so that nothing of it comes again.
      const perAnswer = (now.bytes - (then?.bytes ?? 0)) / (now.answers - (then?.answers ?? 0));
      assert.ok(perAnswer < 500, `each conversation began with ${perAnswer} bytes of addresses`);
    }
    await expectNews(stage);
    assert.equal(signedIdentities(stage).length, signed, "certificates were signed again");
    await istiod.restart();
  });

  test("a token that is renewed in its file begins a new conversation", async () => {
    const traffic = steadyTraffic(stage);
    const before = await tally(stage.node("node1"));
    await istiod.daemonEnvironment("ztunnel-node1");
    await waitUntil(
      async () => (await tally(stage.node("node1"))).reconnects === before.reconnects + 1,
      "the old conversation goes on",
    );
    await expectNews(stage);
    expectNoFailure(await traffic.stop(), 50);
  });

  test("of what is known but too much to offer istiod sends again, and nothing is lost", async () => {
    const node = stage.node("node1");
    await node.restartDaemon();
    const whole = (await tally(node)).bytes;
    await node.restartDaemon({ XDS_OFFERED_VERSIONS_SIZE: "1000" });
    const known = names((await node.daemon.configDump()) as ConfigDump);
    const before = await tally(node);
    const traffic = steadyTraffic(stage);
    await istiod.daemonEnvironment("ztunnel-node1");
    await waitUntil(
      async () => (await tally(node)).answers > before.answers,
      "the old conversation goes on",
    );
    const again = (await tally(node)).bytes - before.bytes;
    assert.ok(again > 500 && again < whole, `${again} of ${whole} bytes came again`);
    assert.deepEqual(names((await node.daemon.configDump()) as ConfigDump), known);
    await expectNews(stage);
    expectNoFailure(await traffic.stop(), 50);
    await node.restartDaemon();
  });

  test("a pod that starts while istiod is away is served once istiod is back", async () => {
    const restarted = istiod.restart();
    await istiod.apply(OBJECTS.db2);
    await stage.addPod("late", DB2);
    await restarted;
    for (const [from, ip, answer] of [
      ["late", db0.ip, "db0"],
      ["frontend", DB2.ip, "late"],
    ] as const) {
      await waitUntil(
        async () => (await stage.outcome(from, ip, 5432)) === answer,
        `${from} never reached ${answer}`,
      );
    }
    await istiod.delete(OBJECTS.db2);
    await stage.removePod("late", DB2);
  });
}

/** Lasting and new connections on each kind of way. */
export function steadyTraffic(stage: Stage): SteadyTraffic {
  return new SteadyTraffic([
    stage.way("frontend", catalog1.ip, 9080),
    stage.way("frontend", db1.ip, 5432),
    stage.way("report", db0.ip, 5432),
    stage.way("legacy", db0.ip, 5432),
    stage.way("frontend", LEGACY.ip, LEGACY.port),
  ]);
}

/** @param answersMin so that it can't pass without traffic. */
export function expectNoFailure(
  { answers, failures }: { readonly answers: number; readonly failures: readonly string[] },
  answersMin: number,
): void {
  assert.deepEqual(failures, []);
  assert.ok(answers >= answersMin, `only ${answers} answers`);
}

/** A policy of now is obeyed. It leaves {@link steadyTraffic} alone. */
export async function expectNews(stage: Stage): Promise<void> {
  const becomes = (answer: string): Promise<void> =>
    waitUntil(
      async () => (await stage.outcome("legacy", report.ip, 8080)) === answer,
      `plain text to report never became ${answer}`,
    );
  await stage.istiod.apply("22-policy-add");
  await becomes("refused");
  await stage.istiod.delete("22-policy-add");
  await becomes("report");
}

async function tally({
  daemon,
}: IstiodNode): Promise<{ reconnects: number; others: number; bytes: number; answers: number }> {
  const all = await daemon.metric(TERMINATIONS);
  const reconnects = await daemon.metric(TERMINATIONS, 'reason="Reconnect"');
  return {
    reconnects,
    others: all - reconnects,
    bytes: await daemon.metric("istio_xds_message_bytes_total", ADDRESSES),
    answers: await daemon.metric("istio_xds_message_total", ADDRESSES),
  };
}
