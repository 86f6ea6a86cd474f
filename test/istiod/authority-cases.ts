/** An operator's own authority, and its change without a gap. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { waitUntil } from "../support/wait-until.ts";
import { AuthorityFiles } from "./authority-files.ts";
import { expectNews, expectNoFailure, steadyTraffic } from "./outage-cases.ts";
import { PODS, type Stage } from "./stage.ts";

const { db0, db1, report } = PODS;

export function authorityCases(stage: Stage): void {
  const { istiod } = stage;
  const old = new AuthorityFiles(istiod.folder, "old");
  const next = new AuthorityFiles(istiod.folder, "next");

  test("a plugged-in authority's certificates come with both intermediates and are trusted", async () => {
    await istiod.restart({ authority: old.plugIn("alone", [old.root]) });
    for (const name of ["node1", "node2"] as const) await stage.node(name).restartDaemon();
    await expectWorkingTunnels(stage);
    assert.deepEqual(await shownIssuers(stage, report.ip), [
      "O=old, CN=issuer",
      "O=old, CN=middle",
      "O=old, CN=root",
    ]);
  });

  test("old and new root at once: certificates of both authorities meet, in both directions", async () => {
    await istiod.restart({ authority: old.plugIn("both", [old.root, next.root]) });
    for (const name of ["node1", "node2"] as const) await stage.node(name).restartDaemon();
    // By then both have certificates of the old one; a daemon is ready before it has any.
    await expectWorkingTunnels(stage);
    await istiod.restart({ authority: next.plugIn("both", [old.root, next.root]) });
    await stage.node("node1").restartDaemon();
    await expectWorkingTunnels(stage);
    assert.equal((await shownIssuers(stage, db0.ip))[0], "O=next, CN=issuer");
    assert.equal((await shownIssuers(stage, report.ip))[0], "O=old, CN=issuer");
  });

  test("the old root goes once nobody needs it: traffic and conversations go on", async () => {
    await stage.node("node2").restartDaemon();
    await expectWorkingTunnels(stage);
    const traffic = steadyTraffic(stage);
    await istiod.restart({ authority: next.plugIn("alone", [next.root]) });
    for (const name of ["node1", "node2"] as const) {
      await waitUntil(
        async () => (await stage.node(name).daemon.metric("ztunnel_xds_connected")) === 1,
        `${name} does not trust the new root`,
        60_000,
      );
    }
    await expectNews(stage);
    expectNoFailure(await traffic.stop(), 100);
  });

  /** Both directions across nodes. */
  async function expectWorkingTunnels(at: Stage): Promise<void> {
    assert.equal(await at.outcome("frontend", db1.ip, 5432), "db1");
    assert.equal(await at.outcome("report", db0.ip, 5432), "db0");
  }
}

/** Who issued what a pod's tunnel port shows, leaf first. */
function shownIssuers(stage: Stage, ip: string): Promise<string[]> {
  const host = stage.host("legacy").path;
  const words = ["s_client", "-connect", `${ip}:15008`, "-alpn", "h2", "-showcerts"];
  return new Promise((resolve) => {
    // It fails because it has no certificate of its own; what was shown is told before.
    const asked = execFile("nsenter", [`--net=${host}`, "--", "openssl", ...words], (_, told) => {
      resolve(
        Array.from(told.matchAll(/^ +i:(.*)$/gm), ([, issuer = ""]) =>
          issuer.replaceAll(" = ", "="),
        ),
      );
    });
    asked.stdin?.end();
  });
}
