/** By which tool the redirect rules of a namespace are installed. */
import type { Family } from "./redirect-options.ts";
import {
  IPTABLES_NAMES,
  type IptablesName,
  iptablesTool,
  type RedirectSurvey,
  type SurveyAnswer,
} from "./redirect-survey.ts";

export type RulesBackend = IptablesName | "nftables";

/** What an operator may ask for. `auto`: {@link chooseBackend} chooses. */
export type RulesChoice = RulesBackend | "auto";

/**
 * The one that was asked for, if it can; with `auto` the kind of iptables that has rules in the
 * namespace already, as istio-cni does, else what the machine calls iptables, else nft. An iptables
 * whose tables were made by another tool is passed over, because it does not find its own rules
 * there any more. So is one without ip6tables, unless there is no better and the namespace has no
 * IPv6 address.
 *
 * @throws Error with what is wrong with the one, or with each when `auto` finds none.
 */
export function chooseBackend(survey: RedirectSurvey, choice: RulesChoice): RulesBackend {
  if (choice === "nftables") return choice;
  if (choice !== "auto") {
    const reason = obstacle(survey, choice, survey.ipv6Address === undefined ? [4] : [4, 6]);
    if (reason === undefined) return choice;
    throw new Error(`${choice} can't install redirect rules: ${reason}`);
  }
  const families: readonly Family[] = survey.ipv6 === "absent" ? [4] : [4, 6];
  const forAll = chooseIptables(survey, families);
  if (forAll !== undefined) return forAll;
  const { nftTables, ipv6Address } = survey;
  if (nftTables.status === 0) return "nftables";
  const forIpv4 = ipv6Address === undefined ? chooseIptables(survey, [4]) : undefined;
  if (forIpv4 !== undefined) return forIpv4;
  const obstacles = IPTABLES_NAMES.flatMap((name) => obstacle(survey, name, families) ?? []);
  const reasons = [...new Set([...obstacles, complaint("nft", nftTables)])].join(", ");
  throw new Error(
    `nothing can install redirect rules: ${reasons} (apt-get install iptables or nftables)`,
  );
}

function chooseIptables(
  survey: RedirectSurvey,
  families: readonly Family[],
): IptablesName | undefined {
  const usable = IPTABLES_NAMES.filter((name) => obstacle(survey, name, families) === undefined);
  const used = usable.find((name) => name !== "iptables" && hasRules(survey, name));
  return used ?? (usable.includes("iptables") ? "iptables" : usable[0]);
}

/** @returns why the iptables can't be used in the namespace; `undefined` when it can. */
function obstacle(
  survey: RedirectSurvey,
  name: IptablesName,
  families: readonly Family[],
): string | undefined {
  for (const family of families) {
    const answer = survey.saved[name][family];
    const tool = `${iptablesTool(name, family)}-save`;
    if (answer.status !== 0) return complaint(tool, answer);
    const incompatible = /^# (Table `.*' is incompatible)/m.exec(answer.text)?.[1];
    if (incompatible !== undefined) return `${tool}: ${incompatible}`;
  }
  return undefined;
}

function complaint(tool: string, { status, text }: SurveyAnswer): string {
  const words = text.trim().split("\n").at(-1);
  return status === 127 ? `${tool} is not installed` : `${tool}: ${words || `status ${status}`}`;
}

function hasRules({ saved }: RedirectSurvey, name: IptablesName): boolean {
  return [saved[name][4], saved[name][6]].some(({ text }) => /^-A /m.test(text));
}
