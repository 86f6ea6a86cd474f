/** A daemon in dedicated mode: in its one pod, under the pod's own name, beside daemons in shared mode. */
import assert from "node:assert/strict";
import { closeSync, openSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { installRedirect } from "../../src/embedded/redirect-rules.ts";
import type { LabHost } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";
import { Call } from "./calls.ts";
import { identityOf, signedIdentities } from "./identity-cases.ts";
import { IstiodDaemon } from "./istiod-daemon.ts";
import { DB2, OBJECTS } from "./objects.ts";
import { expectNews } from "./outage-cases.ts";
import { PODS, type Stage } from "./stage.ts";

const { db0, report } = PODS;
const OWN = identityOf(DB2.serviceAccount);

export function dedicatedCases(stage: Stage): void {
  const { istiod } = stage;

  describe("a pod with a daemon of its own", { concurrency: false }, () => {
    let daemon: IstiodDaemon;
    let signedBefore = 0;
    const signed = (): readonly string[] => signedIdentities(stage).filter((one) => one === OWN);

    before(async () => {
      const others = signed().length;
      await istiod.apply(OBJECTS.db2);
      // A pod of the mesh on its node: the daemon there can't know that nobody will hand it over.
      await waitUntil(() => signed().length > others, "node2 fetched no certificate for the pod");
      const host = stage.addHost("solo", DB2.ip);
      stage.serve("solo", [5432, 6000]);
      await redirect(host);
      signedBefore = signed().length;
      daemon = new IstiodDaemon(stage.net, host, istiod);
      const { name, serviceAccount } = DB2;
      daemon.spawn({
        ...(await istiod.daemonEnvironment(name, { namespace: "shop", serviceAccount })),
        PROXY_MODE: "dedicated",
        PROXY_WORKLOAD_INFO: `shop/${name}/${serviceAccount}`,
        PACKET_MARK: "1337",
      });
      await daemon.ready();
    });

    after(async () => {
      await daemon.stop();
      daemon.close();
      await istiod.delete(OBJECTS.db2);
    });

    const held = async (): Promise<readonly string[]> => {
      const { certificates } = (await daemon.configDump()) as {
        certificates: readonly { readonly identity: string; readonly state: string }[];
      };
      return certificates.map(({ identity, state }) => `${identity} ${state}`);
    };

    test("is ready without a certificate; its first connection fetches the one, in its own name", async () => {
      assert.deepEqual([await held(), signed().length], [[], signedBefore]);
      assert.equal(await stage.outcome("solo", report.ip, 8080), "report");
      assert.deepEqual([await held(), signed().length], [[`${OWN} Available`], signedBefore + 1]);
      const { lines } = stage.node("node2").daemon;
      await waitUntil(
        () => lines.some((line) => line.includes('"access"') && line.includes(OWN)),
        "node2 never saw who called",
      );
    });

    for (const [from, to, ip, port, answer] of [
      ["solo", "a pod in shared mode", db0.ip, 5432, "db0"],
      ["solo", "one whose policy names others", db0.ip, 6000, "refused"],
      ["solo", "its own address", DB2.ip, 5432, "solo"],
      ["frontend", "it, by tunnel", DB2.ip, 5432, "solo"],
      ["catalog2", "it, where a policy names the caller", DB2.ip, 6000, "solo"],
      ["frontend", "it, where a policy names others", DB2.ip, 6000, "refused"],
      ["legacy", "it, in plain text", DB2.ip, 5432, "solo"],
    ] as const) {
      test(`${from} → ${to}: ${answer}`, async () => {
        assert.equal(await stage.outcome(from, ip, port), answer);
      });
    }

    test("hears of policies, also after a restart of istiod, which no connection notices", async () => {
      const running = await Call.open(stage.host("frontend"), DB2.ip, 5432);
      assert.equal(await running.ask(), "solo");
      await istiod.restart();
      assert.equal(await running.ask(), "solo");
      assert.equal(await stage.outcome("solo", report.ip, 8080), "report");
      await expectNews(stage);
      await istiod.apply(OBJECTS.denyFrontend);
      await waitUntil(
        async () => (await stage.outcome("frontend", DB2.ip, 5432)) === "refused",
        "the policy never came",
        60_000,
      );
      await istiod.delete(OBJECTS.denyFrontend);
      await waitUntil(
        async () => (await stage.outcome("frontend", DB2.ip, 5432)) === "solo",
        "the policy never went",
      );
      assert.equal(await running.ask(), "solo");
      running.close();
    });
  });
}

/** As in a pod of the shared mode; the mark leaves alone what the daemon itself sends. */
async function redirect(host: LabHost): Promise<void> {
  const netnsFd = openSync(host.path, "r");
  try {
    await installRedirect(netnsFd, { dnsCapture: false, inboundCapture: true });
  } finally {
    closeSync(netnsFd);
  }
}
