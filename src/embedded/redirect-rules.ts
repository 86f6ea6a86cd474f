/**
 * Installs and removes the rules that send a pod's traffic to the proxy, in one network namespace:
 * istio-cni's own, by iptables or nftables, with the policy rule and the route that they need.
 *
 * @see spec data-path 12.2
 */
import { errorText } from "../runtime/error-text.ts";
import { iptablesRemoval, iptablesRules } from "./iptables-rules.ts";
import { requireCommand } from "./netns-command.ts";
import { NFTABLES_REMOVAL, nftablesRules } from "./nftables-rules.ts";
import { type Family, REDIRECT, type RedirectOptions } from "./redirect-options.ts";
import {
  IPTABLES_NAMES,
  type IptablesName,
  iptablesTool,
  type RedirectSurvey,
  surveyNamespace,
} from "./redirect-survey.ts";
import { chooseBackend, type RulesBackend, type RulesChoice } from "./rules-backend.ts";

const ROUTE_TABLE = "100";
const RULE = `fwmark ${REDIRECT.returnMark}/${REDIRECT.mask} lookup ${ROUTE_TABLE}`;
const RULE_PRIORITY = "32764";
const LOCK_SECONDS = "5";

/** How a namespace is captured. */
export interface RedirectStanding {
  readonly backend: RulesBackend;
  /**
   * `off-on-lo`: what leaves over IPv6 gets nowhere, because there is no `::1` to send it to.
   * `absent`: the namespace can't speak it.
   */
  readonly ipv6: "captured" | "off-on-lo" | "absent";
}

/**
 * Installs the rules for both families. Rules of ours that are there already are replaced. On
 * failure nothing of ours is left.
 *
 * @param choice by which tool.
 * @throws Error in words for an operator: a missing tool with its package, loopback that is down,
 *   IPv6 that can't be captured although the namespace has an address, or what the tool says.
 */
export async function installRedirect(
  netnsFd: number,
  options: RedirectOptions,
  choice: RulesChoice = "auto",
): Promise<RedirectStanding> {
  const survey = await surveyNamespace(netnsFd);
  if (!survey.isLoopbackUp) {
    // Redirected connections go to the loopback address.
    throw new Error("loopback is down in this network namespace (ip link set lo up)");
  }
  await removeFound(netnsFd, survey);
  const backend = chooseBackend(survey, choice);
  try {
    const families: readonly Family[] = survey.ipv6 === "absent" ? [4] : [4, 6];
    if (backend === "nftables") {
      await requireCommand(netnsFd, ["nft", "-f", "-"], nftablesRules(families, options));
      for (const family of families) await addRoute(netnsFd, family, survey);
      return { backend, ipv6: captured(survey) };
    }
    await installIptables(netnsFd, 4, survey, { backend, options });
    if (survey.ipv6 === "absent") return { backend, ipv6: "absent" };
    try {
      await installIptables(netnsFd, 6, survey, { backend, options });
    } catch (cause) {
      const { ipv6Address } = survey;
      const reason = errorText(cause);
      if (ipv6Address !== undefined) {
        throw new Error(`IPv6 can't be captured, and the pod has ${ipv6Address}: ${reason}`, {
          cause,
        });
      }
      return { backend, ipv6: "absent" };
    }
    return { backend, ipv6: captured(survey) };
  } catch (error) {
    await removeRedirect(netnsFd);
    throw error;
  }
}

/**
 * Removes everything that {@link installRedirect} brought, by whatever tool and also after half of
 * it. Idempotent.
 *
 * @throws Error with the first failure, after all else was tried.
 */
export async function removeRedirect(netnsFd: number): Promise<void> {
  await removeFound(netnsFd, await surveyNamespace(netnsFd));
}

function captured({ ipv6 }: RedirectSurvey): "captured" | "off-on-lo" {
  return ipv6 === "on" ? "captured" : "off-on-lo";
}

async function installIptables(
  netnsFd: number,
  family: Family,
  survey: RedirectSurvey,
  { backend, options }: { readonly backend: IptablesName; readonly options: RedirectOptions },
): Promise<void> {
  await restore(netnsFd, iptablesTool(backend, family), iptablesRules(family, options));
  await addRoute(netnsFd, family, survey);
}

/** So that the application's answers to the proxy stay in the namespace. */
async function addRoute(netnsFd: number, family: Family, survey: RedirectSurvey): Promise<void> {
  const everything = family === 4 ? "0.0.0.0/0" : "::/0";
  const hasLoopback = family === 4 || survey.ipv6 === "on";
  const commands = [
    `rule add ${RULE} pref ${RULE_PRIORITY}`,
    ...(hasLoopback ? [`route add local ${everything} dev lo table ${ROUTE_TABLE}`] : []),
  ];
  await batch(netnsFd, family, commands);
}

async function removeFound(netnsFd: number, survey: RedirectSurvey): Promise<void> {
  const removals: (() => Promise<unknown>)[] = [];
  for (const family of [4, 6] as const) {
    for (const [tool, removal] of iptablesRemovals(survey, family)) {
      removals.push(() => restore(netnsFd, tool, removal));
    }
    removals.push(() => batch(netnsFd, family, routeRemovals(survey, family)));
  }
  if (survey.nftTables.text.includes("table inet istio-ambient-")) {
    removals.push(() => requireCommand(netnsFd, ["nft", "-f", "-"], NFTABLES_REMOVAL));
  }
  const failures: unknown[] = [];
  for (const remove of removals) await remove().catch((error: unknown) => failures.push(error));
  if (failures.length > 0) throw failures[0];
}

/** Key is the tool. The machine's plain iptables is one of the two kinds where these have names. */
function iptablesRemovals(survey: RedirectSurvey, family: Family): ReadonlyMap<string, string> {
  const removals = new Map<string, string>();
  for (const name of IPTABLES_NAMES) {
    if (name === "iptables" && removals.size > 0) break;
    const { status, text } = survey.saved[name][family];
    const removal = status === 0 ? iptablesRemoval(text) : "";
    if (removal !== "") removals.set(iptablesTool(name, family), removal);
  }
  return removals;
}

function routeRemovals(survey: RedirectSurvey, family: Family): readonly string[] {
  const everything = family === 4 ? "0.0.0.0/0" : "::/0";
  const rules = survey.policyRules[family]
    .split("\n")
    .filter((line) => line.startsWith(`${RULE_PRIORITY}:`) && line.includes(RULE));
  const hasRoute = /^local default dev lo\b/m.test(survey.routes[family]);
  return [
    ...rules.map(() => `rule del ${RULE} pref ${RULE_PRIORITY}`),
    ...(hasRoute ? [`route del local ${everything} dev lo table ${ROUTE_TABLE}`] : []),
  ];
}

async function restore(netnsFd: number, tool: string, input: string): Promise<void> {
  await requireCommand(netnsFd, [`${tool}-restore`, "--noflush", "-w", LOCK_SECONDS], input);
}

async function batch(netnsFd: number, family: Family, commands: readonly string[]): Promise<void> {
  if (commands.length === 0) return;
  await requireCommand(netnsFd, ["ip", `-${family}`, "-batch", "-"], `${commands.join("\n")}\n`);
}
