/**
 * What a network namespace holds and which tools the machine has for it, asked in one go: the
 * ground on which rules are chosen, installed and removed.
 */
import { runCommand } from "./netns-command.ts";
import type { Family } from "./redirect-options.ts";

/** Names of iptables: of the two kinds, and of whichever kind the machine calls so. */
export const IPTABLES_NAMES = ["iptables-nft", "iptables-legacy", "iptables"] as const;
export type IptablesName = (typeof IPTABLES_NAMES)[number];

export interface SurveyAnswer {
  /** Exit status; 127 when there is no such tool. */
  readonly status: number;
  /** Both outputs of the tool. */
  readonly text: string;
}

export interface RedirectSurvey {
  readonly isLoopbackUp: boolean;
  /** `off-on-lo`: interfaces may have addresses, but there is no `::1` to redirect to. */
  readonly ipv6: "on" | "off-on-lo" | "absent";
  /** Reachable from beyond its link, with prefix length; `undefined` when there is none. */
  readonly ipv6Address: string | undefined;
  /** Of `NAME-save`. */
  readonly saved: Readonly<Record<IptablesName, Readonly<Record<Family, SurveyAnswer>>>>;
  /** Of `nft list tables`. */
  readonly nftTables: SurveyAnswer;
  /** Of `ip rule show` and `ip route show table 100`; empty where the kernel has no such family. */
  readonly policyRules: Readonly<Record<Family, string>>;
  readonly routes: Readonly<Record<Family, string>>;
}

/** The tool of a family: `ip6tables-nft` is `iptables-nft` for IPv6. */
export function iptablesTool(name: IptablesName, family: Family): string {
  return family === 4 ? name : name.replace("iptables", "ip6tables");
}

/**
 * Asks. Saves do not make tables that were not there.
 *
 * @throws Error naming the Debian package when `nsenter` or `ip` is missing.
 */
export async function surveyNamespace(netnsFd: number): Promise<RedirectSurvey> {
  const answers = await askAll(netnsFd, [
    "ip link show dev lo",
    "cat /proc/sys/net/ipv6/conf/lo/disable_ipv6",
    "ip -6 -o addr show scope global",
    "nft list tables",
    ...FAMILIES.flatMap((family) => [
      ...IPTABLES_NAMES.map((name) => `${iptablesTool(name, family)}-save`),
      `ip -${family} rule show`,
      `ip -${family} route show table 100`,
    ]),
  ]);
  const answer = (command: string): SurveyAnswer =>
    answers.get(command) ?? { status: -1, text: "" };
  const link = answer("ip link show dev lo");
  if (link.status === NOT_FOUND) throw new Error("ip is not installed (apt-get install iproute2)");
  const saves = (name: IptablesName): Record<Family, SurveyAnswer> => ({
    4: answer(`${name}-save`),
    6: answer(`${iptablesTool(name, 6)}-save`),
  });
  const perFamily = (what: string): Record<Family, string> => ({
    4: answer(`ip -4 ${what}`).text,
    6: answer(`ip -6 ${what}`).text,
  });
  return {
    isLoopbackUp: /<[^>]*\bUP\b[^>]*>/.test(link.text),
    ipv6: ipv6Standing(answer("cat /proc/sys/net/ipv6/conf/lo/disable_ipv6")),
    ipv6Address: /\binet6 (\S+)/.exec(answer("ip -6 -o addr show scope global").text)?.[1],
    saved: {
      "iptables-nft": saves("iptables-nft"),
      "iptables-legacy": saves("iptables-legacy"),
      iptables: saves("iptables"),
    },
    nftTables: answer("nft list tables"),
    policyRules: perFamily("rule show"),
    routes: perFamily("route show table 100"),
  };
}

const FAMILIES: readonly Family[] = [4, 6];
const NOT_FOUND = 127;

/** Runs each command line; its key in the answer is itself. */
async function askAll(
  netnsFd: number,
  commands: readonly string[],
): Promise<ReadonlyMap<string, SurveyAnswer>> {
  // A line that starts with @ is ours; a line of theirs that did would only spoil its own answer.
  const script = commands
    .map((command) => `echo "@ask ${command}"; ${command} 2>&1; echo "@end $?"`)
    .join("\n");
  const { stdout } = await runCommand(netnsFd, ["sh", "-c", script]);
  const answers = stdout.matchAll(/^@ask (.*)\n([\s\S]*?)^@end (\d+)$/gm);
  return new Map(
    [...answers].map(([, command, text, status]) => [
      command as string,
      { status: Number(status), text: text as string },
    ]),
  );
}

function ipv6Standing({ status, text }: SurveyAnswer): RedirectSurvey["ipv6"] {
  // Without the file the kernel has no IPv6.
  if (status !== 0) return "absent";
  return text.trim() === "0" ? "on" : "off-on-lo";
}
