/** `/drain`: whether the daemon or a pod is ending, until when, and for which connections it still waits. */
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
    /** The pod has left; what is connected then is ended, RFC 3339. */
    readonly deadline?: string;
    readonly remainingSeconds?: number;
    readonly inbound: readonly DumpedConnection[];
    readonly outbound: readonly DumpedConnection[];
  }[];
}

export interface DrainReportDeps {
  /** `undefined`: it is not ending. */
  readonly times: DrainTimes | undefined;
  readonly workloads: readonly {
    readonly workload: EnrolledWorkload;
    /** Of one that has left: wall clock, milliseconds. */
    readonly deadline?: number;
  }[];
  readonly connections: (uid: string) => Promise<LiveConnections>;
  /** Wall clock, milliseconds. */
  readonly now: number;
}

export async function reportDrain(deps: DrainReportDeps): Promise<DrainReport> {
  const { times, now } = deps;
  const all = await Promise.all(
    deps.workloads.map(async ({ workload: { uid, name, namespace }, deadline }) => {
      const { inbound, outbound } = await deps.connections(uid);
      return {
        uid,
        name,
        namespace,
        ...(deadline !== undefined && until(deadline, now)),
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
      ...until(times.deadline, now),
    }),
    connections: {
      inbound: busy.reduce((sum, { inbound }) => sum + inbound.length, 0),
      outbound: busy.reduce((sum, { outbound }) => sum + outbound.length, 0),
    },
    workloads: busy,
  };
}

function until(
  deadline: number,
  now: number,
): { readonly deadline: string; readonly remainingSeconds: number } {
  return {
    deadline: formatTimestamp(deadline),
    remainingSeconds: Math.max(0, Math.round((deadline - now) / 100) / 10),
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
  const rows = report.workloads.flatMap(({ namespace, name, remainingSeconds, ...connections }) => {
    const left = remainingSeconds === undefined ? "" : `  left, for ${remainingSeconds} s at most`;
    return (["inbound", "outbound"] as const).flatMap((direction) =>
      connections[direction].map(
        ({ src, originalDst, actualDst, protocol }) =>
          `${namespace}/${name}  ${direction}  ${protocol}  ${src} -> ${originalDst ?? actualDst}${left}`,
      ),
    );
  });
  return [head, ...rows].join("\n");
}
