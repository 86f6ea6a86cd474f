/** Real connections under the recorded objects: what the policies say is what happens. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { waitUntil } from "../support/wait-until.ts";
import { identityOf } from "./identity-cases.ts";
import { EXTERNAL, LEGACY, PODS, type Stage } from "./stage.ts";

const CATALOG_VIP = "10.96.0.11";
const DB_ALL_VIP = "10.96.0.13";
const EMPTY_VIP = "10.96.0.20";
const FRONTEND_VIP = "10.96.0.10";
const LEGACY_VIP = "10.96.0.30";

const { frontend, catalog1, catalog2, db0, db1, dual, report } = PODS;

/** Who calls what, who answers, why. */
const CONNECTIONS: readonly (readonly [
  from: string,
  ip: string,
  port: number,
  answer: string,
  why: string,
])[] = [
  ["frontend", catalog1.ip, 9080, "catalog1", "allow-l4 names port, caller and address"],
  ["frontend", catalog1.ip, 9091, "refused", "allow-l4 excludes the port"],
  ["frontend", catalog2.ip, 9080, "refused", "allow-l4 names the other pod's address"],
  ["db0", catalog1.ip, 9080, "refused", "allow-l4 names another caller"],
  ["report", catalog1.ip, 9080, "refused", "the same across nodes"],
  ["frontend", db1.ip, 5432, "db1", "allow-sa names the port"],
  ["frontend", db1.ip, 6000, "refused", "allow-sa names other callers for other ports"],
  ["catalog1", db1.ip, 6000, "db1", "allow-sa names the caller"],
  ["catalog2", db0.ip, 6000, "db0", "the same across nodes, the other way"],
  ["catalog1", db0.ip, 22, "refused", "global-deny of the root namespace"],
  ["catalog1", frontend.ip, 8080, "refused", "l7-deny stripped of what is not layer 4"],
  ["catalog1", frontend.ip, 9999, "frontend", "l7-allow names the namespace"],
  ["report", dual.ip, 8080, "refused", "l7-allow-only leaves nothing that allows"],
  ["frontend", report.ip, 8080, "report", "only denials apply, none matches"],
  ["frontend", CATALOG_VIP, 80, "catalog1", "a Service prefers its pod in the same zone"],
  ["frontend", FRONTEND_VIP, 80, "refused", "a Service does not go around l7-deny"],
  ["frontend", EMPTY_VIP, 80, "refused", "a Service without pods"],
  ["frontend", LEGACY.ip, LEGACY.port, "legacy", "outside the mesh, in plain text"],
  ["frontend", LEGACY_VIP, 80, "legacy", "a Service outside the mesh"],
  ["frontend", EXTERNAL.vip, 5432, "legacy", "an external service, looked up by host name"],
  ["legacy", report.ip, 8080, "report", "plain text has no namespace to deny"],
  ["legacy", db0.ip, 5432, "db0", "allow-sa: nobody is not evil"],
  ["legacy", db0.ip, 6000, "refused", "allow-sa: nobody is not catalog"],
  ["legacy", catalog1.ip, 9080, "refused", "allow-l4 needs an identity"],
];

export function trafficCases(stage: Stage): void {
  for (const [from, ip, port, answer, why] of CONNECTIONS) {
    const what = answer === "refused" ? "is refused" : `is answered by ${answer}`;
    test(`${from} → ${ip}:${port} ${what}: ${why}`, async () => {
      assert.equal(await stage.outcome(from, ip, port), answer);
    });
  }

  test("a Service that publishes unready pods is answered by pods of both nodes", async () => {
    const answers = new Set<string>();
    await waitUntil(async () => {
      answers.add(await stage.outcome("frontend", DB_ALL_VIP, 5432));
      return answers.size > 1;
    }, "always the same pod");
    assert.deepEqual([...answers].sort(), ["db0", "db1"]);
  });

  test("a call across nodes carries identities that both daemons log and count", async () => {
    assert.equal(await stage.outcome("report", db0.ip, 5432), "db0");
    for (const [name, direction] of [
      ["node2", "outbound"],
      ["node1", "inbound"],
    ] as const) {
      const wanted = {
        direction,
        "src.workload": report.name,
        "src.identity": identityOf("default"),
        "dst.workload": db0.name,
        "dst.identity": identityOf("db"),
      };
      const node = stage.node(name);
      await waitUntil(
        () => node.daemon.lines.some((line) => line.includes('"access"') && matches(line, wanted)),
        `${name} never logged ${JSON.stringify(wanted)}`,
      );
      const opened = "istio_tcp_connections_opened_total";
      const counted = await node.daemon.metric(
        opened,
        `source_principal="${identityOf("default")}"`,
      );
      assert.ok(counted > 0, `${name} counted no call of ${report.name}`);
    }
  });
}

function matches(line: string, wanted: Readonly<Record<string, string>>): boolean {
  const fields = JSON.parse(line) as Record<string, unknown>;
  return Object.entries(wanted).every(([name, value]) => fields[name] === value);
}
