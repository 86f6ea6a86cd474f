/**
 * The recorded cluster for real: its Kubernetes objects in a real control plane, its pods as network
 * namespaces with their addresses, one daemon and agent a node.
 */
import { appendFileSync } from "node:fs";
import type { LabServer } from "../support/lab-application.ts";
import { type LabHost, NetnsLab, requireNetns } from "../support/netns-lab.ts";
import { outcome, serveName, type Way } from "./calls.ts";
import { IstiodLab } from "./istiod-lab.ts";
import { IstiodNode } from "./istiod-node.ts";

/** Everything up to the policies; PeerAuthentications and changes are the cases' own. */
const OBJECTS = [
  "00-base",
  "01-pods",
  "02-services",
  "03-endpointslices",
  "04-serviceentries",
  "04b-serviceentry-same-host",
  "05-workloadentries",
  "06-authorization",
];

export interface StagePod {
  /** The Kubernetes object's. */
  readonly name: string;
  readonly ip: string;
  readonly serviceAccount: string;
  readonly node: "node1" | "node2";
  /** Where its application answers with the pod's key in {@link PODS}. */
  readonly ports: readonly number[];
}

export type PodKey = "frontend" | "catalog1" | "db0" | "dual" | "catalog2" | "db1" | "report";

/** Pods of namespace shop. */
export const PODS: Readonly<Record<PodKey, StagePod>> = {
  frontend: {
    name: "frontend-6f7d8c9b5d-aaaaa",
    ip: "10.244.1.10",
    serviceAccount: "frontend",
    node: "node1",
    ports: [8080, 9999],
  },
  catalog1: {
    name: "catalog-5c4b7d6f8-bbbbb",
    ip: "10.244.1.11",
    serviceAccount: "catalog",
    node: "node1",
    ports: [9080, 9090, 9091],
  },
  db0: {
    name: "db-0",
    ip: "10.244.1.20",
    serviceAccount: "db",
    node: "node1",
    ports: [5432, 6000, 22],
  },
  dual: {
    name: "dual-0",
    ip: "10.244.1.40",
    serviceAccount: "default",
    node: "node1",
    ports: [8080],
  },
  catalog2: {
    name: "catalog-7d9f5b6c4-ccccc",
    ip: "10.244.2.11",
    serviceAccount: "catalog",
    node: "node2",
    ports: [9080, 9081],
  },
  db1: {
    name: "db-1",
    ip: "10.244.2.20",
    serviceAccount: "db",
    node: "node2",
    ports: [5432, 6000],
  },
  report: {
    name: "report-28600000-ddddd",
    ip: "10.244.2.30",
    serviceAccount: "default",
    node: "node2",
    ports: [8080],
  },
};

/** In namespace plain, outside the mesh. */
export const LEGACY: { readonly ip: string; readonly port: number } = {
  ip: "10.244.2.70",
  port: 8080,
};

/** An external service of which the mesh knows the endpoints by host name only; `legacy` plays both. */
export const EXTERNAL = {
  vip: "240.1.0.1",
  names: ["db-a.example.net", "db-b.example.net"],
  ports: [15432, 5432],
} as const;

const NODES = {
  node1: { ip: "10.244.1.2", pod: "ztunnel-node1" },
  node2: { ip: "10.244.2.2", pod: "ztunnel-node2" },
} as const;

export class Stage {
  readonly net: NetnsLab;
  readonly istiod: IstiodLab;
  readonly #nodes = new Map<string, IstiodNode>();
  readonly #hosts = new Map<string, LabHost>();
  readonly #applications: LabServer[] = [];

  private constructor() {
    this.net = new NetnsLab();
    this.istiod = new IstiodLab(this.addHost("istiod", "10.244.0.3"));
  }

  /** Settles when both daemons serve their pods. @throws when something is missing for it. */
  static async start(): Promise<Stage> {
    const obstacle = requireNetns("iptables", "python3", "openssl", "unshare");
    if (obstacle !== false) throw new Error(obstacle);
    const stage = new Stage();
    try {
      await stage.#start();
      return stage;
    } catch (error) {
      for (const { daemon } of stage.#nodes.values()) {
        process.stderr.write(`${daemon.lines.join("\n")}\n`);
      }
      stage.close();
      throw error;
    }
  }

  node(name: keyof typeof NODES): IstiodNode {
    return required(this.#nodes, name);
  }

  /** Of a pod, or `legacy`. */
  host(name: string): LabHost {
    return required(this.#hosts, name);
  }

  way(from: string, ip: string, port: number): Way {
    return { from: this.host(from), ip, port };
  }

  /** One new connection of a host. @returns who answered, or how it ended. */
  outcome(from: string, ip: string, port: number): Promise<string> {
    return outcome(this.host(from), ip, port);
  }

  addHost(name: string, ip: string): LabHost {
    const host = this.net.addHost(name, {
      ipv4: `${ip}/16`,
      // Services have addresses outside of it, and redirection comes behind routing.
      routes: ["default via 10.244.0.1"],
    });
    this.#hosts.set(name, host);
    return host;
  }

  /** A pod that runs: its network, its application, its enrolment. */
  async addPod(key: string, pod: StagePod): Promise<void> {
    const host = this.addHost(key, pod.ip);
    this.serve(key, pod.ports);
    await this.node(pod.node).attach(host, pod);
  }

  /** A pod that ends: out of the mesh, out of the network. */
  async removePod(key: string, pod: StagePod): Promise<void> {
    await this.node(pod.node).detach(pod.name);
    this.net.exec(this.host(key), "ip", "link", "set", "eth0", "down");
  }

  serve(key: string, ports: readonly number[]): void {
    for (const port of ports) {
      this.#applications.push(serveName(this.host(key), port, key));
    }
  }

  close(): void {
    for (const application of this.#applications) application.close();
    for (const node of this.#nodes.values()) node.close();
    // First those who would keep istiod from ending in peace.
    this.net.close();
    this.istiod.close();
  }

  async #start(): Promise<void> {
    await this.istiod.start({ environment: ["LOG=default:info,serverca:debug"] });
    await this.istiod.apply(...OBJECTS);
    for (const [name, { ip, pod }] of Object.entries(NODES)) {
      const host = this.addHost(name, ip);
      this.#nodes.set(name, await IstiodNode.start(this.net, host, this.istiod, { name, pod }));
    }
    this.addHost("legacy", LEGACY.ip);
    appendFileSync(this.istiod.hostsFile, `${LEGACY.ip} ${EXTERNAL.names.join(" ")}\n`);
    this.serve("legacy", [LEGACY.port, ...EXTERNAL.ports]);
    await Promise.all([...this.#nodes.values()].map((node) => node.startDaemon()));
    for (const [key, pod] of Object.entries(PODS)) await this.addPod(key, pod);
  }
}

function required<Value>(map: ReadonlyMap<string, Value>, name: string): Value {
  const value = map.get(name);
  if (value === undefined) throw new Error(`the stage has no ${name}`);
  return value;
}
