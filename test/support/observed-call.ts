/** One call through a lab of two nodes, with all that is said about it. */
import { type AccessLine, parseJsonLine } from "./access-line.ts";
import { tellStory } from "./lab-application.ts";
import type { MeshLab } from "./mesh-lab.ts";
import { waitUntil } from "./wait-until.ts";

const NODES = ["node-a", "node-b"] as const;

export interface ObservedCall {
  readonly received: string;
  readonly end: string;
  /** Of both nodes. */
  readonly lines: readonly { readonly message: string; readonly fields: Record<string, unknown> }[];
  /** What moved on both nodes in series with all of these labels. */
  counters(...labels: string[]): Record<"opened" | "closed" | "received" | "sent", number>;
}

/**
 * The client of the recorded situations, between daemons that log JSON.
 *
 * @param length of the answer.
 * @param first whose line there has to be: of the client's daemon, unless it has none.
 */
export async function observeCall(
  lab: MeshLab,
  from: string,
  ip: string,
  port: number,
  length = 22,
  first: "outbound" | "inbound" = "outbound",
): Promise<ObservedCall> {
  const linesBefore = NODES.map((node) => lab.node(node).lines.length);
  const metricsBefore = await samples(lab);
  const story = await tellStory(lab.host(from), ip, port, "hello world", length);
  const lines = (): AccessLine[] =>
    NODES.flatMap((node, i) => lab.node(node).lines.slice(linesBefore[i]))
      .filter((line) => line.includes('"scope":"access"'))
      .map(parseJsonLine);
  let after = await samples(lab);
  const moved = (pattern: string, labels: readonly string[]): number =>
    total(after, pattern, labels) - total(metricsBefore, pattern, labels);
  await waitUntil(async () => {
    after = await samples(lab);
    const opened = moved("opened", []);
    // A connection that went to another endpoint has one line for both.
    const lineCount = opened - (retries(after) - retries(metricsBefore));
    const found = lines();
    return (
      found.some((line) => line.fields.some(([, value]) => value === `"${first}"`)) &&
      found.length >= lineCount &&
      opened === moved("closed", [])
    );
  }, `the call to ${ip}:${port} never ended`);
  return {
    ...story,
    lines: lines().map(({ message, fields }) => ({
      message,
      fields: Object.fromEntries(fields.map(([name, value]) => [name, JSON.parse(value)])),
    })),
    counters: (...labels) => ({
      opened: moved("opened", labels),
      closed: moved("closed", labels),
      received: moved("received", labels),
      sent: moved("sent", labels),
    }),
  };
}

async function samples(lab: MeshLab): Promise<string[]> {
  const texts = await Promise.all(NODES.map((node) => lab.node(node).metrics()));
  return texts.join("\n").split("\n");
}

function retries(lines: readonly string[]): number {
  return lines
    .filter((line) => line.startsWith("ztunnel_connect_retries_total"))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

function total(lines: readonly string[], pattern: string, labels: readonly string[]): number {
  return lines
    .filter((line) => new RegExp(`^istio_tcp_(connections_)?${pattern}_(bytes_)?total{`).test(line))
    .filter((line) => labels.every((label) => line.includes(label)))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}
