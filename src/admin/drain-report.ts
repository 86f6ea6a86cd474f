/** `/drain`: whether the daemon is ending, until when, and for which connections it still waits. */
import type { EnrolledWorkload } from "../mesh/enrolled-workload.ts";
import type { LiveConnections } from "../proxy/connection-report.ts";
import { formatTimestamp } from "../runtime/timestamp.ts";
import { type DumpedConnection, dumpConnection } from "./connection-dump.ts";

/** Wall clock, milliseconds. */
export interface DrainTimes {
  readonly since: number;
  /** Connections that are open then are ended. */
  readonly deadline: number;
}

export interface DrainReport {
  /** In the words of Envoy's `/server_info`. */
  readonly state: "LIVE" | "DRAINING";
  /** RFC 3339. */
  readonly since?: string;
  readonly deadline?: string;
  readonly remainingSeconds?: number;
  readonly connections: { readonly inbound: number; readonly outbound: number };
  /** Those that have connections. */
  readonly workloads: readonly {
    readonly uid: string;
    readonly name: string;
    readonly namespace: string;
    readonly inbound: readonly DumpedConnection[];
    readonly outbound: readonly DumpedConnection[];
  }[];
}

export interface DrainReportDeps {
  /** `undefined`: it is not ending. */
  readonly times: DrainTimes | undefined;
  readonly workloads: readonly EnrolledWorkload[];
  readonly connections: (uid: string) => Promise<LiveConnections>;
  /** Wall clock, milliseconds. */
  readonly now: number;
}

export async function reportDrain(deps: DrainReportDeps): Promise<DrainReport> {
  const { times, now } = deps;
  const all = await Promise.all(
    deps.workloads.map(async ({ uid, name, namespace }) => {
      const { inbound, outbound } = await deps.connections(uid);
      return {
        uid,
        name,
        namespace,
        inbound: inbound.map(dumpConnection),
        outbound: outbound.map(dumpConnection),
      };
    }),
  );
  const busy = all.filter(({ inbound, outbound }) => inbound.length + outbound.length > 0);
  return {
    state: times === undefined ? "LIVE" : "DRAINING",
    ...(times && {
      since: formatTimestamp(times.since),
      deadline: formatTimestamp(times.deadline),
      remainingSeconds: Math.max(0, Math.round((times.deadline - now) / 100) / 10),
    }),
    connections: {
      inbound: busy.reduce((sum, { inbound }) => sum + inbound.length, 0),
      outbound: busy.reduce((sum, { outbound }) => sum + outbound.length, 0),
    },
    workloads: busy,
  };
}

/** @returns lines for a terminal. */
export function formatDrain(report: DrainReport): string {
  const { inbound, outbound } = report.connections;
  const open = `${inbound} inbound and ${outbound} outbound connections`;
  const head =
    report.state === "LIVE"
      ? `live, ${open}`
      : `draining since ${report.since}, for ${report.remainingSeconds} s at most: ${open}`;
  const rows = report.workloads.flatMap((workload) =>
    (["inbound", "outbound"] as const).flatMap((direction) =>
      workload[direction].map(
        ({ src, originalDst, actualDst, protocol }) =>
          `${workload.namespace}/${workload.name}  ${direction}  ${protocol}  ${src} -> ${originalDst ?? actualDst}`,
      ),
    ),
  );
  return [head, ...rows].join("\n");
}
