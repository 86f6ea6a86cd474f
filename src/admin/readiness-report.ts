/** `/healthz/ready?verbose`: why the process is not ready, and what it works with. */
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import { counted } from "../runtime/counted.ts";
import type { PendingTask } from "../runtime/readiness.ts";

/** How a conversation with a neighbour stands. */
export interface LineStanding {
  /** `https://host:port` or a path. */
  readonly address: string;
  readonly connected: boolean;
  /** What ended the last conversation or stands in the way of the next. */
  readonly lastError: string | undefined;
}

export interface ReadinessStanding {
  readonly pending: readonly PendingTask[];
  /** `undefined`: the mesh comes from a file alone. */
  readonly controlPlane:
    | (LineStanding & {
        /** For how long it has not been connected, milliseconds; `undefined`: it is. */
        readonly awayMs: number | undefined;
        /** Since its last answer, milliseconds; `undefined`: none yet. */
        readonly ageMs: number | undefined;
        /** What was refused last, while something is missing because of that. */
        readonly refusal: string | undefined;
      })
    | undefined;
  /** `undefined`: nobody has called it yet; `none`: there is one workload only. */
  readonly nodeAgent: LineStanding | "none" | undefined;
  readonly workloads: readonly {
    readonly workload: EnrolledWorkload;
    readonly state: "Pending" | "Up" | "Draining";
    /** Why it is pending. */
    readonly failure?: string;
  }[];
  readonly mesh: {
    readonly workloads: number;
    readonly services: number;
    readonly policies: number;
  };
}

/** Of what may name each resource of a mesh. */
const REFUSAL_LENGTH_MAX = 500;

/** @returns lines below the plain answer, each with its line feed. */
export function describeReadiness(standing: ReadinessStanding): string {
  const { controlPlane, nodeAgent, workloads, mesh } = standing;
  const waiting = workloads.filter(({ state }) => state === "Pending");
  const drainingCount = workloads.filter(({ state }) => state === "Draining").length;
  const upCount = workloads.length - waiting.length - drainingCount;
  const lines = [
    ...standing.pending.map(
      ({ task, forMs }) =>
        `${task}: pending for ${formatSeconds(forMs)}: ${reasonOf(task, standing)}`,
    ),
    ...waiting.map(
      ({ workload: { uid, namespace, name }, failure }) =>
        `pod ${namespace}/${name} (${uid}): not started: ${failure}`,
    ),
    controlPlane === undefined
      ? "control plane: none, the mesh is read from a file"
      : `control plane ${controlPlane.address}: ${describeControlPlane(controlPlane)}`,
    describeAgent(nodeAgent),
    `pods: ${upCount} up, ${waiting.length} pending${drainingCount > 0 ? `, ${drainingCount} draining` : ""}`,
    `mesh: ${describeMesh(mesh)}${describeAge(controlPlane)}`,
  ];
  return lines.map((line) => `${line}\n`).join("");
}

function describeMesh({ workloads, services, policies }: ReadinessStanding["mesh"]): string {
  return [
    counted(workloads, "workload"),
    counted(services, "service"),
    counted(policies, "policy", "policies"),
  ].join(", ");
}

/** The names are those of spec control-plane 7.4. */
function reasonOf(task: string, standing: ReadinessStanding): string {
  const { controlPlane, nodeAgent, workloads } = standing;
  switch (task) {
    case "state manager":
      if (controlPlane === undefined) return "the mesh is being read";
      if (!controlPlane.connected) {
        return `${controlPlane.address}: ${describeControlPlane(controlPlane)}`;
      }
      if (controlPlane.refusal === undefined) {
        return `${controlPlane.address} has not sent everything yet`;
      }
      return `what ${controlPlane.address} sent was refused: ${beginning(controlPlane.refusal)}`;
    case "workload proxy manager": {
      if (nodeAgent === undefined || nodeAgent === "none") return "the mesh must be known first";
      if (!nodeAgent.connected) return `${nodeAgent.address}: ${describeLine(nodeAgent)}`;
      const waiting = workloads.filter(({ state }) => state === "Pending").length;
      if (waiting > 0) return `${counted(waiting, "pod")} could not be started`;
      return `${nodeAgent.address} has not named all pods yet`;
    }
    default:
      return "being started";
  }
}

/** All of it is in the log. */
function beginning(text: string): string {
  return text.length <= REFUSAL_LENGTH_MAX ? text : `${text.slice(0, REFUSAL_LENGTH_MAX)}…`;
}

function describeAgent(nodeAgent: ReadinessStanding["nodeAgent"]): string {
  if (nodeAgent === undefined) return "node agent: not called yet";
  if (nodeAgent === "none") return "node agent: none, this is the proxy of one workload";
  return `node agent ${nodeAgent.address}: ${describeLine(nodeAgent)}`;
}

function describeControlPlane(line: NonNullable<ReadinessStanding["controlPlane"]>): string {
  const { awayMs, lastError } = line;
  if (awayMs === undefined || lastError === undefined) return describeLine(line);
  return `not connected for ${formatSeconds(awayMs)}: ${lastError}`;
}

function describeLine({ connected, lastError }: LineStanding): string {
  if (connected) return "connected";
  return lastError === undefined ? "not connected yet" : `not connected: ${lastError}`;
}

function describeAge(controlPlane: ReadinessStanding["controlPlane"]): string {
  const ageMs = controlPlane?.ageMs;
  return ageMs === undefined ? "" : `, last answer ${formatSeconds(ageMs)} ago`;
}

/** `1.2s` */
function formatSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)}s`;
}
