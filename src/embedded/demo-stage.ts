/**
 * The demo itself, inside namespaces of its own: builds two nodes, starts our daemons on them, puts
 * the pods into the mesh, lets them talk, and tells what was seen from every side.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import type { Server } from "node:net";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { aborted } from "../runtime/clock.ts";
import { errorText } from "../runtime/error-text.ts";
import { DemoDaemon } from "./demo-daemon.ts";
import {
  buildDemoNetwork,
  type DemoNetwork,
  type DemoPlace,
  type DemoPod,
  demoMeshFile,
  type NodeName,
  POD_NAMESPACE,
} from "./demo-network.ts";
import { formatDemoReport, type TalkOutcome } from "./demo-report.ts";
import { fetchFrom, sendBulk, serveHello, serveStorage } from "./demo-traffic.ts";
import { attach, picture } from "./node-agent-client.ts";
import { WireCapture } from "./wire-capture.ts";

/** In the stage's own /run, a tmpfs. */
const FOLDER = "/run/ztunnel-demo";
const MESH_FILE = `${FOLDER}/mesh.yaml`;
const ROOT_FILE = `${FOLDER}/control/root-cert.pem`;
const PROMETHEUS_FILE = `${FOLDER}/prometheus.yml`;
const CONTROL_PORT = 15012;
const READINESS_PORT = 15021;
const STATS_PORT = 15020;
const HELLO_PORT = 8080;
const STORAGE_PORT = 9000;
const BULK_BYTES = 256 * 1024 * 1024;

/** The slowest step is the first start of six Node processes on a busy machine. */
const STEP_MS_MAX = 30_000;
const POLL_MS = 50;

export interface DemoStageOptions {
  readonly keep: boolean;
  readonly signal: AbortSignal;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Sets `process.exitCode` to 1 when something was not as it should be, or ended before it was seen. */
export async function runDemoStage(options: DemoStageOptions): Promise<void> {
  const stage = new Stage(options);
  try {
    await Promise.race([stage.play(), aborted(options.signal)]);
    if (!stage.hasReported) process.exitCode = 1;
  } finally {
    await stage.close();
  }
}

class Stage {
  readonly #options: DemoStageOptions;
  /** Agents first, so that they remove their rules while the pods are there. */
  readonly #daemons: DemoDaemon[] = [];
  readonly #servers: Server[] = [];
  #hasReported = false;

  constructor(options: DemoStageOptions) {
    this.#options = options;
  }

  get hasReported(): boolean {
    return this.#hasReported;
  }

  async play(): Promise<void> {
    mkdirSync(FOLDER, { recursive: true });
    say("building two nodes and four pods");
    const network = await buildDemoNetwork();
    writeFileSync(MESH_FILE, demoMeshFile(network));
    say("starting a control plane, two proxies and two node agents");
    const proxies = await this.#startDaemons(network);
    say("putting the pods into the mesh");
    await this.#attachPods(network);
    const { server, storage } = network.pods;
    this.#servers.push(
      serveHello(server.netns, HELLO_PORT),
      serveStorage(storage.netns, STORAGE_PORT),
    );
    say("letting the pods talk\n");
    const outcome = await this.#talk(network, proxies);
    const report = formatDemoReport(outcome);
    process.stdout.write(report.text);
    this.#hasReported = true;
    if (report.mistakes.length > 0) process.exitCode = 1;
    if (!this.#options.keep) return;
    writeFileSync(PROMETHEUS_FILE, prometheusFile(network));
    process.stdout.write(keepText(network));
    await aborted(this.#options.signal);
  }

  /** Ends what runs; the namespaces end with the process. */
  async close(): Promise<void> {
    for (const server of this.#servers) server.close();
    await Promise.all(this.#daemons.map((daemon) => daemon.stop()));
  }

  async #startDaemons(network: DemoNetwork): Promise<Record<NodeName, DemoDaemon>> {
    const { nodes } = network;
    const control = `${nodes["node-a"].ip}:${CONTROL_PORT}`;
    const tokens = Object.keys(nodes).flatMap((name) => {
      const file = tokenFile(name as NodeName);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, randomBytes(32).toString("base64url"), { mode: 0o600 });
      return ["--node-token", `${name}=${file}`];
    });
    const mesh = this.#start("embedded-mesh", nodes["node-a"], [
      ...["embedded-mesh", "--file", MESH_FILE, "--listen", control, ...tokens],
      ...["--state-dir", `${FOLDER}/control`],
    ]);
    await this.#until("the control plane", () => mesh.lines.length > 0);
    const proxies: Partial<Record<NodeName, DemoDaemon>> = {};
    for (const node of Object.values(nodes) as (DemoPlace & { name: NodeName })[]) {
      this.#start(`node agent of ${node.name}`, node, [
        ...["node-agent", "run", "--uds", zdsPath(node.name), "--control", controlPath(node.name)],
      ]);
      proxies[node.name] = this.#start(`proxy of ${node.name}`, node, ["proxy"], {
        NODE_NAME: node.name,
        INSTANCE_IP: node.ip,
        INPOD_UDS: zdsPath(node.name),
        XDS_ADDRESS: `https://${control}`,
        XDS_ROOT_CA: ROOT_FILE,
        CA_ADDRESS: `https://${control}`,
        CA_ROOT_CA: ROOT_FILE,
        AUTH_TOKEN: tokenFile(node.name),
        CLUSTER_ID: "Kubernetes",
        // Calls are to addresses, and the machine may know no nameserver.
        ISTIO_META_DNS_CAPTURE: "false",
      });
    }
    for (const node of Object.values(nodes)) {
      await this.#until(`the proxy of ${node.name}`, async () => {
        const to = { ip: node.ip, port: READINESS_PORT, path: "/healthz/ready" };
        return (await fetchFrom(node.netns, to)).status === 200;
      });
    }
    return proxies as Record<NodeName, DemoDaemon>;
  }

  async #attachPods(network: DemoNetwork): Promise<void> {
    for (const pod of Object.values(network.pods)) {
      await this.#until(`the node agent of ${pod.node}`, async () => {
        return (await picture(controlPath(pod.node))).proxyCount > 0;
      });
      await attach(controlPath(pod.node), {
        netns: pod.name,
        pid: undefined,
        workload: `${POD_NAMESPACE}/${pod.name}`,
        serviceAccount: pod.name,
        uid: undefined,
        dnsCapture: false,
      });
    }
  }

  async #talk(
    { pods, nodes, wire }: DemoNetwork,
    proxies: Record<NodeName, DemoDaemon>,
  ): Promise<TalkOutcome> {
    const marker = `swordfish-${randomBytes(6).toString("hex")}`;
    const before = await this.#metrics(nodes);
    const insidePod = new WireCapture(pods.client.netns, marker);
    const betweenNodes = new WireCapture(wire, marker);
    const allowed = await this.#hello(pods.client, pods.server, marker);
    const denied = await this.#hello(pods.intruder, pods.server, marker);
    insidePod.close();
    betweenNodes.close();
    const startedAt = performance.now();
    const bulkTo = { ip: pods.storage.ip, port: STORAGE_PORT };
    const bulkBytes = await sendBulk(pods.client.netns, bulkTo, BULK_BYTES);
    const bulkMs = performance.now() - startedAt;
    const access = {
      "node-a": await this.#accessLog(proxies["node-a"], 3),
      "node-b": await this.#accessLog(proxies["node-b"], 3),
    };
    return {
      clientIp: pods.client.ip,
      target: `http://${pods.server.ip}:${HELLO_PORT}/`,
      bulkTarget: `${bulkTo.ip}:${bulkTo.port}`,
      marker,
      allowed,
      denied,
      bulk: { wantedBytes: BULK_BYTES, receivedBytes: bulkBytes, durationMs: bulkMs },
      wire: { flows: betweenNodes.flows, markerCount: betweenNodes.markerCount },
      markerInsidePodCount: insidePod.markerCount,
      access,
      metrics: { before, after: await this.#metrics(nodes) },
    };
  }

  /** @returns the answer's text or what the socket said. */
  async #hello(
    from: DemoPod,
    to: DemoPod,
    marker: string,
  ): Promise<{ readonly answer: string } | { readonly error: string }> {
    try {
      const target = { ip: to.ip, port: HELLO_PORT, path: "/" };
      const { status, body } = await fetchFrom(from.netns, target, marker);
      return { answer: `${status} ${body.trim()}` };
    } catch (error) {
      return { error: errorText(error) };
    }
  }

  async #metrics(nodes: DemoNetwork["nodes"]): Promise<Record<NodeName, string>> {
    const scrape = async (node: DemoPlace): Promise<string> =>
      (await fetchFrom(node.netns, { ip: node.ip, port: STATS_PORT, path: "/metrics" })).body;
    return { "node-a": await scrape(nodes["node-a"]), "node-b": await scrape(nodes["node-b"]) };
  }

  /** Lines are written when connections have ended, a moment after the applications know. */
  async #accessLog(proxy: DemoDaemon, count: number): Promise<readonly string[]> {
    const lines = (): string[] => proxy.lines.filter((line) => /\taccess\t/.test(line));
    await this.#until(`the access log of ${proxy.name}`, () => lines().length >= count);
    return lines();
  }

  #start(
    name: string,
    place: DemoPlace,
    command: readonly string[],
    environment: Readonly<Record<string, string>> = {},
  ): DemoDaemon {
    const daemon = new DemoDaemon(name, place, command, {
      ...this.#options.environment,
      ...environment,
    });
    this.#daemons.push(daemon);
    return daemon;
  }

  /** Asks again while the answer is no or an error. */
  async #until(what: string, isDone: () => boolean | Promise<boolean>): Promise<void> {
    let reason = "";
    for (const deadline = performance.now() + STEP_MS_MAX; performance.now() < deadline; ) {
      for (const daemon of this.#daemons) daemon.requireRunning();
      try {
        if (await isDone()) return;
      } catch (error) {
        // Not up yet; the reason matters only if it stays so.
        reason = `: ${errorText(error)}`;
      }
      await delay(POLL_MS, undefined, { signal: this.#options.signal });
    }
    const words = this.#daemons.map(
      ({ name, lines }) => `${name}:\n  ${lines.slice(-5).join("\n  ")}`,
    );
    throw new Error(`${what} is not there after ${STEP_MS_MAX} ms${reason}\n${words.join("\n")}`);
  }
}

function tokenFile(node: NodeName): string {
  return `${FOLDER}/${node}/token`;
}

function zdsPath(node: NodeName): string {
  return `${FOLDER}/${node}/ztunnel.sock`;
}

function controlPath(node: NodeName): string {
  return `${FOLDER}/${node}/node-agent.sock`;
}

function say(text: string): void {
  process.stdout.write(`· ${text}\n`);
}

/** The commands with which a person looks around from another terminal. */
function keepText(network: DemoNetwork): string {
  const isUser =
    process.getuid?.() === 0 && !readFileSync("/proc/self/uid_map", "utf8").includes("4294967295");
  const enter = `nsenter --target ${process.pid}${isUser ? " --user --preserve-credentials" : ""} --mount`;
  const lines = [
    ...[...Object.values(network.nodes), ...Object.values(network.pods)].map(
      ({ name, ip }) => `  ${name.padEnd(9)} ${ip}`,
    ),
    "",
    "Everything runs until Ctrl-C. From another terminal:",
    `  ${enter} ip netns exec client curl -s --data hi http://${network.pods.server.ip}:${HELLO_PORT}/`,
    `  ${enter} ip netns exec wire tcpdump -ni br0`,
    `  ${enter} ip netns exec node-b curl -s localhost:${STATS_PORT}/metrics`,
    `  ${enter} ip netns exec client iptables-save`,
    `  ${enter} ip netns exec node-a prometheus --config.file=${PROMETHEUS_FILE} --storage.tsdb.path=${FOLDER}/prometheus`,
  ];
  return `\nStill running:\n${lines.join("\n")}\n`;
}

/** Scrapes both proxies. */
function prometheusFile({ nodes }: DemoNetwork): string {
  const targets = Object.values(nodes).map(({ ip }) => `"${ip}:${STATS_PORT}"`);
  return `global: { scrape_interval: 1s }
scrape_configs:
  - { job_name: ztunnel, static_configs: [{ targets: [${targets.join(", ")}] }] }
`;
}
