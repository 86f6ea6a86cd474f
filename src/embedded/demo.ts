/**
 * `ztunnel demo`: checks the machine, then runs the stage in namespaces of its own: network and
 * mounts, and a user namespace where we are not root. What the stage makes lives in those, so that
 * nothing is left when it ends, however it ends.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { extname, join } from "node:path";
import { runDemoStage } from "./demo-stage.ts";
import { requireCommand, runCommand } from "./netns-command.ts";

export interface DemoOptions {
  /** Leave everything running until the signal. */
  readonly keep: boolean;
  /** Install missing tools with apt-get first; needs root. */
  readonly install: boolean;
  readonly signal: AbortSignal;
  /** That of the process; handed on to the daemons. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Set, to our pid, for the process that stands on the stage already. */
const STAGE_VARIABLE = "ZTUNNEL_DEMO_STAGE";

/** Program → Debian package. */
const TOOLS: Readonly<Record<string, string>> = {
  ip: "iproute2",
  iptables: "iptables",
  nsenter: "util-linux",
  unshare: "util-linux",
  setpriv: "util-linux",
  mount: "mount",
};

/**
 * Sets `process.exitCode` to 1 when something was not as it should be, or ended before it was seen.
 *
 * @throws Error in one sentence when the machine lacks something.
 */
export async function runDemo(options: DemoOptions): Promise<void> {
  const door = options.environment[STAGE_VARIABLE];
  if (door !== undefined) {
    // Killed before the stage could ask to be told of it.
    if (process.ppid !== Number(door)) return;
    return runDemoStage(options);
  }
  const missing = await missingPackages();
  if (missing.length > 0) {
    if (!options.install) {
      throw new Error(
        `missing tools: apt-get install ${missing.join(" ")} (or run the demo with --install as root)`,
      );
    }
    await installPackages(missing);
  }
  const unshare = await chooseUnshare();
  if (options.signal.aborted) {
    process.exitCode = 1;
    return;
  }
  const main = join(import.meta.dirname, "..", `main${extname(import.meta.filename)}`);
  const stage = [process.execPath, main, "demo", ...(options.keep ? ["--keep"] : [])];
  const child = spawn(
    unshare[0] as string,
    [
      ...unshare.slice(1),
      // A stage whose front door is killed closes too.
      ...["setpriv", "--pdeathsig", "TERM", "--"],
      ...[
        "sh",
        "-c",
        'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"',
        "sh",
        ...stage,
      ],
    ],
    {
      stdio: "inherit",
      // Ctrl-C is for us alone; we pass it on once.
      detached: true,
      env: {
        ...options.environment,
        PATH: sbinPath(options.environment),
        [STAGE_VARIABLE]: String(process.pid),
      },
    },
  );
  const close = (): void => void child.kill("SIGTERM");
  options.signal.addEventListener("abort", close, { once: true });
  const [status] = (await once(child, "exit")) as [number | null];
  options.signal.removeEventListener("abort", close);
  if (status !== 0) process.exitCode = 1;
}

/** Debian keeps network tools out of the path of ordinary users. */
function sbinPath(environment: DemoOptions["environment"]): string {
  return `${environment["PATH"] ?? "/usr/bin:/bin"}:/usr/sbin:/sbin`;
}

async function missingPackages(): Promise<string[]> {
  const missing = new Set<string>();
  for (const [tool, debianPackage] of Object.entries(TOOLS)) {
    // Not the shell's own 127, which would mean that the shell itself is missing.
    const look = `command -v ${tool} || exit 1`;
    const found = await runCommand(undefined, ["sh", "-c", look]);
    if (found.status !== 0) missing.add(debianPackage);
  }
  return [...missing];
}

async function installPackages(packages: readonly string[]): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error("--install needs root");
  const apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"];
  await requireCommand(undefined, [...apt, "update"]);
  await requireCommand(undefined, [...apt, "install", "--no-install-recommends", ...packages]);
}

/** @returns the command line that leads to the stage, as root or through a user namespace. */
async function chooseUnshare(): Promise<readonly string[]> {
  const asRoot = ["unshare", "--mount", "--net"];
  const asUser = [...asRoot, "--user", "--map-root-user"];
  let reason = "";
  for (const unshare of [asRoot, asUser]) {
    const tried = await runCommand(undefined, [
      ...unshare,
      "--",
      "mount",
      "-t",
      "tmpfs",
      "tmpfs",
      "/run",
    ]);
    if (tried.status === 0) return unshare;
    reason = tried.stderr.trim();
  }
  throw new Error(
    `the demo needs root, or unprivileged user namespaces (sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0): ${reason}`,
  );
}
