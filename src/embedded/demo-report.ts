/** What the demo saw, for a person who looks at it once. Pure: outcome in, text out. */
import { counted } from "../runtime/counted.ts";
import type { NodeName } from "./demo-network.ts";
import type { CapturedFlow } from "./wire-capture.ts";

type Hello = { readonly answer: string } | { readonly error: string };

export interface TalkOutcome {
  readonly clientIp: string;
  readonly target: string;
  readonly bulkTarget: string;
  /** What the client sent, to look for elsewhere. */
  readonly marker: string;
  readonly allowed: Hello;
  readonly denied: Hello;
  readonly bulk: {
    readonly wantedBytes: number;
    readonly receivedBytes: number;
    readonly durationMs: number;
  };
  readonly wire: { readonly flows: readonly CapturedFlow[]; readonly markerCount: number };
  readonly markerInsidePodCount: number;
  readonly access: Readonly<Record<NodeName, readonly string[]>>;
  /** Bodies of /metrics. */
  readonly metrics: {
    readonly before: Readonly<Record<NodeName, string>>;
    readonly after: Readonly<Record<NodeName, string>>;
  };
}

export interface DemoReport {
  readonly text: string;
  /** What was not as it should be; they stand in the text too. */
  readonly mistakes: readonly string[];
}

const MIB = 1024 * 1024;
/** HBONE's. */
const TUNNEL_PORT = ":15008";

export function formatDemoReport(outcome: TalkOutcome): DemoReport {
  const mistakes = findMistakes(outcome);
  const sections = [
    section("What the applications saw", applications(outcome)),
    section("On the wire between the nodes", wire(outcome)),
    ...(["node-a", "node-b"] as const).flatMap((node) => [
      section(`Access log of ${node}`, outcome.access[node]),
      section(
        `Metrics of ${node} that moved`,
        movedMetrics(outcome.metrics.before[node], outcome.metrics.after[node]),
      ),
    ]),
    mistakes.length === 0 ? "All as it should be.\n" : section("NOT as it should be", mistakes),
  ];
  return { text: sections.join("\n"), mistakes };
}

/** `family  source → destination  +difference`, summed over all other labels. */
export function movedMetrics(before: string, after: string): string[] {
  const old = readSamples(before);
  return [...readSamples(after)]
    .map(([series, value]) => [series, value - (old.get(series) ?? 0)] as const)
    .filter(([series, moved]) => moved !== 0 && series.startsWith("istio_"))
    .map(([series, moved]) => `${series}${moved > 0 ? "+" : ""}${moved}`);
}

/** Columns that hold the longest family and the longest pair of the demo. */
const FAMILY_COLUMNS = 38;
const PAIR_COLUMNS = 22;

function readSamples(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  for (const line of text.split("\n")) {
    const sample = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (sample === null) continue;
    const labels = new Map(
      [...(sample[2] ?? "").matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]),
    );
    const source = labels.get("source_workload");
    const flags = labels.get("response_flags") ?? "-";
    const pair = source === undefined ? "" : `${source} → ${labels.get("destination_workload")}`;
    const family = (sample[1] as string).padEnd(FAMILY_COLUMNS);
    const series = `${family}${pair.padEnd(PAIR_COLUMNS)}${flags === "-" ? "" : `${flags} `}`;
    samples.set(series, (samples.get(series) ?? 0) + Number(sample[3]));
  }
  return samples;
}

function section(title: string, lines: readonly string[]): string {
  return `${title}\n${lines.map((line) => `  ${line}\n`).join("")}`;
}

function applications({ allowed, denied, bulk, target, bulkTarget }: TalkOutcome): string[] {
  const gbits = (bulk.receivedBytes * 8) / bulk.durationMs / 1e6;
  return [
    `client    POST ${target} → ${said(allowed)}`,
    `intruder  POST ${target} → ${said(denied)}`,
    `client    ${bulk.receivedBytes / MIB} MiB to ${bulkTarget} → ${(bulk.durationMs / 1000).toFixed(2)} s, ${gbits.toFixed(2)} Gbit/s`,
  ];
}

function said(hello: Hello): string {
  return "answer" in hello ? hello.answer : `refused: ${hello.error}`;
}

function wire({
  wire: { flows, markerCount },
  marker,
  markerInsidePodCount,
}: TalkOutcome): string[] {
  return [
    ...flows.filter(isBetweenPods).map((flow) => {
      const what = flow.isTls
        ? `TLS records: ${flow.handshakeCount} of the handshake in the clear, ${flow.applicationDataCount} encrypted (17 03 03)`
        : "NOT TLS";
      return `${flow.source} → ${flow.destination}  ${flow.byteCount} bytes, ${what}`;
    }),
    `"${marker}" was readable in ${counted(markerInsidePodCount, "segment")} inside the client's pod, in ${markerCount} on the wire`,
  ];
}

/** Leaves out what the proxies say to the control plane. */
function isBetweenPods({ source, destination }: CapturedFlow): boolean {
  return source.endsWith(TUNNEL_PORT) || destination.endsWith(TUNNEL_PORT);
}

function findMistakes(outcome: TalkOutcome): string[] {
  const { allowed, denied, bulk, wire: seen, clientIp, marker } = outcome;
  const mistakes: string[] = [];
  const expect = (condition: boolean, mistake: string): void => {
    if (!condition) mistakes.push(mistake);
  };
  const answer = "answer" in allowed ? allowed.answer : "";
  expect(
    answer === `200 hello ${clientIp}, you said ${marker}`,
    "the client was not served under its own address",
  );
  expect("error" in denied, "the intruder was served");
  expect(bulk.receivedBytes === bulk.wantedBytes, "bytes of the bulk transfer were lost");
  expect(seen.flows.some(isBetweenPods), "no tunnel was seen on the wire");
  expect(
    seen.flows.every((flow) => flow.isTls),
    "something on the wire was no TLS",
  );
  expect(seen.markerCount === 0, "what the client said was readable on the wire");
  expect(
    outcome.markerInsidePodCount > 0,
    "the capture is blind: it saw nothing inside the pod either",
  );
  return mistakes;
}
