/**
 * Why a policy applies to a connection, or what is missing: for operators. The matchers decide; here
 * their answers are put into words.
 */
import {
  type AuthorizationPolicy,
  EMPTY_MATCH,
  type PolicyAction,
  type PolicyClause,
  type PolicyMatch,
  type PolicyRule,
  policyKey,
  type RbacConnection,
  type ServiceAccountMatch,
  type StringMatch,
} from "../mesh/authorization.ts";
import type { Cidr } from "../mesh/cidr.ts";
import {
  clauseMatches,
  type JudgedConnection,
  matchApplies,
  prepareConnection,
  ruleMatches,
} from "./matchers.ts";

export interface PolicyExplanation {
  /** `namespace/name`. */
  readonly policy: string;
  readonly action: PolicyAction;
  /** It only appears in the log. */
  readonly dryRun: boolean;
  readonly matches: boolean;
  /** The rule that matches, else the one that comes nearest, from 1 on; `undefined`: it has none. */
  readonly rule: number | undefined;
  /** What that rule asks for and the connection has not; empty when it matches. */
  readonly missing: readonly string[];
}

export function explainPolicy(
  policy: AuthorizationPolicy,
  connection: RbacConnection,
): PolicyExplanation {
  const judged = prepareConnection(connection);
  const { action, dryRun, rules } = policy;
  const head = { policy: policyKey(policy), action, dryRun };
  const matching = rules.findIndex((rule) => ruleMatches(rule, judged));
  if (matching >= 0) return { ...head, matches: true, rule: matching + 1, missing: [] };
  const misses = rules.map((rule) => missesOf(rule, connection, judged));
  const nearest = indexOfShortest(misses);
  return {
    ...head,
    matches: false,
    rule: nearest < 0 ? undefined : nearest + 1,
    missing: misses[nearest] ?? ["it has no rule"],
  };
}

function missesOf(
  rule: PolicyRule,
  connection: RbacConnection,
  judged: JudgedConnection,
): string[] {
  return rule
    .filter((clause) => !clauseMatches(clause, judged))
    .flatMap((clause) => nearestOf(clause, connection, judged));
}

/** One match of a clause would do: the one that lacks least. */
function nearestOf(
  clause: PolicyClause,
  connection: RbacConnection,
  judged: JudgedConnection,
): readonly string[] {
  const misses = clause.map((match) => {
    const missing = CONDITIONS.filter(
      ({ field }) => match[field].length > 0 && !matchApplies(only(match, field), judged),
    );
    if (missing.length === 0) return ["it asks for something that is not known at this layer"];
    return missing.map(
      ({ field, what, isNot }) =>
        `${what(connection)} ${compare(match[field].length, isNot)} ${formatValues(match[field])}`,
    );
  });
  return misses[indexOfShortest(misses)] ?? [];
}

function compare(valueCount: number, isNot: boolean): string {
  if (valueCount === 1) return isNot ? "is" : "is not";
  return isNot ? "is one of" : "is none of";
}

type MatchField = keyof PolicyMatch;

interface Condition {
  readonly field: MatchField;
  /** What of the connection is compared. */
  readonly what: (connection: RbacConnection) => string;
  readonly isNot: boolean;
}

const UNPROVEN = "a source without an identity";

const CONDITIONS: readonly Condition[] = [
  ...both("namespaces", "notNamespaces", ({ sourceIdentity: who }) =>
    who === undefined ? UNPROVEN : `source namespace ${who.namespace}`,
  ),
  ...both("principals", "notPrincipals", ({ sourceIdentity: who }) =>
    who === undefined
      ? UNPROVEN
      : `source principal ${who.trustDomain}/ns/${who.namespace}/sa/${who.serviceAccount}`,
  ),
  ...both("serviceAccounts", "notServiceAccounts", ({ sourceIdentity: who }) =>
    who === undefined ? UNPROVEN : `source service account ${who.namespace}/${who.serviceAccount}`,
  ),
  ...both("sourceIps", "notSourceIps", ({ source }) => `source address ${source.ip}`),
  ...both(
    "destinationIps",
    "notDestinationIps",
    ({ destination }) => `destination address ${destination.ip}`,
  ),
  ...both(
    "destinationPorts",
    "notDestinationPorts",
    ({ destination }) => `destination port ${destination.port}`,
  ),
];

function both(is: MatchField, isNot: MatchField, what: Condition["what"]): readonly Condition[] {
  return [
    { field: is, what, isNot: false },
    { field: isNot, what, isNot: true },
  ];
}

/** The match as if it asked for nothing else. */
function only(match: PolicyMatch, field: MatchField): PolicyMatch {
  return { ...EMPTY_MATCH, [field]: match[field] };
}

function formatValues(values: PolicyMatch[MatchField]): string {
  return values.map(formatValue).join(", ");
}

function formatValue(value: StringMatch | ServiceAccountMatch | Cidr | number): string {
  if (typeof value === "number") return String(value);
  if ("prefixLength" in value) return `${value.ip}/${value.prefixLength}`;
  if ("serviceAccount" in value) return `${value.namespace}/${value.serviceAccount}`;
  switch (value.kind) {
    case "exact":
      return value.value;
    case "prefix":
      return `${value.value}*`;
    case "suffix":
      return `*${value.value}`;
    case "presence":
      return "*";
  }
}

/** @returns the first of the shortest; -1 for none. */
function indexOfShortest(lists: readonly (readonly string[])[]): number {
  const lengths = lists.map(({ length }) => length);
  return lengths.indexOf(Math.min(...lengths));
}
