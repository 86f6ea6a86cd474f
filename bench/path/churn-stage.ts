/**
 * Two nodes of ours on the discovery of an embedded mesh, for pods, policies and a control plane that
 * change under traffic.
 */

import { once } from "node:events";
import { closeSync, openSync, renameSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { installRedirect, removeRedirect } from "../../src/embedded/redirect-rules.ts";
import type { LabNode } from "../../test/support/lab-node.ts";
import { enrolment, MeshLab } from "../../test/support/mesh-lab.ts";
import type { LabHost } from "../../test/support/netns-lab.ts";
import { waitUntil } from "../../test/support/wait-until.ts";
import { keepLogs } from "../kept-logs.ts";
import { buildLoadTool } from "../load/build.ts";
import { firstWords } from "../load/run-load.ts";
import type { PairLedger } from "./churn-ledger.ts";
import { type ChurnMesh, type ChurnPod, churnMeshText, generationOf } from "./churn-mesh.ts";
import { requireStage } from "./require-stage.ts";

export const ECHO_PORT = 8080;
const NODES = ["node-a", "node-b"] as const;
export type NodeName = (typeof NODES)[number];
/** Clients on the first node, servers on the second. */
const STABLE_PODS = 4;

/**
 * How long a change may take to reach both daemons: the control plane may be away, and the back-off of
 * daemons that call it grows to 15 s.
 */
const ARRIVAL_MS_MAX = 30_000;
/** Between two looks at what the daemons know. */
const LOOK_MS = 200;
/** A data thread hears of a change after the thread whose knowledge the dump shows. */
export const DATA_THREAD_MS = 1000;
const EXIT_MS_MAX = 10_000;

/** What `/config_dump` says, as far as it matters here. */
interface Dump {
  readonly policies: readonly { readonly name: string }[];
  readonly certificates: readonly {
    readonly identity: string;
    readonly state: string;
    readonly certChain: readonly {
      readonly serialNumber: string;
      readonly expirationTime: string;
    }[];
  }[];
}

/** A pod that was brought up and is to go. */
export interface PassingPod {
  readonly pod: ChurnPod;
  readonly host: LabHost;
}

export class ChurnStage {
  readonly lab: MeshLab;
  /** What the daemons warned of and how often; numbers in it are written as `#`. */
  readonly complaints: Map<string, number> = new Map();
  /** How long changes took to reach both daemons, milliseconds. */
  readonly arrivals: number[] = [];
  /** Serial numbers seen. */
  readonly certificates: Set<string> = new Set();
  /** The shortest time that a held certificate had left, milliseconds. */
  shortestLeftMs: number = Number.POSITIVE_INFINITY;
  nackCount = 0;
  #mesh: ChurnMesh;
  #enrolled = STABLE_PODS;

  private constructor(lab: MeshLab, mesh: ChurnMesh) {
    this.lab = lab;
    this.#mesh = mesh;
  }

  /** Ends the process when the machine lacks something. */
  static async start(): Promise<ChurnStage> {
    requireStage();
    const mesh: ChurnMesh = {
      pods: [...stablePods("client", "node-a"), ...stablePods("server", "node-b")],
      generation: 0,
      isAllowedByRule: true,
      isDeniedByPolicy: false,
    };
    const node = (name: NodeName, ip: string): MeshNode => ({
      ip,
      pods: mesh.pods.filter((pod) => pod.node === name),
      environment: { SECRET_TTL: "2m", LOG_FORMAT: "json" },
    });
    const lab = await MeshLab.start({
      nodes: { "node-a": node("node-a", "10.82.0.2"), "node-b": node("node-b", "10.82.0.3") },
      mesh: churnMeshText(mesh),
      controlIp: "10.82.0.4",
      prefixLength: 16,
      gatewayIp: "10.82.0.1",
      logFolder: keepLogs(),
    });
    const stage = new ChurnStage(lab, mesh);
    try {
      for (const name of NODES) stage.#listen(lab.node(name));
      for (const { name } of stablePods("server", "node-b")) await stage.#serve(lab.host(name));
      return stage;
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  get mesh(): ChurnMesh {
    return this.#mesh;
  }

  /**
   * Writes the mesh anew. Settles when both daemons have taken it in.
   *
   * @throws when that takes too long.
   */
  async change(part: (mesh: ChurnMesh) => Partial<ChurnMesh>): Promise<void> {
    const generation = this.#mesh.generation + 1;
    this.#mesh = { ...this.#mesh, ...part(this.#mesh), generation };
    const changedAt = performance.now();
    writeFileSync(`${this.lab.meshFile}.new`, churnMeshText(this.#mesh));
    renameSync(`${this.lab.meshFile}.new`, this.lab.meshFile);
    for (const name of NODES) {
      await this.#eventually(`${name} never learnt of change ${generation}`, async () => {
        const { policies } = await this.#dump(name);
        return generationOf(policies.map((policy) => policy.name)) >= generation;
      });
    }
    this.arrivals.push(performance.now() - changedAt);
  }

  /** Brings a pod up as a node agent and kubelet do. Settles when it may be called and may call. */
  async bringUp(pod: ChurnPod): Promise<PassingPod> {
    const host = this.lab.addHost(pod.name, pod.ip);
    await this.change(({ pods }) => ({ pods: [...pods, { ...pod, isReady: false }] }));
    await this.#serve(host);
    const netnsFd = openSync(host.path, "r");
    try {
      await installRedirect(netnsFd, { dnsCapture: false, inboundCapture: true });
      const { agent } = this.lab.node(pod.node);
      await agent.add({ ...enrolment(pod, pod.node, this.#enrolled++), uid: pod.name }, netnsFd);
    } finally {
      closeSync(netnsFd);
    }
    await this.#eventually(`${pod.name} never got a certificate`, async () => {
      const { certificates } = await this.#dump(pod.node);
      const own = certificates.find(({ identity }) => identity.endsWith(`/${pod.serviceAccount}`));
      return own?.state === "Available";
    });
    await this.change(({ pods }) => ({
      pods: pods.map((one) => (one.name === pod.name ? { ...one, isReady: true } : one)),
    }));
    await sleep(DATA_THREAD_MS);
    return { pod, host };
  }

  /** Takes it away as they do: no new connections first. */
  async takeAway({ pod, host }: PassingPod): Promise<void> {
    await this.change(({ pods }) => ({
      pods: pods.map((one) => (one.name === pod.name ? { ...one, isReady: false } : one)),
    }));
    await sleep(DATA_THREAD_MS);
    const netnsFd = openSync(host.path, "r");
    try {
      await removeRedirect(netnsFd);
      await this.lab.node(pod.node).agent.del(pod.name);
    } finally {
      closeSync(netnsFd);
    }
    this.lab.removeHost(pod.name);
    await this.change(({ pods }) => ({ pods: pods.filter((one) => one.name !== pod.name) }));
  }

  /** Settles when the next one listens. @returns milliseconds that there was none. */
  async restartControlPlane(signal: "SIGTERM" | "SIGKILL", awayMs: number): Promise<number> {
    const control = this.lab.controlPlane;
    const goneAt = performance.now();
    const ended = once(control, "exit", { signal: AbortSignal.timeout(EXIT_MS_MAX) });
    control.kill(signal);
    await ended;
    await sleep(awayMs);
    await this.lab.startControlPlane();
    return performance.now() - goneAt;
  }

  /** Looks at the certificates that both daemons hold now. */
  async lookAtCertificates(): Promise<void> {
    for (const name of NODES) {
      for (const { identity, state, certChain } of (await this.#dump(name)).certificates) {
        if (state.startsWith("Unavailable")) this.#complain(`${name}: ${identity}: ${state}`);
        const [leaf] = certChain;
        if (leaf === undefined) continue;
        this.certificates.add(leaf.serialNumber);
        const leftMs = Date.parse(leaf.expirationTime) - Date.now();
        this.shortestLeftMs = Math.min(this.shortestLeftMs, leftMs);
      }
    }
  }

  /** Notes round trips in the ledger until the time is over. @throws when the probe fails. */
  async probe(from: LabHost, ip: string, load: ProbeLoad, ledger: PairLedger): Promise<void> {
    const { kind, perSecond, durationMs } = load;
    const child = this.lab.net.spawn(
      from,
      buildLoadTool("probe"),
      ...[kind, perSecond, Math.ceil(durationMs), ip, ECHO_PORT].map(String),
    );
    const ended = once(child, "exit");
    if (child.stdout === null) throw new Error("the probe has no output");
    for await (const line of createInterface({ input: child.stdout })) {
      const [begunAt, endedAt, outcome = ""] = line.split(" ");
      ledger.note({ begunAt: Number(begunAt), endedAt: Number(endedAt), outcome });
    }
    const [status] = await ended;
    if (status !== 0) throw new Error(`the probe of ${ledger.name} ended with ${status}`);
  }

  close(): Promise<void> {
    return this.lab.close();
  }

  #complain(what: string): void {
    const key = what
      .replace(/"time":"[^"]*",?/, "")
      .replaceAll(/\d+(?:\.\d+)?/g, "#")
      .slice(0, 300);
    this.complaints.set(key, (this.complaints.get(key) ?? 0) + 1);
  }

  async #dump(node: string): Promise<Dump> {
    return JSON.parse(await this.lab.node(node).get(15000, "/config_dump"));
  }

  async #eventually(otherwise: string, condition: () => Promise<boolean>): Promise<void> {
    await waitUntil(
      async () => (await condition()) || (await sleep(LOOK_MS, false)),
      otherwise,
      ARRIVAL_MS_MAX,
    );
  }

  async #serve(host: LabHost): Promise<void> {
    const echo = buildLoadTool("echo-server");
    await firstWords(this.lab.net.spawn(host, echo, String(ECHO_PORT)));
  }

  #listen({ process: daemon }: LabNode): void {
    if (daemon.stdout === null) throw new Error("a daemon has no output");
    createInterface({ input: daemon.stdout }).on("line", (line) => {
      if (line.includes('"type":"Nack"')) this.nackCount++;
      if (/"level":"(?:error|warn)"/.test(line) && !line.includes('"scope":"access"')) {
        this.#complain(line);
      }
    });
    daemon.once("exit", (code, signal) => {
      this.#complain(`the daemon ended with ${code ?? signal}`);
    });
  }
}

export interface ProbeLoad {
  readonly kind: "new" | "kept";
  readonly perSecond: number;
  readonly durationMs: number;
}

type MeshNode = Parameters<typeof MeshLab.start>[0]["nodes"][string];

function stablePods(role: "client" | "server", node: NodeName): readonly ChurnPod[] {
  return Array.from({ length: STABLE_PODS }, (_, i) => ({
    name: `${role}-${i}`,
    ip: `10.82.${role === "client" ? 1 : 2}.${i + 1}`,
    node,
    serviceAccount: `${role}-${i}`,
    // The others are guarded against some of the clients.
    isPooled: role === "server" && i < 2,
    isReady: true,
  }));
}
