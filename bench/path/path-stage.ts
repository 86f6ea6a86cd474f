/**
 * The systems that stand between a client and a server in namespaces of their own, all in one lab:
 * nothing (`direct`), two nodes of ours with istio-cni's redirect rules (`ztunnel`), and a pair of
 * HAProxy where it is installed. Each carries the same load to the same kind of application.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { MeshLab } from "../../test/support/mesh-lab.ts";
import { type LabHost, requireNetns } from "../../test/support/netns-lab.ts";
import { buildLoadTool, type LoadTool } from "../load/build.ts";
import { haproxyVersion } from "../machine.ts";
import { startHaproxyPair } from "./haproxy-pair.ts";

export interface PathSystem {
  readonly name: "direct" | "ztunnel" | "HAProxy";
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

const NODES = ["a", "b"] as const;

/** The lab with its systems and their servers; nothing outlives {@link PathStage.close}. */
export class PathStage {
  readonly lab: MeshLab;
  readonly systems: readonly PathSystem[];

  private constructor(lab: MeshLab, systems: readonly PathSystem[]) {
    this.lab = lab;
    this.systems = systems;
  }

  /**
   * @param server the application behind each system, with the arguments before its port.
   * @throws Error that names what the machine lacks.
   */
  static async start(server: LoadTool, ...args: readonly string[]): Promise<PathStage> {
    const obstacle = requireNetns("iptables", "cc");
    if (obstacle !== false) throw new Error(obstacle);
    const lab = await startLab();
    try {
      const systems = await startSystems(lab);
      for (const system of systems) {
        const program = buildLoadTool(server);
        const port = String(APPLICATION_PORT);
        await firstWords(lab.net.spawn(system.server, program, ...args, port));
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
  ): Promise<Readonly<Record<string, number>>> {
    return new Promise((resolve, reject) => {
      execFile("nsenter", loadCommand(system, tool, args), (error, stdout, stderr) => {
        if (error === null) resolve(JSON.parse(stdout));
        else reject(new Error(`${tool} through ${system.name}: ${stderr}`, { cause: error }));
      });
    });
  }

  /** Opens connections and holds them while `meanwhile` runs; each is checked before and after. */
  async holdIdle<Result>(
    system: PathSystem,
    connectionCount: number,
    meanwhile: () => Promise<Result>,
  ): Promise<Result> {
    const child = spawn("nsenter", loadCommand(system, "idle", [connectionCount]), {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const ended = once(child, "exit");
    await firstWords(child);
    const result = await meanwhile();
    child.stdin.end();
    const [status] = await ended;
    if (status !== 0) throw new Error(`idle connections through ${system.name} did not last`);
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

function loadCommand(
  { client, server }: PathSystem,
  tool: LoadTool,
  args: readonly (string | number)[],
): string[] {
  const address = [server.ipv4, String(APPLICATION_PORT)];
  return [`--net=${client.path}`, "--", buildLoadTool(tool), ...args.map(String), ...address];
}

/** Settles with the first output; a process that ends before has failed. */
async function firstWords(child: ChildProcess): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once("data", () => resolve());
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${child.spawnargs.join(" ")}: ended, ${code}`)));
  });
}

async function startSystems(lab: MeshLab): Promise<readonly PathSystem[]> {
  const pair = (name: string): Pick<PathSystem, "client" | "server"> => ({
    client: lab.host(`${name}-client`),
    server: lab.host(`${name}-server`),
  });
  const systems: PathSystem[] = [
    { name: "direct", ...pair("direct"), proxies: [] },
    {
      name: "ztunnel",
      client: lab.host("pod-a-0"),
      server: lab.host("pod-b-0"),
      proxies: proxies(lab.node("node-a").process.pid, lab.node("node-b").process.pid),
    },
  ];
  if (haproxyVersion() !== undefined) {
    const hosts = pair("haproxy");
    const { clientPid, serverPid } = await startHaproxyPair(lab, hosts, APPLICATION_PORT);
    systems.push({ name: "HAProxy", ...hosts, proxies: proxies(clientPid, serverPid) });
  }
  return systems;
}

function proxies(clientPid: number | undefined, serverPid: number | undefined): readonly Proxy[] {
  if (clientPid === undefined || serverPid === undefined) throw new Error("a proxy has no process");
  return [
    { side: "client", pid: clientPid },
    { side: "server", pid: serverPid },
  ];
}

function startLab(): Promise<MeshLab> {
  const mesh = meshText();
  const node = (name: (typeof NODES)[number], ip: string): MeshNode => ({
    ip,
    mesh,
    pods: podNames(name).map((pod, i) => ({ name: pod, ip: podIp(name, i) })),
    environment: { ZTUNNEL_WORKER_THREADS: "1" },
  });
  return MeshLab.start({
    nodes: { "node-a": node("a", "10.78.0.2"), "node-b": node("b", "10.78.0.3") },
    outsiders: {
      "direct-client": "10.78.0.41",
      "direct-server": "10.78.0.42",
      "haproxy-client": "10.78.0.43",
      "haproxy-server": "10.78.0.44",
    },
    authorityMesh: mesh,
    controlIp: "10.78.0.4",
    prefixLength: 24,
    gatewayIp: "10.78.0.1",
  });
}

type MeshNode = Parameters<typeof MeshLab.start>[0]["nodes"][string];

/** JSON is YAML. */
function meshText(): string {
  const workloads = NODES.flatMap((node) =>
    podNames(node).map((name, i) => ({
      uid: `bench//Pod/default/${name}`,
      name,
      namespace: "default",
      serviceAccount: name,
      trustDomain: "cluster.local",
      workloadIps: [podIp(node, i)],
      protocol: "HBONE",
      node: `node-${node}`,
      network: "",
      clusterId: "Kubernetes",
      workloadName: name,
      workloadType: "deployment",
      canonicalName: name,
      canonicalRevision: "v1",
      services: {},
    })),
  );
  return JSON.stringify({ workloads, services: [], policies: [] });
}

function podNames(node: (typeof NODES)[number]): readonly string[] {
  return Array.from({ length: PODS_PER_NODE }, (_, i) => `pod-${node}-${i}`);
}

function podIp(node: (typeof NODES)[number], index: number): string {
  return `10.78.0.${(node === "a" ? 10 : 20) + index}`;
}
