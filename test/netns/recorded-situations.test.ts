/**
 * The situations that were recorded from the original, played through two of our daemons: what the
 * client sees, every access log line field by field, and the metrics that moved.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type AccessLine, parseJsonLine, parsePlainLine } from "../support/access-line.ts";
import {
  type ClientStory,
  type LabServer,
  listenDoubling,
  tellStory,
} from "../support/lab-application.ts";
import { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";

const RECORDED = join(import.meta.dirname, "../fixtures/ztunnel");
const NODES = ["node-a", "node-b"] as const;
const RECORDED_AS = { "node-a": "a", "node-b": "b" } as const;

interface Situation {
  readonly what: string;
  readonly plain: ClientStory & { readonly from: string; readonly to: string };
}

const situations = JSON.parse(readFileSync(join(RECORDED, "clients.json"), "utf8")) as Record<
  string,
  Situation
>;

/**
 * Where we differ on purpose. A field's text is replaced in the recorded line before comparing;
 * everything else must be equal.
 */
const MEANT: readonly {
  readonly situation: string;
  readonly node: (typeof NODES)[number];
  readonly field: string;
  readonly recorded: string | undefined;
  readonly ours: string;
  readonly why: string;
}[] = [
  ...[
    ...["hbone", "hbone_vip", "hbone_self", "plaintext_inbound", "no_data"].map((name) => [
      name,
      "echo",
    ]),
    ["policy_dry_run", "pair"],
  ].map(([situation = "", service = ""]) => ({
    situation,
    node: "node-b" as const,
    field: "dst.service",
    recorded: undefined,
    ours: `"${service}.default.svc.cluster.local"`,
    why: "the original forgets a workload's own services when the mesh comes from a file",
  })),
  {
    situation: "waypoint_refused",
    node: "node-a",
    field: "error",
    recorded: '"io error: Connection refused (os error 111)"',
    ours: '"io error: Connection refused (os error 111), at waypoint default/stale"',
    why: "who is down is not whom the client called",
  },
];

/** Differ from run to run. */
const VARIABLE_FIELDS: ReadonlySet<string> = new Set(["src.addr", "duration"]);

for (const format of ["plain", "json"] as const) {
  describe(`recorded situations, ${format} log`, { skip: requireNetns("iptables") }, () => {
    let lab: MeshLab;
    const servers: LabServer[] = [];

    before(async () => {
      lab = await startLab(format);
      for (const name of ["server1", "server2", "server3", "plain", "passthrough", "liar"]) {
        servers.push(listenDoubling(lab.host(name), 8080));
      }
      servers.push(listenDoubling(lab.host("server2"), 8081));
    });

    after(async () => {
      for (const server of servers) server.close();
      await lab?.close();
    });

    // The two that wait ten seconds for an answer tell nothing more in the second format.
    const played = Object.entries(situations).filter(
      ([name]) => format === "plain" || !/timeout|workload_unknown/.test(name),
    );
    for (const [name, situation] of played) {
      test(`${name}: ${situation.what}`, async () => {
        const metricsBefore = await readMetrics(lab);
        const linesBefore = NODES.map((node) => accessLines(lab, node, format).length);
        const expectedLines = NODES.map((node) => recordedLines(name, node, format));
        assert.ok(
          expectedLines.some((lines) => lines.length > 0),
          "a recording is there",
        );
        const { from, to } = situation.plain;
        const [ip = "", port = ""] = to.split(":");
        const sent = name === "no_data" ? "" : "hello world";
        const story = await tellStory(lab.host(from), ip, Number(port), sent);
        assert.deepEqual(asSeen(story, sent), asSeen(situation.plain, sent), "the client");

        await waitUntil(
          () =>
            NODES.every(
              (node, i) =>
                accessLines(lab, node, format).length - (linesBefore[i] ?? 0) >=
                (expectedLines[i]?.length ?? 0),
            ),
          `lines missing: ${JSON.stringify(NODES.map((node, i) => accessLines(lab, node, format).slice(linesBefore[i])))}`,
        );
        for (const [i, node] of NODES.entries()) {
          assert.deepEqual(
            accessLines(lab, node, format).slice(linesBefore[i]).map(comparable).sort(byText),
            (expectedLines[i] ?? []).map(comparable).sort(byText),
            `lines of ${node}`,
          );
        }
        if (format === "plain") {
          const metricsAfter = await readMetrics(lab);
          for (const node of NODES) {
            assert.deepEqual(
              moved(metricsBefore[node], metricsAfter[node]),
              recordedMetrics(name, node),
              `metrics of ${node}`,
            );
          }
        }
      });
    }
  });
}

function startLab(format: "plain" | "json"): Promise<MeshLab> {
  const meshA = readFileSync(join(RECORDED, "local-a.yaml"), "utf8");
  const meshB = readFileSync(join(RECORDED, "local-b.yaml"), "utf8");
  const environment = { LOG_FORMAT: format, ZTUNNEL_WORKER_THREADS: "1" };
  return MeshLab.start({
    nodes: {
      "node-a": {
        ip: "10.77.0.2",
        mesh: meshA,
        environment,
        pods: [
          { name: "client1", ip: "10.77.0.11" },
          { name: "client2", ip: "10.77.0.12" },
          { name: "client3", ip: "10.77.0.13" },
          { name: "client4", ip: "10.77.0.14" },
          { name: "stranger", ip: "10.77.0.15" },
        ],
      },
      "node-b": {
        ip: "10.77.0.3",
        mesh: meshB,
        environment,
        pods: [
          { name: "server1", ip: "10.77.0.21" },
          { name: "server2", ip: "10.77.0.22" },
          { name: "server3", ip: "10.77.0.23" },
          { name: "server4", ip: "10.77.0.24" },
          { name: "liar", ip: "10.77.0.25", serviceAccount: "actual" },
          { name: "mute", ip: "10.77.0.26" },
        ],
      },
    },
    outsiders: {
      outside: "10.77.0.31",
      passthrough: "10.77.0.32",
      plain: "10.77.0.33",
      stale: "10.77.0.34",
    },
    mesh: meshB,
    controlIp: "10.77.0.4",
    prefixLength: 24,
    gatewayIp: "10.77.0.1",
  });
}

/**
 * A refusal is a reset when the client's bytes came first and an end without a byte when they did
 * not; which one is a matter of microseconds, and so is the call that notices it.
 */
function asSeen(story: ClientStory, sent: string): { end: string; received: string } {
  const isRefusal = sent !== "" && story.received === "";
  return { end: isRefusal ? "refused" : story.end, received: story.received };
}

function accessLines(lab: MeshLab, node: string, format: "plain" | "json"): AccessLine[] {
  return parseLines(lab.node(node).lines, format);
}

function parseLines(lines: readonly string[], format: "plain" | "json"): AccessLine[] {
  return lines
    .map(format === "plain" ? parsePlainLine : parseJsonLine)
    .filter(({ scope }) => scope === "access");
}

function recordedLines(
  situation: string,
  node: (typeof NODES)[number],
  format: "plain" | "json",
): AccessLine[] {
  const file = join(RECORDED, "access", format, `${situation}.${RECORDED_AS[node]}.log`);
  // No file: nothing was written then. Every situation wrote on one node at least.
  const text = existsSync(file) ? readFileSync(file, "utf8") : "";
  const meant = MEANT.filter((one) => one.situation === situation && one.node === node);
  return parseLines(
    text.split("\n").filter((line) => line !== ""),
    format,
  ).map((line) => meant.reduce((changed, one) => applyMeant(changed, one), line));
}

function applyMeant(line: AccessLine, meant: (typeof MEANT)[number]): AccessLine {
  if (meant.recorded !== undefined) {
    return {
      ...line,
      fields: line.fields.map(([name, value]) =>
        name === meant.field && value === meant.recorded ? [name, meant.ours] : [name, value],
      ),
    };
  }
  // A field that the original leaves out: dst.service stands before dst.workload.
  const isInbound = line.fields.some(
    ([name, value]) => name === "direction" && value === '"inbound"',
  );
  const at = line.fields.findIndex(([name]) => name === "dst.workload");
  if (!isInbound || at < 0) return line;
  return { ...line, fields: line.fields.toSpliced(at, 0, [meant.field, meant.ours]) };
}

function comparable(line: AccessLine): string {
  const fields = line.fields.map(([name, value]) =>
    VARIABLE_FIELDS.has(name) ? `${name}=*` : `${name}=${value}`,
  );
  return [line.level, line.scope, line.message, ...fields].join(" ");
}

function byText(a: string, b: string): number {
  return a < b ? -1 : 1;
}

type Samples = ReadonlyMap<string, number>;

async function readMetrics(lab: MeshLab): Promise<Record<(typeof NODES)[number], Samples>> {
  const [a, b] = await Promise.all(NODES.map((node) => lab.node(node).metrics()));
  return { "node-a": parseSamples(a ?? ""), "node-b": parseSamples(b ?? "") };
}

function parseSamples(text: string): Samples {
  const lines = text.split("\n").filter((line) => /^istio_tcp_(conn|rec|sent)/.test(line));
  return new Map(
    lines.map((line) => {
      const space = line.lastIndexOf(" ");
      return [line.slice(0, space), Number(line.slice(space + 1))];
    }),
  );
}

/** What changed, and what is new with a zero; sorted. */
function moved(from: Samples, to: Samples): string[] {
  return [...to]
    .filter(([series, value]) => value !== from.get(series))
    .map(([series, value]) => `${series} ${value - (from.get(series) ?? 0)}`)
    .filter((line) => !line.endsWith(" 0"))
    .sort(byText);
}

function recordedMetrics(situation: string, node: (typeof NODES)[number]): string[] {
  const file = join(RECORDED, "metrics", `${situation}.${RECORDED_AS[node]}.txt`);
  const service = MEANT.find(
    (one) => one.situation === situation && one.field === "dst.service",
  )?.ours.slice(1, -1);
  const lines = [...parseSamples(readFileSync(file, "utf8"))]
    .map(([series, value]) => `${series} ${value}`)
    .filter((line) => !line.endsWith(" 0"));
  return lines
    .map((line) =>
      service !== undefined && line.includes('reporter="destination"')
        ? line
            .replace('destination_service="unknown"', `destination_service="${service}"`)
            .replace('_service_namespace="unknown"', '_service_namespace="default"')
            .replace('_service_name="unknown"', `_service_name="${service.split(".")[0]}"`)
        : line,
    )
    .sort(byText);
}
