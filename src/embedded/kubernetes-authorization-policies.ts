/**
 * Authorization policies as what is left of them on layer 4.
 *
 * A rule that asks for something of HTTP allows nothing and denies without it, as with istiod: more
 * is denied than was meant, never less.
 *
 * @see istio pilot/pkg/serviceregistry/ambient/authorization.go
 */
import {
  Action,
  type Address,
  type Authorization,
  type Clause,
  Match,
  type Rule,
  Scope,
  type ServiceAccountMatch,
  type StringMatch,
} from "../wire/proto/istio-security.ts";
import { parseRange } from "./kubernetes-addresses.ts";
import type { KubernetesFields, Labels } from "./kubernetes-fields.ts";
import { isYes, type KubernetesMetadata } from "./kubernetes-metadata.ts";

const DRY_RUN_ANNOTATION = "istio.io/dry-run";
const PORT_MAX = 65535;
const HTTP_OPERATIONS = ["hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"];
const HTTP_SOURCES = [
  "remoteIpBlocks",
  "notRemoteIpBlocks",
  "requestPrincipals",
  "notRequestPrincipals",
];

/** A policy with the workloads that it is for. */
export interface SelectingPolicy {
  readonly message: Authorization;
  /** Empty for a policy that names no labels: its scope says for whom it is. */
  readonly selector: Labels;
}

export interface PolicyOptions {
  readonly rootNamespace: string;
  /** Whether policies that only report what they would do are passed on. */
  readonly dryRunPolicies: boolean;
}

/**
 * @returns `undefined` for a policy that is none of a proxy's on layer 4: for a waypoint, or of an
 *   action other than to allow or deny.
 */
export function readAuthorizationPolicy(
  metadata: KubernetesMetadata,
  fields: KubernetesFields,
  options: PolicyOptions,
): SelectingPolicy | undefined {
  const { name, namespace, annotations } = metadata;
  const spec = fields.fields("spec");
  const action = spec.choice("action", ["ALLOW", "DENY", "AUDIT", "CUSTOM"], "ALLOW");
  const dryRun = isYes(annotations, DRY_RUN_ANNOTATION);
  if (spec.has("targetRef") || spec.list("targetRefs").length > 0) return undefined;
  if ((action !== "ALLOW" && action !== "DENY") || (dryRun && !options.dryRunPolicies)) {
    return undefined;
  }
  const rules = spec.list("rules").flatMap((rule): Rule[] => {
    const { clauses, asksForHttp } = readRule(rule, namespace);
    return asksForHttp && action === "ALLOW" ? [] : [{ clauses }];
  });
  const message: Authorization = {
    name,
    namespace,
    scope: scopeOf(spec, namespace === options.rootNamespace),
    action: Action[action],
    rules,
    dryRun,
    extensions: [],
  };
  return { message, selector: spec.fields("selector").labels("matchLabels") };
}

function scopeOf(spec: KubernetesFields, isRoot: boolean): Scope {
  if (spec.has("selector")) return Scope.WORKLOAD_SELECTOR;
  return isRoot ? Scope.GLOBAL : Scope.NAMESPACE;
}

/** All clauses of a rule must hold: one of `to`, one of `from`, each of `when`. */
function readRule(
  rule: KubernetesFields,
  namespace: string,
): { clauses: Clause[]; asksForHttp: boolean } {
  const operations = rule.list("to").map((item) => item.fields("operation"));
  const sources = rule.list("from").map((item) => item.fields("source"));
  const conditions = rule.list("when").map(readCondition);
  const clauses = [
    { matches: operations.map(readOperation) },
    { matches: sources.map((source) => readSource(source, namespace)) },
  ].filter(({ matches }) => matches.length > 0);
  const asksForHttp =
    operations.some((operation) => hasAny(operation, HTTP_OPERATIONS)) ||
    sources.some((source) => hasAny(source, HTTP_SOURCES)) ||
    conditions.some((match) => match === undefined);
  const others = conditions.map((match) => ({ matches: [match ?? NO_MATCH] }));
  return { clauses: [...clauses, ...others], asksForHttp };
}

function readOperation(fields: KubernetesFields): Match {
  return {
    ...NO_MATCH,
    destinationPorts: readPorts(fields, "ports"),
    notDestinationPorts: readPorts(fields, "notPorts"),
  };
}

function readSource(fields: KubernetesFields, namespace: string): Match {
  return {
    ...NO_MATCH,
    sourceIps: readRanges(fields, "ipBlocks"),
    notSourceIps: readRanges(fields, "notIpBlocks"),
    namespaces: readStringMatches(fields, "namespaces"),
    notNamespaces: readStringMatches(fields, "notNamespaces"),
    serviceAccounts: readServiceAccounts(fields, "serviceAccounts", namespace),
    notServiceAccounts: readServiceAccounts(fields, "notServiceAccounts", namespace),
    principals: readStringMatches(fields, "principals"),
    notPrincipals: readStringMatches(fields, "notPrincipals"),
  };
}

/** @returns `undefined` for what only HTTP can tell. */
function readCondition(fields: KubernetesFields): Match | undefined {
  switch (fields.text("key")) {
    case "source.namespace":
      return {
        ...NO_MATCH,
        namespaces: readStringMatches(fields, "values"),
        notNamespaces: readStringMatches(fields, "notValues"),
      };
    case "source.principal":
      return {
        ...NO_MATCH,
        principals: readStringMatches(fields, "values"),
        notPrincipals: readStringMatches(fields, "notValues"),
      };
    case "source.ip":
      return {
        ...NO_MATCH,
        sourceIps: readRanges(fields, "values"),
        notSourceIps: readRanges(fields, "notValues"),
      };
    case "destination.ip":
      return {
        ...NO_MATCH,
        destinationIps: readRanges(fields, "values"),
        notDestinationIps: readRanges(fields, "notValues"),
      };
    case "destination.port":
      return {
        ...NO_MATCH,
        destinationPorts: readPorts(fields, "values"),
        notDestinationPorts: readPorts(fields, "notValues"),
      };
    default:
      return undefined;
  }
}

function readPorts(fields: KubernetesFields, key: string): number[] {
  return readEach(fields, key, "a port", (text) => {
    const port = Number(text);
    return /^\d{1,5}$/.test(text) && port <= PORT_MAX ? port : undefined;
  });
}

function readRanges(fields: KubernetesFields, key: string): Address[] {
  return readEach(fields, key, "an IP address or range", (text) => {
    const range = parseRange(text);
    return range && { address: range.bytes, length: range.prefixLength };
  });
}

function readEach<Value>(
  fields: KubernetesFields,
  key: string,
  expected: string,
  parse: (text: string) => Value | undefined,
): Value[] {
  return fields.texts(key).flatMap((text) => {
    const value = parse(text);
    if (value === undefined) fields.mistake(key, `must be ${expected}, not ${text}`);
    return value ?? [];
  });
}

/** `*` is any but none, `*x` ends so, `x*` begins so. */
function readStringMatches(fields: KubernetesFields, key: string): StringMatch[] {
  return fields.texts(key).map((text): StringMatch => {
    if (text === "*") return { matchType: { $case: "presence", value: {} } };
    if (text.startsWith("*")) return { matchType: { $case: "suffix", value: text.slice(1) } };
    if (text.endsWith("*")) return { matchType: { $case: "prefix", value: text.slice(0, -1) } };
    return { matchType: { $case: "exact", value: text } };
  });
}

/** `namespace/name`, or a name in the policy's own namespace. */
function readServiceAccounts(
  fields: KubernetesFields,
  key: string,
  ownNamespace: string,
): ServiceAccountMatch[] {
  return fields.texts(key).map((text) => {
    const slash = text.indexOf("/");
    return slash < 0
      ? { namespace: ownNamespace, serviceAccount: text }
      : { namespace: text.slice(0, slash), serviceAccount: text.slice(slash + 1) };
  });
}

function hasAny(fields: KubernetesFields, keys: readonly string[]): boolean {
  return keys.some((key) => fields.texts(key).length > 0);
}

/** Matches nothing by itself. */
export const NO_MATCH: Readonly<Match> = Match.decode(new Uint8Array());
