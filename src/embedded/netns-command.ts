/** Runs the system's network tools inside a network namespace given by descriptor. */
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { invariant } from "../runtime/invariant.ts";

/** Which Debian package has what we run, by the beginning of its name. */
const PACKAGES: readonly (readonly [string, string])[] = [
  ["nsenter", "util-linux"],
  ["nft", "nftables"],
  ["iptables", "iptables"],
  ["ip6tables", "iptables"],
  ["ip", "iproute2"],
];

/** What a shell says when there is no such program, and what nsenter says. */
const EXIT_NOT_FOUND = 127;

export interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs one program to its end; the sbin folders are searched even when the caller's path lacks them.
 *
 * @param netnsFd `undefined`: in the namespace that we are in.
 * @throws Error naming the Debian package when the program is missing.
 */
export async function runCommand(
  netnsFd: number | undefined,
  command: readonly string[],
  input = "",
): Promise<CommandResult> {
  const enter = netnsFd === undefined ? "" : "nsenter --net=/proc/self/fd/3 -- ";
  const child = spawn(
    "/bin/sh",
    ["-c", `PATH="$PATH:/usr/sbin:/sbin"; exec ${enter}"$@"`, "sh", ...command],
    {
      stdio: ["pipe", "pipe", "pipe", ...(netnsFd === undefined ? [] : [netnsFd])],
      // Ctrl-C at a terminal must not stop a half-done change of rules.
      detached: true,
    },
  );
  const { stdin, stdout, stderr } = child;
  invariant(stdin !== null && stdout !== null && stderr !== null, "three pipes were asked for");
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => resolve(status ?? -1));
  });
  // A program that reads no input may be gone before it is written.
  stdin.on("error", () => {});
  stdin.end(input);
  const [status, output, words] = await Promise.all([ended, text(stdout), text(stderr)]);
  if (status === EXIT_NOT_FOUND) throw missingTool(command[0] as string, words);
  return { status, stdout: output, stderr: words };
}

/**
 * As {@link runCommand}.
 *
 * @returns its output.
 * @throws Error with the program's own words when it fails.
 */
export async function requireCommand(
  netnsFd: number | undefined,
  command: readonly string[],
  input = "",
): Promise<string> {
  const { status, stdout, stderr } = await runCommand(netnsFd, command, input);
  if (status === 0) return stdout;
  const words = stderr.trim() || stdout.trim() || `exit status ${status}`;
  throw new Error(`${command.join(" ")}: ${words}`);
}

function missingTool(program: string, stderr: string): Error {
  const missing = /\bnsenter: not found/.test(stderr) ? "nsenter" : program;
  const debianPackage = PACKAGES.find(([name]) => missing.startsWith(name))?.[1];
  const hint = debianPackage === undefined ? "" : ` (apt-get install ${debianPackage})`;
  return new Error(`${missing} is not installed${hint}`);
}
