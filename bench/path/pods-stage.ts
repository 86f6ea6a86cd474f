/**
 * Two nodes of ours with many pods each, for what one connection through one pair of pods can't show:
 * neighbours, numbers, and long runs. Nothing else runs beside them.
 */
import { installRedirect } from "../../src/embedded/redirect-rules.ts";
import { enrolment, MeshLab } from "../../test/support/mesh-lab.ts";
import type { LabHost } from "../../test/support/netns-lab.ts";
import { keepLogs } from "../kept-logs.ts";
import { buildLoadTool } from "../load/build.ts";
import { firstWords } from "../load/run-load.ts";
import { meshText, podNames } from "./bench-mesh.ts";
import type { Proxy as ProxyProcess } from "./path-stage.ts";
import { requireStage } from "./require-stage.ts";

/** The client's and the server's. */
const NODES = ["a", "b"] as const;
const SERVER_NODE = "b";
type NodeName = (typeof NODES)[number];

/** Of the echo server behind every pod of the server's node. */
export const ECHO_PORT = 8080;
/** Of the sink and source of bulk data, behind the same pods. */
export const BULK_PORT = 8081;

export interface PodsStageOptions {
  /** Up to 250. */
  readonly podsPerNode: number;
  /** How many there are at the start; default all. More come with {@link PodsStage.enrol}. */
  readonly enrolledPerNode?: number;
  readonly environment?: Readonly<Record<string, string>>;
}

/** The lab with its servers; nothing outlives {@link PodsStage.close}, nor Ctrl-C. */
export class PodsStage {
  readonly lab: MeshLab;
  readonly #podsPerNode: number;
  #enrolledPerNode: number;

  private constructor(lab: MeshLab, podsPerNode: number, enrolledPerNode: number) {
    this.lab = lab;
    this.#podsPerNode = podsPerNode;
    this.#enrolledPerNode = enrolledPerNode;
  }

  /** Ends the process when the machine lacks something. */
  static async start(options: PodsStageOptions): Promise<PodsStage> {
    requireStage();
    const { podsPerNode, enrolledPerNode = podsPerNode } = options;
    const mesh = meshText(NODES, podsPerNode, podIp);
    const node = (name: NodeName, ip: string): MeshNode => ({
      ip,
      mesh,
      pods: podNames(name, enrolledPerNode).map((pod, i) => ({ name: pod, ip: podIp(name, i) })),
      ...(options.environment === undefined ? {} : { environment: options.environment }),
    });
    const lab = await MeshLab.start({
      nodes: { "node-a": node("a", "10.80.0.2"), "node-b": node("b", "10.80.0.3") },
      outsiders: { "direct-client": "10.80.0.41", "direct-server": "10.80.0.42" },
      mesh,
      controlIp: "10.80.0.4",
      prefixLength: 16,
      gatewayIp: "10.80.0.1",
      logFolder: keepLogs(),
      isIpv4Only: true,
    });
    const stage = new PodsStage(lab, podsPerNode, enrolledPerNode);
    try {
      for (let i = 0; i < enrolledPerNode; i++) await stage.#serve(stage.server(i));
      await stage.#serve(stage.directServer);
      return stage;
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  client(index: number): LabHost {
    return this.lab.host(`pod-a-${index}`);
  }

  server(index: number): LabHost {
    return this.lab.host(`pod-b-${index}`);
  }

  /** Outside the mesh: what the machine alone costs. */
  get directClient(): LabHost {
    return this.lab.host("direct-client");
  }

  get directServer(): LabHost {
    return this.lab.host("direct-server");
  }

  /** The daemons of the client's and the server's node. */
  get proxies(): readonly ProxyProcess[] {
    return (["client", "server"] as const).map((side, i) => {
      const { pid } = this.lab.node(`node-${NODES[i]}`).process;
      if (pid === undefined) throw new Error(`the ${side}'s daemon has no process`);
      return { side, pid };
    });
  }

  /** Makes more pods, until each node has so many, and hands them to the daemons. */
  async enrol(perNode: number): Promise<void> {
    await Promise.all(NODES.map((name) => this.#enrolOn(name, perNode)));
    this.#enrolledPerNode = Math.max(this.#enrolledPerNode, perNode);
  }

  close(): Promise<void> {
    return this.lab.close();
  }

  async #enrolOn(name: NodeName, count: number): Promise<void> {
    const node = this.lab.node(`node-${name}`);
    const pods = podNames(name, Math.min(count, this.#podsPerNode));
    for (const [index, pod] of pods.entries()) {
      if (index < this.#enrolledPerNode) continue;
      const one = { name: pod, ip: podIp(name, index) };
      const host = this.lab.addHost(one.name, one.ip);
      const netnsFd = node.openNetns(host);
      await installRedirect(netnsFd, { dnsCapture: false, inboundCapture: true });
      await node.agent.add(enrolment(one, `node-${name}`, index), netnsFd);
      if (name === SERVER_NODE) await this.#serve(host);
    }
  }

  async #serve(host: LabHost): Promise<void> {
    const echo = buildLoadTool("echo-server");
    await firstWords(this.lab.net.spawn(host, echo, String(ECHO_PORT)));
    const bulk = buildLoadTool("bulk");
    // As the load of `startLoad`, it goes without the processor when others want it.
    const served = this.lab.net.spawn(host, "nice", "-n", "19", bulk, "serve", String(BULK_PORT));
    await firstWords(served);
  }
}

type MeshNode = Parameters<typeof MeshLab.start>[0]["nodes"][string];

function podIp(node: NodeName, index: number): string {
  return `10.80.${node === "a" ? 1 : 2}.${index + 1}`;
}
