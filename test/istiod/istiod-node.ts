/** One node of the cluster: our daemon, our node agent, and the way to istiod. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join, resolve } from "node:path";
import { attach, detach, picture } from "../../src/embedded/node-agent-client.ts";
import { httpFrom } from "../support/http-from.ts";
import { type LabServer, listenOn } from "../support/lab-application.ts";
import { waitUntil } from "../support/mesh-lab.ts";
import type { LabHost, NetnsLab } from "../support/netns-lab.ts";
import { ISTIOD_PORT, type IstiodLab } from "./istiod-lab.ts";

const NODE = process.execPath;
const PROGRAM = resolve(import.meta.dirname, "../../dist/main.js");
const READY_MS_MAX = 60_000;

export interface NodeOptions {
  readonly name: string;
  /** Its pod in `istio-system`; the token is bound to it. */
  readonly pod: string;
  /** Added to what the lab says. */
  readonly environment?: Readonly<Record<string, string>>;
}

export class IstiodNode {
  readonly host: LabHost;
  readonly #net: NetnsLab;
  readonly #istiod: IstiodLab;
  readonly #options: NodeOptions;
  readonly #agent: ChildProcess;
  readonly #control: string;
  readonly #relay: LabServer;
  #daemon: ChildProcess | undefined;
  #output = "";

  private constructor(net: NetnsLab, host: LabHost, istiod: IstiodLab, options: NodeOptions) {
    this.#net = net;
    this.host = host;
    this.#istiod = istiod;
    this.#options = options;
    this.#control = join(istiod.folder, `${options.name}-control.sock`);
    this.#relay = relayToIstiod(host, istiod);
    const paths = ["--uds", this.#uds, "--control", this.#control];
    this.#agent = net.spawn(host, NODE, PROGRAM, "node-agent", "run", ...paths);
  }

  /** Settles when the agent listens; the daemon is started by {@link startDaemon}. */
  static async start(
    net: NetnsLab,
    host: LabHost,
    istiod: IstiodLab,
    options: NodeOptions,
  ): Promise<IstiodNode> {
    const node = new IstiodNode(net, host, istiod, options);
    await once(node.#agent.stdout ?? node.#agent, "data");
    return node;
  }

  /** Settles when the daemon is ready and the agent knows it. */
  async startDaemon(environment: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.spawnDaemon(environment);
    const { name } = this.#options;
    await waitUntil(() => this.isReady(), `the daemon of ${name} never became ready`, READY_MS_MAX);
    const isKnown = async () => (await picture(this.#control)).proxyCount > 0;
    await waitUntil(isKnown, `the daemon of ${name} never spoke to its agent`);
  }

  /** @param environment wins over the node's own. */
  async spawnDaemon(environment: Readonly<Record<string, string>> = {}): Promise<void> {
    const { pod, environment: own } = this.#options;
    const variables = {
      ...(await this.#istiod.daemonEnvironment(pod)),
      INPOD_UDS: this.#uds,
      LOG_FORMAT: "json",
      ZTUNNEL_WORKER_THREADS: "1",
      ...own,
      ...environment,
    };
    const words = Object.entries(variables).map(([key, value]) => `${key}=${value}`);
    const daemon = this.#net.spawn(this.host, "env", ...words, NODE, PROGRAM);
    daemon.stdout?.on("data", (chunk: Buffer) => {
      this.#output += chunk.toString();
    });
    this.#daemon = daemon;
  }

  /** Orderly. Settles when it has ended. */
  async stopDaemon(): Promise<void> {
    const daemon = this.#daemon;
    if (daemon === undefined || daemon.exitCode !== null) return;
    const exited = once(daemon, "exit");
    daemon.kill("SIGTERM");
    await exited;
  }

  /** The agent hands all pods to the new one; settles when it serves them. */
  async restartDaemon(environment: Readonly<Record<string, string>> = {}): Promise<void> {
    const served = "workload_manager_active_proxy_count";
    const count = await this.metric(served);
    await this.stopDaemon();
    await this.startDaemon(environment);
    await waitUntil(async () => (await this.metric(served)) === count, "a pod is not served");
  }

  isReady(): Promise<boolean> {
    return httpFrom(this.host, "GET", 15021, "/healthz/ready").then(
      () => true,
      () => false,
    );
  }

  /** The answer of `/config_dump`. */
  async configDump(): Promise<unknown> {
    return JSON.parse((await httpFrom(this.host, "GET", 15000, "/config_dump")).toString());
  }

  /** The sum of a family's samples whose labels contain the text. */
  async metric(family: string, labels = ""): Promise<number> {
    const metrics = (await httpFrom(this.host, "GET", 15020, "/metrics")).toString();
    return metrics
      .split("\n")
      .filter((line) => line.startsWith(`${family}{`) || line.startsWith(`${family} `))
      .filter((line) => line.includes(labels))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  }

  /** Every line of every daemon here so far. */
  get lines(): readonly string[] {
    return this.#output.split("\n").slice(0, -1);
  }

  /** Puts a host into the mesh, as the CNI plugin does when a pod starts. */
  async attach(
    host: LabHost,
    pod: { readonly name: string; readonly serviceAccount: string },
  ): Promise<void> {
    await attach(this.#control, {
      netns: host.path,
      pid: undefined,
      workload: `shop/${pod.name}`,
      serviceAccount: pod.serviceAccount,
      uid: undefined,
      dnsCapture: false,
    });
  }

  async detach(pod: string): Promise<void> {
    await detach(this.#control, `shop/${pod}`);
  }

  /** Processes end with the network. */
  close(): void {
    this.#relay.close();
  }

  get #uds(): string {
    return join(this.#istiod.folder, `${this.#options.name}.sock`);
  }
}

/** istiod's port on the node's own loopback; refuses with a hang-up while istiod is away. */
function relayToIstiod(host: LabHost, istiod: IstiodLab): LabServer {
  return listenOn(host, ISTIOD_PORT, (socket) => {
    istiod.connect().then(
      (upstream) => {
        socket.pipe(upstream).pipe(socket);
        socket.on("close", () => upstream.destroy());
        upstream.on("close", () => socket.destroy());
      },
      () => socket.destroy(),
    );
  });
}
