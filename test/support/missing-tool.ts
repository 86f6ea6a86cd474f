/** What a test can't do without and does not find. */
import { spawnSync } from "node:child_process";

/** Debian's packages of commands that are called otherwise. */
const PACKAGES: Readonly<Record<string, string>> = {
  cc: "gcc",
  dig: "bind9-dnsutils",
  dnsmasq: "dnsmasq-base",
  ip: "iproute2",
  nft: "nftables",
  nsenter: "util-linux",
  promtool: "prometheus",
  setpriv: "util-linux",
  ss: "iproute2",
  unshare: "util-linux",
};

/** @returns one sentence with the packages to install, or false when all commands are there. */
export function missingCommands(commands: readonly string[]): string | false {
  const missing = commands.filter(
    (command) => spawnSync("sh", ["-c", `command -v ${command} || exit 1`]).status !== 0,
  );
  if (missing.length === 0) return false;
  const packages = new Set(missing.map(packageOf));
  return `needs ${missing.join(", ")}: apt-get install ${[...packages].join(" ")}`;
}

function packageOf(command: string): string {
  return /^ip6?tables/.test(command) ? "iptables" : (PACKAGES[command] ?? command);
}

/**
 * Makes a test say so: for its `skip`.
 *
 * @throws Error with the reason in CI, where nothing passes by being skipped.
 */
export function missingTool(reason: string): string {
  if (process.env["CI"] === "true") throw new Error(reason);
  return reason;
}
