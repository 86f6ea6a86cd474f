/** What daemons and kernel say when a connection does not move any more. */
import type { MeshLab } from "../mesh-lab.ts";
import type { TortureCall } from "./torture-call.ts";
import type { TortureLab } from "./torture-lab.ts";

/** Thousands wait for their time to be over. */
const SS_ARGUMENTS = ["-Htnm", "state", "connected", "exclude", "time-wait"] as const;

interface Dump {
  readonly workloadState: Readonly<
    Record<string, { readonly connections?: Readonly<Record<string, readonly LiveConnection[]>> }>
  >;
}

interface LiveConnection {
  readonly src: string;
  readonly originalDst: string | null;
  readonly actualDst: string;
  readonly protocol: string;
}

/** By the admin port of a node. */
export async function liveConnections(lab: MeshLab, node: string): Promise<readonly string[]> {
  const { workloadState }: Dump = JSON.parse(await lab.node(node).get(15000, "/config_dump"));
  return Object.values(workloadState).flatMap(({ connections = {} }) =>
    Object.entries(connections).flatMap(([direction, live]) =>
      live.map(
        ({ src, originalDst, actualDst, protocol }) =>
          `${direction} ${src} to ${originalDst} at ${actualDst} (${protocol})`,
      ),
    ),
  );
}

/** The connection, what both daemons have open, and the kernel's queues on both hosts of its path. */
export async function describeStuck({ lab }: TortureLab, call: TortureCall): Promise<string> {
  const nodes = await Promise.all(
    ["node-a", "node-b"].map(async (name) => {
      const live = await liveConnections(lab, name).catch((error: Error) => [error.message]);
      return [`--- ${name} has open`, ...live];
    }),
  );
  const kernels = [...new Set([call.path.from, call.path.to])].map((name) => {
    const sockets = lab.net.exec(lab.host(name), "ss", ...SS_ARGUMENTS);
    return [`--- sockets of ${name}`, sockets];
  });
  return [`stuck: ${call}`, ...nodes.flat(), ...kernels.flat()].join("\n");
}
