/**
 * A real control plane (etcd, kube-apiserver, istiod) in a network namespace of its own, moved by
 * the lab's script `istiod.py`.
 */
import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { httpFrom } from "../support/http-from.ts";
import { connectFrom } from "../support/lab-application.ts";
import type { LabHost } from "../support/netns-lab.ts";
import { controlPlaneBinaries } from "./control-plane-binaries.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const KUBERNETES = join(ROOT, "test/fixtures/istiod/kubernetes");
/** Discovery and certificates. */
export const ISTIOD_PORT = 15012;
const DEBUG_PORT = 8080;
const ZTUNNEL = { namespace: "istio-system", serviceAccount: "ztunnel" } as const;
/** etcd, apiserver and istiod come up one after another. */
const STEP_MS_MAX = 240_000;

export interface IstiodOptions {
  /** `KEY=VALUE`; kept over restarts, `KEY=` takes it back. */
  readonly environment?: readonly string[];
  /** Of this start only. */
  readonly args?: readonly string[];
  /** Folder of a plugged-in authority; kept over restarts. */
  readonly authority?: string;
}

export class IstiodLab {
  readonly #host: LabHost;
  readonly #script: string;
  readonly #environment: Readonly<Record<string, string>>;
  /** Everything of the lab; removed at its end. */
  readonly folder: string;

  /** What daemons see as /etc/hosts. */
  readonly hostsFile: string;

  /** @param host where the servers listen, on its loopback. @throws when a program is missing. */
  constructor(host: LabHost) {
    this.#host = host;
    this.#script = findScript();
    const programs = controlPlaneBinaries((line) => process.stderr.write(`${line}\n`));
    this.folder = mkdtempSync(join(tmpdir(), "ztunnel-istiod-"));
    this.hostsFile = join(this.folder, "hosts");
    writeFileSync(this.hostsFile, "127.0.0.1 localhost\n");
    this.#environment = {
      PATH: process.env["PATH"] ?? "",
      LAB_DIR: join(this.folder, "lab"),
      ETCD_BIN: programs.etcd,
      KUBE_APISERVER_BIN: programs.apiserver,
      PILOT_DISCOVERY_BIN: programs.istiod,
    };
    process.once("exit", this.#exited);
    process.once("SIGINT", this.#interrupted);
    process.once("SIGTERM", this.#interrupted);
  }

  /** Settles when istiod serves. */
  async start(options: IstiodOptions = {}): Promise<void> {
    await this.#run("up", ...istiodWords(options));
  }

  /** The data stay. Settles when the new istiod serves. */
  async restart(options: IstiodOptions = {}): Promise<void> {
    await this.#run("restart-istiod", ...istiodWords(options));
  }

  /** @param names of recorded files, or paths. */
  async apply(...names: readonly string[]): Promise<void> {
    await this.#run("apply", ...names.map(objectFile));
  }

  /** @param graceSeconds pods are marked as terminating first; default 0: they are gone. */
  async delete(name: string, graceSeconds = 0): Promise<void> {
    await this.#run("delete", "--grace", String(graceSeconds), objectFile(name));
  }

  /** A merge patch. @param path of the API. */
  async patch(path: string, change: unknown): Promise<void> {
    await this.#run("patch", path, JSON.stringify(change));
  }

  /**
   * What a daemon in the pod is started with; renews the token in its file.
   *
   * @param whose default: of ztunnel's own pods.
   */
  async daemonEnvironment(
    pod: string,
    whose: { readonly namespace: string; readonly serviceAccount: string } = ZTUNNEL,
  ): Promise<Record<string, string>> {
    const words = ["--ns", whose.namespace, "--sa", whose.serviceAccount, "--pod", pod];
    const lines = (await this.#run("env", ...words)).trim().split("\n");
    return Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
    );
  }

  /** A token of a pod's service account, bound to the pod. */
  token(namespace: string, serviceAccount: string, pod: string): Promise<string> {
    return this.#run("token", "--ns", namespace, "--sa", serviceAccount, "--pod", pod);
  }

  /** A connection to istiod, as somebody on its own machine. */
  connect(): Promise<Socket> {
    return connectFrom(this.#host, "127.0.0.1", ISTIOD_PORT);
  }

  /** Body of one of istiod's debug pages. */
  async debug(path: string): Promise<string> {
    return (await httpFrom(this.#host, "GET", DEBUG_PORT, path)).toString();
  }

  /** Lines of every istiod so far. */
  get log(): readonly string[] {
    return readFileSync(join(this.folder, "lab/log/istiod.log"), "utf8").split("\n");
  }

  /** The certificate that istiod gives out as the mesh's root. */
  get rootFile(): string {
    return join(this.folder, "lab/root-cert.pem");
  }

  /** Ends the three servers. Idempotent. */
  close(): void {
    process.off("exit", this.#exited);
    process.off("SIGINT", this.#interrupted);
    process.off("SIGTERM", this.#interrupted);
    if (existsSync(join(this.folder, "lab"))) {
      execFileSync("python3", [this.#script, "down"], { env: this.#environment });
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  readonly #exited = (): void => this.close();

  readonly #interrupted = (signal: NodeJS.Signals): void => {
    this.close();
    process.kill(process.pid, signal);
  };

  async #run(...words: readonly string[]): Promise<string> {
    const command = [`--net=${this.#host.path}`, "--", "python3", this.#script, ...words];
    const { stdout } = await promisify(execFile)("nsenter", command, {
      env: this.#environment,
      timeout: STEP_MS_MAX,
    });
    return stdout;
  }
}

/** @throws Error that says where the lab was looked for. */
function findScript(): string {
  const folder = process.env["ISTIOD_LAB"] ?? join(ROOT, "../shared/istiod-lab");
  const script = join(folder, "istiod.py");
  if (existsSync(script)) return script;
  throw new Error(`there is no ${script}: ISTIOD_LAB must name the folder of the istiod lab`);
}

function objectFile(name: string): string {
  return name.startsWith("/") ? name : join(KUBERNETES, `${name}.yaml`);
}

function istiodWords({ environment, args, authority }: IstiodOptions): string[] {
  return [
    ...(environment ?? []).flatMap((variable) => ["-e", variable]),
    ...(args ?? []).map((arg) => `--arg=${arg}`),
    ...(authority === undefined ? [] : ["--cacerts", authority]),
  ];
}
