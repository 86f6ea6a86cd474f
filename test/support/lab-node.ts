/** A daemon of the lab: its process, what it says, what it answers on its own ports. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import type { ZdsServer } from "../../src/embedded/zds-server.ts";
import { httpFrom } from "./http-from.ts";
import type { LabHost } from "./netns-lab.ts";
import type { ProcessOutput } from "./process-output.ts";
import { waitUntil } from "./wait-until.ts";

/** One daemon, with its agent where it is for a node's pods. */
export class LabNode {
  readonly host: LabHost;
  readonly #agent: ZdsServer | undefined;
  readonly #spawn: () => ChildProcess;
  #process: ChildProcess;
  readonly #output: ProcessOutput;
  #netnsFds: number[] = [];

  constructor(
    host: LabHost,
    agent: ZdsServer | undefined,
    spawn: () => ChildProcess,
    output: ProcessOutput,
  ) {
    this.host = host;
    this.#agent = agent;
    this.#spawn = spawn;
    this.#output = output;
    this.#process = this.#start();
  }

  /** @throws for the daemon of one workload. */
  get agent(): ZdsServer {
    if (this.#agent === undefined) throw new Error("a dedicated daemon has no agent");
    return this.#agent;
  }

  /** The daemon that was started last. */
  get process(): ChildProcess {
    return this.#process;
  }

  /** Ends the daemon, if it runs, and starts another in its place. Settles when that is ready. */
  async restart(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const ended = once(this.#process, "exit");
      this.#process.kill("SIGTERM");
      await ended;
    }
    this.#process = this.#start();
    await this.ready();
  }

  /** Settles when the daemon says that it is ready. */
  ready(): Promise<void> {
    return waitUntil(
      () =>
        this.get(15021, "/healthz/ready").then(
          () => true,
          () => false,
        ),
      "the daemon never became ready",
    );
  }

  /** Every line so far. */
  get lines(): string[] {
    return this.#output.lines;
  }

  /** Opens the namespace for the agent; closed with the lab. */
  openNetns(host: LabHost): number {
    const fd = openSync(host.path, "r");
    this.#netnsFds.push(fd);
    return fd;
  }

  /** Body of `GET` on one of the daemon's own ports. @throws on refusal or another status. */
  async get(port: number, path: string): Promise<string> {
    return (await this.bytes(port, path)).toString();
  }

  /** As {@link get}, what is no text. */
  bytes(port: number, path: string): Promise<Buffer> {
    return httpFrom(this.host, "GET", port, path);
  }

  /** As {@link get}, to the admin port. */
  async post(path: string): Promise<string> {
    return (await httpFrom(this.host, "POST", 15000, path)).toString();
  }

  metrics(): Promise<string> {
    return this.get(15020, "/metrics");
  }

  #start(): ChildProcess {
    const process = this.#spawn();
    this.#output.follow(process);
    return process;
  }

  close(): void {
    this.#output.close();
    this.#agent?.close();
    for (const fd of this.#netnsFds) closeSync(fd);
    this.#netnsFds = [];
  }
}
