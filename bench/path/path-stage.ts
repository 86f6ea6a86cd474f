/**
 * The systems that stand between a client and a server in namespaces of their own, all in one lab:
 * nothing (`direct`), two nodes of ours (`ztunnel`), two nodes with a ztunnel that the command line
 * names (`other`), a pair of HAProxy and one of Envoy where they are installed. All proxies are behind
 * istio-cni's redirect rules; each system carries the same load to the same kind of application.
 */
import { readFileSync } from "node:fs";
import { MeshLab } from "../../test/support/mesh-lab.ts";
import type { LabHost } from "../../test/support/netns-lab.ts";
import { keepLogs } from "../kept-logs.ts";
import { buildLoadTool, type LoadTool } from "../load/build.ts";
import { firstWords, holdConnections, type LoadResult, runLoad } from "../load/run-load.ts";
import { envoyVersion, haproxyVersion } from "../machine.ts";
import { type NodeCommands, parseBenchOptions } from "../options.ts";
import { meshText, podNames } from "./bench-mesh.ts";
import { startEnvoyPair } from "./envoy-pair.ts";
import { startHaproxyPair } from "./haproxy-pair.ts";
import { requireStage } from "./require-stage.ts";

export interface PathSystem {
  readonly name: "direct" | "ztunnel" | "other" | "HAProxy" | "Envoy";
  readonly client: LabHost;
  readonly server: LabHost;
  /** None on the direct path. */
  readonly proxies: readonly Proxy[];
}

export interface Proxy {
  readonly side: "client" | "server";
  readonly pid: number;
}

const APPLICATION_PORT = 8080;
/** As many as the start-up figure names. */
const PODS_PER_NODE = 4;
const TICKS_PER_SECOND = 100;
const OUTSIDE_SERVER = "outside-server";

/** Ours are a and b; another ztunnel, where one is named, is on c and d. */
const NODES = {
  a: { ip: "10.78.0.2", firstPodIp: 10 },
  b: { ip: "10.78.0.3", firstPodIp: 20 },
  c: { ip: "10.78.0.5", firstPodIp: 30 },
  d: { ip: "10.78.0.6", firstPodIp: 40 },
} as const;
type NodeName = keyof typeof NODES;

/** The lab with its systems and their servers; nothing outlives {@link PathStage.close}. */
export class PathStage {
  readonly lab: MeshLab;
  readonly systems: readonly PathSystem[];
  /** Those that can, with a server outside the mesh: only the client's proxy is on the way. */
  readonly outside: readonly PathSystem[];

  private constructor(lab: MeshLab, systems: readonly PathSystem[]) {
    this.lab = lab;
    this.systems = systems;
    this.outside = systems
      .filter(({ name }) => name !== "HAProxy")
      .map((system) => ({
        ...system,
        server: lab.host(OUTSIDE_SERVER),
        proxies: system.proxies.filter(({ side }) => side === "client"),
      }));
  }

  /**
   * Ends the process when the machine lacks something.
   *
   * @param server the application behind each system, with the arguments before its port.
   * @throws Error that names an option that is wrong.
   */
  static async start(server: LoadTool, ...args: readonly string[]): Promise<PathStage> {
    requireStage();
    const { nodeCommands } = parseBenchOptions(process.argv.slice(2));
    const lab = await startLab(nodeCommands);
    try {
      const systems = await startSystems(lab);
      const program = buildLoadTool(server);
      const port = String(APPLICATION_PORT);
      for (const host of [...systems.map((system) => system.server), lab.host(OUTSIDE_SERVER)]) {
        await firstWords(lab.net.spawn(host, program, ...args, port));
      }
      return new PathStage(lab, systems);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  /**
   * Runs a load tool beside the system's client to its end; the server's address is its last
   * arguments.
   *
   * @returns what it printed. @throws with its words when it noticed a wrong byte or an error.
   */
  load(
    system: PathSystem,
    tool: LoadTool,
    ...args: readonly (string | number)[]
  ): Promise<LoadResult> {
    return runLoad(system.client, tool, ...args, system.server.ipv4, APPLICATION_PORT);
  }

  /** Opens connections and holds them while `meanwhile` runs; each is checked before and after. */
  async holdIdle<Result>(
    system: PathSystem,
    connectionCount: number,
    meanwhile: () => Promise<Result>,
  ): Promise<Result> {
    const server = { ip: system.server.ipv4, port: APPLICATION_PORT };
    const held = await holdConnections(system.client, connectionCount, server);
    const result = await meanwhile();
    await held.release();
    return result;
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}

/** User and system time of all threads, in seconds; the kernel counts hundredths. */
export function cpuSeconds(proxy: Proxy): number {
  const stat = readFileSync(`/proc/${proxy.pid}/stat`, "utf8");
  // The name in parentheses may hold spaces; user time is the 14th field, the 12th after it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Resident memory in MB (10⁶ bytes). */
export function residentMb(proxy: Proxy): number {
  const status = readFileSync(`/proc/${proxy.pid}/status`, "utf8");
  return (Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024) / 1e6;
}

async function startSystems(lab: MeshLab): Promise<readonly PathSystem[]> {
  const pair = (name: string): Pick<PathSystem, "client" | "server"> => ({
    client: lab.host(`${name}-client`),
    server: lab.host(`${name}-server`),
  });
  const systems: PathSystem[] = [
    { name: "direct", ...pair("direct"), proxies: [] },
    nodePair(lab, "ztunnel", "a", "b"),
    ...(lab.nodes.has("node-c") ? [nodePair(lab, "other", "c", "d")] : []),
  ];
  if (haproxyVersion() !== undefined) {
    const hosts = pair("haproxy");
    const { clientPid, serverPid } = await startHaproxyPair(lab, hosts, APPLICATION_PORT);
    systems.push({ name: "HAProxy", ...hosts, proxies: proxies(clientPid, serverPid) });
  }
  if (envoyVersion() !== undefined) {
    const names = { client: "envoy-client", server: "envoy-server" };
    const { clientPid, serverPid } = await startEnvoyPair(lab, names, APPLICATION_PORT);
    systems.push({ name: "Envoy", ...pair("envoy"), proxies: proxies(clientPid, serverPid) });
  }
  return systems;
}

function nodePair(
  lab: MeshLab,
  name: PathSystem["name"],
  client: NodeName,
  server: NodeName,
): PathSystem {
  return {
    name,
    client: lab.host(`pod-${client}-0`),
    server: lab.host(`pod-${server}-0`),
    proxies: proxies(
      lab.node(`node-${client}`).process.pid,
      lab.node(`node-${server}`).process.pid,
    ),
  };
}

function proxies(clientPid: number | undefined, serverPid: number | undefined): readonly Proxy[] {
  if (clientPid === undefined || serverPid === undefined) throw new Error("a proxy has no process");
  return [
    { side: "client", pid: clientPid },
    { side: "server", pid: serverPid },
  ];
}

function startLab(commands: NodeCommands): Promise<MeshLab> {
  const hasOther = commands.a !== undefined || commands.b !== undefined;
  const names: readonly NodeName[] = hasOther ? ["a", "b", "c", "d"] : ["a", "b"];
  const mesh = meshText(names, PODS_PER_NODE, podIp);
  const command: Partial<Record<NodeName, string | undefined>> = { c: commands.a, d: commands.b };
  const nodes = names.map((name): [string, MeshNode] => [
    `node-${name}`,
    {
      ip: NODES[name].ip,
      mesh,
      pods: podNames(name, PODS_PER_NODE).map((pod, i) => ({ name: pod, ip: podIp(name, i) })),
      environment: { ZTUNNEL_WORKER_THREADS: "1" },
      ...(command[name] === undefined ? {} : { command: command[name] }),
    },
  ]);
  return MeshLab.start({
    nodes: Object.fromEntries(nodes),
    outsiders: {
      "direct-client": "10.78.0.61",
      "direct-server": "10.78.0.62",
      "haproxy-client": "10.78.0.63",
      "haproxy-server": "10.78.0.64",
      "envoy-client": "10.78.0.65",
      "envoy-server": "10.78.0.66",
      [OUTSIDE_SERVER]: "10.78.0.67",
    },
    mesh,
    controlIp: "10.78.0.4",
    prefixLength: 24,
    gatewayIp: "10.78.0.1",
    logFolder: keepLogs(),
  });
}

type MeshNode = Parameters<typeof MeshLab.start>[0]["nodes"][string];

function podIp(node: NodeName, index: number): string {
  return `10.78.0.${NODES[node].firstPodIp + index}`;
}
