/**
 * What the reference ztunnel was recorded to do, done by us: the same mesh, the same client, and
 * everything that client, operator and scraper see compared field by field.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Registry } from "prom-client";
import { makeTrafficFamilies, mergeTraffic } from "../../src/proxy/metrics.ts";
import { greet, type Lab, makeLab, type Node } from "./lab.ts";

type Counters = Readonly<Record<string, number>>;

interface RecordedNode {
  readonly log: readonly string[];
  /** By `label=value` pairs joined with spaces; a family without a sample has no key. */
  readonly traffic: Readonly<Record<string, Counters>>;
  readonly sockets: Readonly<Record<string, number>>;
}

interface Situation {
  readonly what: string;
  readonly from: string;
  readonly to: string;
  readonly client: { readonly end: string; readonly received: string };
  readonly a: RecordedNode;
  readonly b: RecordedNode;
}

const SITUATIONS = JSON.parse(
  readFileSync(join(import.meta.dirname, "recorded/situations.json"), "utf8"),
) as Readonly<Record<string, Situation>>;

/**
 * The recording read its mesh from a file, and in that mode the original forgets which services a
 * workload belongs to, so its inbound side never named one. With a control plane it does, and so do
 * we: a connection to the port of one of these is reported as the service's.
 */
const SERVICE_OF: Readonly<Record<string, string>> = {
  "10.77.0.21:8080": "echo",
  "10.77.0.23:8080": "pair",
};

for (const [name, situation] of Object.entries(SITUATIONS)) {
  test(`as recorded: ${situation.what}`, async () => {
    const lab = makeLab();
    const text = name === "no_data" ? "" : "hello world";
    const seen = await greet(lab, lab.pod(situation.from), situation.to, text);
    // A client that half-closes after the reset has arrived is told ENOTCONN.
    const end = situation.client.end.replace("ENOTCONN", "ECONNRESET");
    assert.deepEqual(seen, { ...situation.client, end });
    assert.deepEqual(comparableLog(lab.a.access()), expectedLog(situation.a.log));
    assert.deepEqual(comparableLog(lab.b.access()), expectedLog(situation.b.log));
    await compareMetrics(lab, situation);
  });
}

async function compareMetrics(lab: Lab, { a, b }: Situation): Promise<void> {
  assert.deepEqual(await scrape(lab.a), expectedMetrics(a), "node a");
  assert.deepEqual(await scrape(lab.b), expectedMetrics(b), "node b");
}

type Metrics = Pick<RecordedNode, "traffic" | "sockets">;

async function scrape(node: Node): Promise<Metrics> {
  const registry = new Registry();
  const families = makeTrafficFamilies(registry);
  mergeTraffic(families, [node.traffic.collect()]);
  const traffic: Record<string, Record<string, number>> = {};
  for (const [short, family] of [
    ["opened", families.opened],
    ["closed", families.closed],
    ["failed", families.failed],
    ["received", families.receivedBytes],
    ["sent", families.sentBytes],
  ] as const) {
    for (const { labels, value } of (await family.get()).values) {
      const key = Object.entries(labels)
        .map(([label, labelValue]) => `${label}=${labelValue}`)
        .join(" ");
      traffic[key] ??= {};
      traffic[key][short] = value;
    }
  }
  const sockets: Record<string, number> = {};
  for (const { labels, value } of (await families.socketsOpen.get()).values) {
    sockets[String(labels.reporter)] = value;
  }
  return { traffic, sockets };
}

function expectedMetrics({ traffic, sockets, log }: RecordedNode): Metrics {
  const port = /dst\.hbone_addr=(\S+)|dst\.addr=(\S+:8080)/.exec(log[0] ?? "");
  const service = SERVICE_OF[port?.[1] ?? port?.[2] ?? ""];
  const entries = Object.entries(traffic).map(([key, counters]) => {
    if (service === undefined || !key.startsWith("reporter=destination")) return [key, counters];
    const named = key
      .replace("destination_service=unknown", `destination_service=${hostname(service)}`)
      .replace("destination_service_namespace=unknown", "destination_service_namespace=default")
      .replace("destination_service_name=unknown", `destination_service_name=${service}`);
    return [named, counters];
  });
  return { traffic: Object.fromEntries(entries), sockets };
}

function expectedLog(lines: readonly string[]): readonly string[] {
  return (
    comparableLog(lines)
      .filter((line) => line.includes("\taccess\t"))
      // Who is down is not whom the client called; the original does not say it.
      .map((line) =>
        line.replace(
          /(hbone_addr=10\.77\.0\.26:8080.*\(os error 111\))"/,
          '$1, at waypoint default/stale"',
        ),
      )
      .map((line) => {
        if (!line.includes('direction="inbound"') || !line.includes("complete")) return line;
        const target = /dst\.hbone_addr=(\S+)/.exec(line) ?? /dst\.addr=(\S+)/.exec(line);
        const service = SERVICE_OF[target?.[1] ?? ""];
        return service === undefined
          ? line
          : line.replace(" dst.workload=", ` dst.service="${hostname(service)}" dst.workload=`);
      })
  );
}

/** Source ports and times differ from run to run. */
function comparableLog(lines: readonly string[]): readonly string[] {
  return lines.map((line) =>
    line
      .replace(/src\.addr=([^ ]*):\d+/, "src.addr=$1")
      .replace(/duration="\d+ms"/, 'duration="ms"'),
  );
}

function hostname(service: string): string {
  return `${service}.default.svc.cluster.local`;
}
