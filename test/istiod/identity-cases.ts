/** Ready over a real istiod, with the certificates of this node's service accounts. */
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { waitUntil } from "../support/wait-until.ts";
import type { Stage } from "./stage.ts";

const RECORDED_DUMP = join(
  import.meta.dirname,
  "../fixtures/istiod/real-ztunnel/base/config_dump.json",
);

export function identityCases(stage: Stage): void {
  test("both daemons are ready, and istiod knows all it sent them as accepted", async () => {
    for (const name of ["node1", "node2"] as const) {
      assert.equal(await stage.node(name).daemon.isReady(), true);
    }
    await waitUntil(async () => {
      const proxies = JSON.parse(await stage.istiod.debug("/debug/syncz")) as SyncPage;
      return (
        proxies.map(({ proxy }) => proxy).join() ===
          "ztunnel-node1.istio-system,ztunnel-node2.istio-system" &&
        proxies.every(({ resources }) => {
          const kinds = Object.values(resources);
          return kinds.length === 2 && kinds.every(({ sent, acked }) => sent === acked);
        })
      );
    }, "istiod misses an answer");
  });

  test("node1 knows the workloads, services and policies that the original knew", async () => {
    const known = names((await stage.node("node1").daemon.configDump()) as ConfigDump);
    const recorded = JSON.parse(readFileSync(RECORDED_DUMP, "utf8")) as ConfigDump;
    assert.deepEqual(known, names(recorded));
  });

  test("each service account with a pod in the mesh has one certificate a node, nobody else", async () => {
    await waitUntil(() => signedIdentities(stage).length >= 7, "a certificate is missing");
    for (const [name, serviceAccounts] of [
      ["node1", ["catalog", "db", "default", "frontend"]],
      ["node2", ["catalog", "db", "default"]],
    ] as const) {
      const { certificates } = (await stage.node(name).daemon.configDump()) as ConfigDump;
      const held = certificates.filter(({ certChain }) => certChain.length > 0);
      assert.deepEqual(
        held.map(({ identity }) => identity).sort(),
        serviceAccounts.map(identityOf),
      );
    }
    assert.deepEqual(
      signedIdentities(stage),
      ["catalog", "catalog", "db", "db", "default", "default", "frontend"].map(identityOf),
    );
  });
}

export function identityOf(serviceAccount: string): string {
  return `spiffe://cluster.local/ns/shop/sa/${serviceAccount}`;
}

/** Of every certificate that istiod gave out, from its log. Sorted. */
export function signedIdentities(stage: Stage): string[] {
  return stage.istiod.log
    .filter((line) => line.includes("Responding with cert chain"))
    .map((line) => {
      const leaf = /-----BEGIN.*?-----END CERTIFICATE-----/s.exec(line.replaceAll("\\n", "\n"));
      return leaf === null ? line : subjectOf(leaf[0]);
    })
    .sort();
}

function subjectOf(pem: string): string {
  return new X509Certificate(pem).subjectAltName?.replace(/^URI:/, "") ?? "no name";
}

/** `/debug/syncz` */
type SyncPage = readonly {
  readonly proxy: string;
  readonly resources: Record<string, { readonly sent: string; readonly acked: string }>;
}[];

/** What we look at of `/config_dump`. */
export interface ConfigDump {
  readonly workloads: readonly { readonly uid: string }[];
  readonly services: readonly { readonly namespace: string; readonly hostname: string }[];
  readonly policies: readonly { readonly namespace: string; readonly name: string }[];
  readonly certificates: readonly { readonly identity: string; readonly certChain: unknown[] }[];
}

/** Of all that is known, sorted. */
export function names({
  workloads,
  services,
  policies,
}: ConfigDump): Record<string, readonly string[]> {
  return {
    workloads: workloads.map(({ uid }) => uid).sort(),
    services: services.map(({ namespace, hostname }) => `${namespace}/${hostname}`).sort(),
    policies: policies.map(({ namespace, name }) => `${namespace}/${name}`).sort(),
  };
}
