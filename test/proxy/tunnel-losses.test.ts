import assert from "node:assert/strict";
import { test } from "node:test";
import { EngineError } from "../../src/engine/engine-error.ts";
import { TunnelLosses } from "../../src/proxy/tunnel-losses.ts";
import { CapturedLog, formatFields } from "../support/captured-log.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { address } from "../support/mesh-fixture.ts";

const PEER = address("10.0.0.1:15008");
const OTHER = address("[fd00::1]:15008");
const UNANSWERED = new EngineError("ping-timeout", "HBONE ping timeout");
const BROKEN = new EngineError("tunnel-closed", "Connection reset by peer (os error 104)");

function makeLosses() {
  const clock = new FakeClock();
  const log = new CapturedLog("debug");
  const losses = new TunnelLosses({ log: log.root, clock });
  const said = (): readonly string[] =>
    log
      .of("ztunnel::proxy::h2::client")
      .map(({ level, message, fields }) => `${level} ${message} ${formatFields(fields)}`);
  return { clock, log, losses, said };
}

test("a tunnel with connections is a warning, one that was idle or whose only one tells it is not", () => {
  const { losses, said } = makeLosses();
  losses.report(PEER, UNANSWERED, 0);
  losses.report(PEER, BROKEN, 0);
  losses.report(PEER, UNANSWERED, 7);
  losses.report(OTHER, BROKEN, 1);
  losses.report(OTHER, BROKEN, 2);
  losses.close();
  assert.deepEqual(said(), [
    "debug HBONE ping timeout/error peer=10.0.0.1:15008 connections=0",
    "debug tunnel ended: Connection reset by peer (os error 104) peer=10.0.0.1:15008 connections=0",
    "warn HBONE ping timeout/error peer=10.0.0.1:15008 connections=7",
    "debug tunnel ended: Connection reset by peer (os error 104) peer=[fd00::1]:15008 connections=1",
    "warn tunnel ended: Connection reset by peer (os error 104) peer=[fd00::1]:15008 connections=2",
  ]);
});

test("many tunnels to one peer are two warnings, and later ones another", async () => {
  const { clock, losses, said } = makeLosses();
  const warnings = (): readonly string[] => said().filter((line) => line.startsWith("warn"));
  for (let i = 0; i < 5; i++) losses.report(PEER, UNANSWERED, 100);
  assert.equal(warnings().length, 1);
  await clock.advance(10_000);
  assert.equal(clock.pendingCount, 0);
  losses.report(PEER, BROKEN, 3);
  await clock.advance(10_000);
  assert.deepEqual(warnings(), [
    "warn HBONE ping timeout/error peer=10.0.0.1:15008 connections=100",
    "warn 4 other tunnels ended like the one before peer=10.0.0.1:15008 connections=400",
    "warn tunnel ended: Connection reset by peer (os error 104) peer=10.0.0.1:15008 connections=3",
  ]);
});

test("what was not said yet is said at the end, and no timer is left", () => {
  const { clock, losses, said } = makeLosses();
  losses.report(PEER, UNANSWERED, 1);
  losses.report(PEER, BROKEN, 2);
  losses.close();
  losses.close();
  assert.equal(
    said().at(-1),
    "warn another tunnel ended like the one before peer=10.0.0.1:15008 connections=2",
  );
  assert.equal(clock.pendingCount, 0);
});
