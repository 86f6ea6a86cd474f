/**
 * Two nodes with the built daemon, pods with istio-cni's rules, the embedded control plane and hosts
 * outside the mesh, all in real namespaces: the stage for whole-path tests and benches.
 */

import type { ChildProcess } from "node:child_process";
import { closeSync, mkdtempSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { installRedirect } from "../../src/embedded/redirect-rules.ts";
import type { RulesChoice } from "../../src/embedded/rules-backend.ts";
import { ZdsServer } from "../../src/embedded/zds-server.ts";
import { native } from "../../src/net/native.ts";
import { type Clock, systemClock } from "../../src/runtime/clock.ts";
import { LabNode } from "./lab-node.ts";
import { type LabHost, NetnsLab, type NetnsLabOptions } from "./netns-lab.ts";
import { ProcessOutput } from "./process-output.ts";
import { silentLogger } from "./silent-logger.ts";
import { waitUntil } from "./wait-until.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const OUR_COMMAND = [process.execPath, join(ROOT, "dist/main.js")];
/** Runs a command that sees the file `$0` as the machine's. */
const WITH_RESOLV_CONF = 'mount --bind "$0" /etc/resolv.conf; exec "$@"';
/** What was said last is under way for so long, at most, on a quiet machine. */
const LAST_WORDS_MS = 500;
/** Of daemons that share a namespace with their application. */
const PROXY_GROUP = 1337;

/** For agents that give their proxies some seconds, in a process that is often kept from listening. */
export const patientClock: Clock = {
  ...systemClock,
  after: (delayMs, callback, keepAlive) => systemClock.after(10 * delayMs, callback, keepAlive),
};

export interface LabPod {
  readonly name: string;
  readonly ip: string;
  /** In a network of 64 bits. */
  readonly ipv6?: string;
  /** Default: the pod's name. */
  readonly serviceAccount?: string;
  /** False: the agent never hands it to a proxy. */
  readonly enrolled?: boolean;
  /** Sends its queries to the proxy, whose `/etc/resolv.conf` says this when the pod starts. */
  readonly resolvConf?: string;
  /** Shell lines that are run in its namespace before it gets its redirect rules. */
  readonly prepare?: string;
  /** What installs these. Default: auto. */
  readonly rules?: RulesChoice;
}

export interface LabNodeOptions {
  readonly ip: string;
  /** The text of its LOCAL_XDS_PATH; default: it asks the control plane. */
  readonly mesh?: string;
  readonly pods: readonly LabPod[];
  readonly environment?: Readonly<Record<string, string>>;
  /**
   * Shell words that start another daemon, which takes the same environment; assignments may come
   * first. Default: ours.
   */
  readonly command?: string;
}

export interface MeshLabOptions extends NetnsLabOptions {
  readonly nodes: Readonly<Record<string, LabNodeOptions>>;
  /** Hosts outside the mesh: name → IPv4 address. */
  readonly outsiders?: Readonly<Record<string, string>>;
  /** What the control plane serves, and signs for. */
  readonly mesh: string;
  /** Address of the control host that runs it. */
  readonly controlIp: string;
  readonly prefixLength: number;
  /** A router towards nowhere: 10.98.0.0/16 never answers, 10.99.0.0/16 is unreachable. */
  readonly gatewayIp: string;
  /** Where what daemons and control plane say goes, a file each. Default: memory. */
  readonly logFolder?: string;
}

type StartDaemon = (host: LabHost, more: Readonly<Record<string, string>>) => LabNode;

export class MeshLab {
  readonly net: NetnsLab;
  readonly nodes: Map<string, LabNode> = new Map();
  /** Those that have a successor. */
  readonly #formerNodes: LabNode[] = [];
  /** Starts another daemon of a node on a host, with the node's agent. */
  readonly #daemons = new Map<string, StartDaemon>();
  /** Pods, outsiders, `control`, `gateway` and the nodes' own hosts. */
  readonly hosts: Map<string, LabHost> = new Map();
  readonly folder: string = mkdtempSync(join(tmpdir(), "ztunnel-lab-"));
  /** Followed by the control plane. */
  readonly meshFile: string = join(this.folder, "mesh.yaml");
  readonly #options: MeshLabOptions;
  #control: ChildProcess | undefined;
  readonly #controlOutput: ProcessOutput;

  private constructor(options: MeshLabOptions) {
    this.#options = options;
    this.net = new NetnsLab(options);
    this.#controlOutput = this.#outputOf("control");
    // Before the handlers of the namespaces, which end this process.
    process.prependOnceListener("SIGINT", this.#removeFolder);
    process.prependOnceListener("SIGTERM", this.#removeFolder);
  }

  /** Settles when every daemon is ready. */
  static async start(options: MeshLabOptions): Promise<MeshLab> {
    const lab = new MeshLab(options);
    try {
      await lab.#start();
      return lab;
    } catch (error) {
      for (const [name, node] of lab.nodes) {
        process.stderr.write(`--- ${name}\n${node.lines.join("\n")}\n`);
      }
      await lab.close();
      throw error;
    }
  }

  node(name: string): LabNode {
    return required(this.nodes, name);
  }

  host(name: string): LabHost {
    return required(this.hosts, name);
  }

  /**
   * Starts a second daemon of the node beside the first, in a pod of its own as a DaemonSet with
   * maxSurge does, and becomes the node's. Settles when it is ready.
   *
   * @param ip of its pod.
   * @param environment that the first does not have.
   */
  async startSuccessor(
    name: string,
    ip: string,
    environment?: Readonly<Record<string, string>>,
  ): Promise<LabNode> {
    const host = this.addHost(`${name}-${this.#formerNodes.length}`, ip);
    const successor = this.#succeed(name, host, environment);
    await successor.ready();
    return successor;
  }

  /** Starts a second daemon of the node where the first is; it waits for the first one's ports. */
  startBeside(name: string): LabNode {
    return this.#succeed(name, this.node(name).host, { WAIT_FOR_OPERATOR_PORTS: "true" });
  }

  #succeed(
    name: string,
    host: LabHost,
    environment: Readonly<Record<string, string>> = {},
  ): LabNode {
    const start = required(this.#daemons, name);
    this.#formerNodes.push(this.node(name));
    const successor = start(host, environment);
    this.nodes.set(name, successor);
    return successor;
  }

  /** A host on the bridge, removed with the lab. */
  addHost(name: string, ip: string, ipv6?: string): LabHost {
    const host = this.net.addHost(name, {
      ipv4: `${ip}/${this.#options.prefixLength}`,
      ...(ipv6 === undefined ? {} : { ipv6: `${ipv6}/64` }),
      routes: [`default via ${this.#options.gatewayIp}`],
    });
    this.hosts.set(name, host);
    return host;
  }

  /** Ends what runs there too. */
  removeHost(name: string): void {
    this.net.removeHost(this.host(name));
    this.hosts.delete(name);
  }

  /**
   * A pod with a daemon of its own, inside, behind redirect rules. Those leave what the daemon says to
   * the control plane alone, which has no mark. Settles when it was started, not ready yet.
   *
   * @param options.unprivileged shell commands that install other rules; the daemon may do nothing that
   *   needs a capability then.
   */
  async addDedicated(
    pod: LabPod,
    options: Pick<LabNodeOptions, "mesh" | "environment"> & { readonly unprivileged?: string },
  ): Promise<LabNode> {
    const { name, serviceAccount = name } = pod;
    const { unprivileged } = options;
    const host = this.addHost(name, pod.ip, pod.ipv6);
    const environment = {
      PROXY_MODE: "dedicated",
      PROXY_WORKLOAD_INFO: `default/${name}/${serviceAccount}`,
      ...(unprivileged === undefined ? { PACKET_MARK: "1337" } : {}),
      ...this.#meshSource(name, options.mesh),
      CA_ADDRESS: `https://${this.#options.controlIp}:15012`,
      CA_ROOT_CA: this.#rootFile,
      ...options.environment,
    };
    // Rules first: whatever is connected by then stays as it is.
    if (unprivileged !== undefined) this.net.exec(host, "sh", "-ec", unprivileged);
    else await this.#redirectBeside(host);
    const spawn = (): ChildProcess =>
      this.#spawn(host, environment, [
        ...["setpriv", "--regid", String(PROXY_GROUP), "--clear-groups"],
        ...(unprivileged === undefined ? [] : ["--bounding-set=-all", "--inh-caps=-all"]),
        ...[...OUR_COMMAND, "proxy", "ztunnel"],
      ]);
    const node = new LabNode(host, undefined, spawn, this.#outputOf(name));
    this.nodes.set(name, node);
    return node;
  }

  async #redirectBeside(host: LabHost): Promise<void> {
    const netnsFd = openSync(host.path, "r");
    try {
      await installRedirect(netnsFd, { dnsCapture: false, inboundCapture: true });
    } finally {
      closeSync(netnsFd);
    }
    const ownTraffic = ["-m", "owner", "--gid-owner", String(PROXY_GROUP), "-j", "ACCEPT"];
    for (const iptables of host.ipv6 === undefined ? ["iptables"] : ["iptables", "ip6tables"]) {
      this.net.exec(host, iptables, "-t", "nat", "-I", "OUTPUT", "-p", "tcp", ...ownTraffic);
    }
  }

  /** Settles when it listens. It ends with the lab, or when it is killed. */
  async startControlPlane(environment: Readonly<Record<string, string>> = {}): Promise<void> {
    const tokens = Object.keys(this.#options.nodes).flatMap((node) => {
      writeFileSync(this.#tokenFile(node), `token of ${node}`);
      return ["--node-token", `${node}=${this.#tokenFile(node)}`];
    });
    const control = this.#spawn(this.host("control"), environment, [
      ...OUR_COMMAND,
      "embedded-mesh",
      ...["--file", this.meshFile, "--listen", `${this.#options.controlIp}:15012`],
      ...["--state-dir", join(this.folder, "authority"), ...tokens],
    ]);
    this.#control = control;
    this.#controlOutput.follow(control);
    await new Promise<void>((resolve, reject) => {
      control.stdout?.once("data", () => resolve());
      control.once("exit", (code) => reject(new Error(`embedded-mesh ended with ${code}`)));
    });
  }

  /** The control plane reads the file now and then, and never half of this. */
  changeMesh(mesh: string): void {
    writeFileSync(`${this.meshFile}.new`, mesh);
    renameSync(`${this.meshFile}.new`, this.meshFile);
  }

  /** The one that was started last. */
  get controlPlane(): ChildProcess {
    if (this.#control === undefined) throw new Error("no control plane was started");
    return this.#control;
  }

  /** What control planes have said so far. */
  get controlLines(): string[] {
    return this.#controlOutput.lines;
  }

  /** Ends the daemons, then removes everything. Idempotent. */
  async close(): Promise<void> {
    if (this.#options.logFolder !== undefined) await sleep(LAST_WORDS_MS);
    for (const node of [...this.nodes.values(), ...this.#formerNodes]) node.close();
    this.#controlOutput.close();
    this.net.close();
    process.off("SIGINT", this.#removeFolder);
    process.off("SIGTERM", this.#removeFolder);
    this.#removeFolder();
  }

  readonly #removeFolder = (): void =>
    // Daemons that were killed just now may still have been writing.
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10 });

  async #start(): Promise<void> {
    const { nodes, outsiders, controlIp, mesh } = this.#options;
    this.#addGateway();
    this.addHost("control", controlIp);
    for (const [name, ip] of Object.entries(outsiders ?? {})) this.addHost(name, ip);
    this.changeMesh(mesh);
    await this.startControlPlane();
    await Promise.all(Object.entries(nodes).map(([name, node]) => this.#startNode(name, node)));
  }

  #meshSource(name: string, mesh: string | undefined): Readonly<Record<string, string>> {
    if (mesh === undefined) {
      const address = `https://${this.#options.controlIp}:15012`;
      return { XDS_ADDRESS: address, XDS_ROOT_CA: this.#rootFile };
    }
    const file = join(this.folder, `${name}.yaml`);
    writeFileSync(file, mesh);
    return { LOCAL_XDS_PATH: file };
  }

  get #rootFile(): string {
    return join(this.folder, "authority", "root-cert.pem");
  }

  #tokenFile(node: string): string {
    return join(this.folder, `${node}.token`);
  }

  async #startNode(name: string, options: LabNodeOptions): Promise<void> {
    const host = this.addHost(name, options.ip);
    const uds = join(this.folder, `${name}.sock`);
    const agent = new ZdsServer({ native, clock: patientClock, log: silentLogger }, { path: uds });
    const environment = {
      NODE_NAME: name,
      INPOD_UDS: uds,
      ...this.#meshSource(name, options.mesh),
      CA_ADDRESS: `https://${this.#options.controlIp}:15012`,
      CA_ROOT_CA: this.#rootFile,
      AUTH_TOKEN: this.#tokenFile(name),
      ...options.environment,
    };
    const resolvConf = join(this.folder, `${name}.resolv.conf`);
    const command = [
      ...(options.pods.some((pod) => pod.resolvConf !== undefined)
        ? ["unshare", "--mount", "sh", "-ec", WITH_RESOLV_CONF, resolvConf]
        : []),
      ...(options.command === undefined
        ? [...OUR_COMMAND, "proxy", "ztunnel"]
        : ["sh", "-c", `exec env ${options.command}`]),
    ];
    writeFileSync(resolvConf, "");
    const start: StartDaemon = (where, more) => {
      const spawn = (): ChildProcess => this.#spawn(where, { ...environment, ...more }, command);
      return new LabNode(where, agent, spawn, this.#outputOf(name));
    };
    this.#daemons.set(name, start);
    const node = start(host, {});
    this.nodes.set(name, node);
    await waitUntil(() => agent.proxyCount > 0, `${name} never spoke to its agent`);
    for (const [index, pod] of options.pods.entries()) {
      const podHost = this.addHost(pod.name, pod.ip, pod.ipv6);
      if (pod.prepare !== undefined) this.net.exec(podHost, "sh", "-ec", pod.prepare);
      if (pod.enrolled === false) continue;
      const netnsFd = node.openNetns(podHost);
      const dnsCapture = pod.resolvConf !== undefined;
      if (dnsCapture) writeFileSync(resolvConf, pod.resolvConf);
      await installRedirect(netnsFd, { dnsCapture, inboundCapture: true }, pod.rules);
      await agent.add(enrolment(pod, name, index), netnsFd);
    }
    await node.ready();
  }

  #outputOf(name: string): ProcessOutput {
    const { logFolder } = this.#options;
    return new ProcessOutput(logFolder === undefined ? undefined : join(logFolder, `${name}.log`));
  }

  #addGateway(): void {
    const { gatewayIp, prefixLength } = this.#options;
    const gateway = this.net.addHost("gateway", {
      ipv4: `${gatewayIp}/${prefixLength}`,
      routes: ["blackhole 10.98.0.0/16", "unreachable 10.99.0.0/16"],
    });
    this.hosts.set("gateway", gateway);
    this.net.exec(gateway, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward");
  }

  #spawn(
    host: LabHost,
    environment: Readonly<Record<string, string>>,
    command: readonly string[],
  ): ChildProcess {
    const variables = Object.entries(environment).map(([key, value]) => `${key}=${value}`);
    return this.net.spawn(host, "env", ...variables, ...command);
  }
}

/** The uid that the lab's agent gives a pod: the n-th of its node. */
export function enrolment(
  pod: LabPod,
  node: string,
  index: number,
): { uid: string; name: string; namespace: string; serviceAccount: string } {
  return {
    uid: `${node}-${index}`,
    name: pod.name,
    namespace: "default",
    serviceAccount: pod.serviceAccount ?? pod.name,
  };
}

function required<Value>(map: ReadonlyMap<string, Value>, name: string): Value {
  const value = map.get(name);
  if (value === undefined) throw new Error(`the lab has no ${name}`);
  return value;
}
