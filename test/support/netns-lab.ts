/**
 * A small network of real namespaces for tests and benches: one bridge, and hosts attached to it by
 * veth pairs. Needs root and the tools of iproute2 and util-linux. All interfaces live inside the
 * lab's namespaces, so labs do not meet each other nor the machine's own network.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { missingCommands, missingTool } from "./missing-tool.ts";

const NETNS_FOLDER = "/run/netns";
const NAME_PREFIX = "ztlab";
/** Far above what all tests of a file take together on a slow machine. */
const TEST_LAB_MS_MAX = 600_000;

export interface LabHostOptions {
  /** With prefix length, such as `10.1.0.1/24`. */
  readonly ipv4: string;
  readonly ipv6?: string;
  /** Arguments of `ip route add`: `default via 10.1.0.254`, `unreachable fd09::/64`. */
  readonly routes?: readonly string[];
}

export interface NetnsLabOptions {
  /**
   * Nobody uses IPv6, so its multicast goes nowhere. What hundreds of hosts say to find routers is more,
   * sent to each, than the kernel's queues hold, and packets of others are lost with it.
   */
  readonly isIpv4Only?: boolean;
}

export interface LabHost {
  /** Name of the namespace, unique on the machine. */
  readonly netns: string;
  /** Path of the namespace; valid until the lab is closed. */
  readonly path: string;
  /** Address without prefix length. */
  readonly ipv4: string;
  readonly ipv6: string | undefined;
  /**
   * What the test itself has open in hosts of the lab. Ends with the lab: a test that fails before it
   * has cleaned up must not keep its process alive.
   */
  readonly applications: Set<{ destroy(): void }>;
}

/** Bridge and hosts; removes itself when the process exits or gets SIGINT or SIGTERM. */
export class NetnsLab {
  readonly #prefix: string;
  readonly #bridge: string;
  readonly #isIpv4Only: boolean;
  readonly #netnsNames = new Set<string>();
  /** Key is the process, value its namespace. */
  readonly #processes = new Map<ChildProcess, string>();
  readonly #applications: LabHost["applications"] = new Set();
  #portCount = 0;
  #closed = false;
  #overdue: NodeJS.Timeout | undefined;

  constructor({ isIpv4Only = false }: NetnsLabOptions = {}) {
    removeAbandonedLabs();
    this.#isIpv4Only = isIpv4Only;
    this.#prefix = freePrefix();
    process.once("exit", this.#exited);
    process.once("SIGINT", this.#interrupted);
    process.once("SIGTERM", this.#interrupted);
    if (process.env["NODE_TEST_CONTEXT"] !== undefined) {
      // The runner goes on without a test that hangs, and then waits for the process that it keeps alive.
      this.#overdue = setTimeout(() => process.exit(1), TEST_LAB_MS_MAX).unref();
    }
    this.#bridge = this.#addNetns("bridge");
    ip(this.#bridge, ["link add br0 type bridge", "link set br0 up"]);
  }

  /** A namespace with `eth0` on the bridge and `lo`, both up. @param name short, `a-z0-9`. */
  addHost(name: string, options: LabHostOptions): LabHost {
    const netns = this.#addNetns(name);
    const port = `port${this.#portCount++}`;
    ip(this.#bridge, [
      `link add ${port} type veth peer name eth0 netns ${netns} address ${macOf(options.ipv4)}`,
      `link set ${port} master br0 up`,
      ...(this.#isIpv4Only ? [`link set ${port} type bridge_slave mcast_flood off`] : []),
    ]);
    ip(netns, [
      `addr add ${options.ipv4} dev eth0`,
      // Without duplicate address detection the address can be used at once.
      ...(options.ipv6 === undefined ? [] : [`addr add ${options.ipv6} dev eth0 nodad`]),
      "link set eth0 up",
      ...(options.routes ?? []).map((route) => `route add ${route}`),
    ]);
    return {
      netns,
      path: `${NETNS_FOLDER}/${netns}`,
      ipv4: withoutPrefixLength(options.ipv4),
      ipv6: options.ipv6 === undefined ? undefined : withoutPrefixLength(options.ipv6),
      applications: this.#applications,
    };
  }

  /** Runs a command in the host's namespace to its end. @throws when it fails. @returns stdout. */
  exec(host: LabHost, command: string, ...args: string[]): string {
    return run("nsenter", [`--net=${host.path}`, "--", command, ...args]);
  }

  /** Starts a command in the host's namespace; it is killed with the lab. */
  spawn(host: LabHost, command: string, ...args: string[]): ChildProcess {
    const child = spawn("nsenter", [`--net=${host.path}`, "--", command, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#processes.set(child, host.netns);
    child.once("exit", () => this.#processes.delete(child));
    return child;
  }

  /** Kills what was started in the host and removes its namespace. */
  removeHost({ netns }: LabHost): void {
    for (const [child, where] of this.#processes) if (where === netns) child.kill("SIGKILL");
    deleteNetns(netns);
    this.#netnsNames.delete(netns);
  }

  /** Kills what was started and removes every namespace, as far as it goes. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#overdue);
    process.off("exit", this.#exited);
    process.off("SIGINT", this.#interrupted);
    process.off("SIGTERM", this.#interrupted);
    for (const application of this.#applications) application.destroy();
    for (const child of this.#processes.keys()) child.kill("SIGKILL");
    for (const name of this.#netnsNames) deleteNetns(name);
  }

  #addNetns(name: string): string {
    const netns = `${this.#prefix}-${name}`;
    run("ip", ["netns", "add", netns]);
    this.#netnsNames.add(netns);
    ip(netns, ["link set lo up"]);
    return netns;
  }

  readonly #exited = (): void => this.close();

  readonly #interrupted = (signal: NodeJS.Signals): void => {
    this.close();
    process.kill(process.pid, signal);
  };
}

/**
 * For the `skip` option of tests that need namespaces.
 *
 * @param tools commands that the tests need beside `ip` and `nsenter`.
 * @returns why they can't run here, or false.
 * @throws in CI, where such tests must not pass by skipping.
 */
export function requireNetns(...tools: string[]): string | false {
  const reason = findObstacle(tools);
  return reason === false ? false : missingTool(reason);
}

function findObstacle(tools: readonly string[]): string | false {
  const missing = missingCommands(["ip", "nsenter", ...tools]);
  if (missing !== false) return missing;
  const probe = `${freePrefix()}-probe`;
  try {
    run("ip", ["netns", "add", probe]);
    return false;
  } catch (error) {
    return `needs root and network namespaces: ${lastLine(error)}`;
  } finally {
    deleteNetns(probe);
  }
}

/** What the command said, without the command. */
function lastLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().split("\n").at(-1) ?? "";
}

/** Names start with the process that made them, so that leftovers of killed ones are known. */
function freePrefix(): string {
  const taken = labNetnsNames();
  for (let i = 0; ; i++) {
    const prefix = `${NAME_PREFIX}-${process.pid}-${i}`;
    if (!taken.some((name) => name.startsWith(`${prefix}-`))) return prefix;
  }
}

function removeAbandonedLabs(): void {
  for (const name of labNetnsNames()) {
    if (!isRunning(Number(name.split("-")[1]))) deleteNetns(name);
  }
}

function labNetnsNames(): string[] {
  try {
    return readdirSync(NETNS_FOLDER).filter((name) => name.startsWith(`${NAME_PREFIX}-`));
  } catch {
    // The folder is made with the first namespace.
    return [];
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

function deleteNetns(name: string): void {
  try {
    run("ip", ["netns", "delete", name]);
  } catch {
    // It never came to be, or somebody else removed it: the aim is reached.
  }
}

/** Several commands of `ip` in one process, within a namespace. */
function ip(netns: string, commands: readonly string[]): void {
  run("ip", ["-n", netns, "-batch", "-"], `${commands.join("\n")}\n`);
}

function run(command: string, args: readonly string[], input = ""): string {
  return execFileSync(command, args, { input, encoding: "utf8", stdio: ["pipe", "pipe", "pipe"] });
}

/** The same for the same address, so that neighbours find the next host that has it at once. */
function macOf(ipv4: string): string {
  const octets = withoutPrefixLength(ipv4).split(".").map(Number);
  return ["02", "00", ...octets.map((octet) => octet.toString(16).padStart(2, "0"))].join(":");
}

function withoutPrefixLength(address: string): string {
  return address.replace(/\/\d+$/, "");
}
