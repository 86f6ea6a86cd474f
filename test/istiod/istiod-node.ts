/** One node of the cluster: our daemon, our node agent, and the way to istiod. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { attach, detach, picture } from "../../src/embedded/node-agent-client.ts";
import type { LabHost, NetnsLab } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";
import { IstiodDaemon, PROGRAM } from "./istiod-daemon.ts";
import type { IstiodLab } from "./istiod-lab.ts";

export interface NodeOptions {
  readonly name: string;
  /** Its pod in `istio-system`; the token is bound to it. */
  readonly pod: string;
}

export class IstiodNode {
  readonly daemon: IstiodDaemon;
  readonly #istiod: IstiodLab;
  readonly #options: NodeOptions;
  readonly #agent: ChildProcess;
  readonly #control: string;

  private constructor(net: NetnsLab, host: LabHost, istiod: IstiodLab, options: NodeOptions) {
    this.daemon = new IstiodDaemon(net, host, istiod);
    this.#istiod = istiod;
    this.#options = options;
    this.#control = join(istiod.folder, `${options.name}-control.sock`);
    const paths = ["--uds", this.#uds, "--control", this.#control];
    this.#agent = net.spawn(host, ...PROGRAM, "node-agent", "run", ...paths);
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
    await this.daemon.ready();
    const isKnown = async () => (await picture(this.#control)).proxyCount > 0;
    await waitUntil(isKnown, `the daemon of ${this.#options.name} never spoke to its agent`);
  }

  /** @param environment wins over the lab's. */
  async spawnDaemon(environment: Readonly<Record<string, string>> = {}): Promise<void> {
    this.daemon.spawn({
      ...(await this.#istiod.daemonEnvironment(this.#options.pod)),
      INPOD_UDS: this.#uds,
      ...environment,
    });
  }

  /** The agent hands all pods to the new one; settles when it serves them. */
  async restartDaemon(environment: Readonly<Record<string, string>> = {}): Promise<void> {
    const served = (): Promise<number> => this.daemon.metric("workload_manager_active_proxy_count");
    const count = await served();
    await this.daemon.stop();
    await this.startDaemon(environment);
    await waitUntil(async () => (await served()) === count, "a pod is not served");
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
    this.daemon.close();
  }

  get #uds(): string {
    return join(this.#istiod.folder, `${this.#options.name}.sock`);
  }
}
