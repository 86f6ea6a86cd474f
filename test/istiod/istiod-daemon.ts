/** Our daemon in one network namespace, with a way to istiod on its loopback. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { httpFrom } from "../support/http-from.ts";
import { type LabServer, listenOn } from "../support/lab-application.ts";
import type { LabHost, NetnsLab } from "../support/netns-lab.ts";
import { waitUntil } from "../support/wait-until.ts";
import { ISTIOD_PORT, type IstiodLab } from "./istiod-lab.ts";

export const PROGRAM: readonly [string, string] = [
  process.execPath,
  resolve(import.meta.dirname, "../../dist/main.js"),
];
const READY_MS_MAX = 60_000;

export class IstiodDaemon {
  readonly host: LabHost;
  readonly #net: NetnsLab;
  readonly #relay: LabServer;
  readonly #hostsFile: string;
  #process: ChildProcess | undefined;
  #output = "";

  constructor(net: NetnsLab, host: LabHost, istiod: IstiodLab) {
    this.#net = net;
    this.host = host;
    this.#relay = relayToIstiod(host, istiod);
    this.#hostsFile = istiod.hostsFile;
  }

  spawn(environment: Readonly<Record<string, string>>): void {
    const variables = { LOG_FORMAT: "json", ZTUNNEL_WORKER_THREADS: "1", ...environment };
    const words = Object.entries(variables).map(([key, value]) => `${key}=${value}`);
    const withHosts = `mount --bind ${this.#hostsFile} /etc/hosts && exec "$@"`;
    const daemon = this.#net.spawn(
      this.host,
      ...["unshare", "--mount", "sh", "-ec", withHosts, "sh"],
      ...["env", ...words, ...PROGRAM],
    );
    daemon.stdout?.on("data", (chunk: Buffer) => {
      this.#output += chunk.toString();
    });
    this.#process = daemon;
  }

  /** Orderly. Settles when it has ended. */
  async stop(): Promise<void> {
    const daemon = this.#process;
    if (daemon === undefined || daemon.exitCode !== null) return;
    const exited = once(daemon, "exit");
    daemon.kill("SIGTERM");
    await exited;
  }

  ready(): Promise<void> {
    const late = `the daemon of ${this.host.netns} never became ready`;
    return waitUntil(() => this.isReady(), late, READY_MS_MAX);
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

  /** Processes end with the network. */
  close(): void {
    this.#relay.close();
  }
}

/** istiod's port on the host's own loopback; refuses with a hang-up while istiod is away. */
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
