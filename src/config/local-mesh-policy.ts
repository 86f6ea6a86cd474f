/** Authorization policies of the mesh file, with string matches as YAML tags (`!Exact x`). */
import type {
  AuthorizationPolicy,
  PolicyMatch,
  ServiceAccountMatch,
  StringMatch,
} from "../mesh/authorization.ts";
import type { Cidr } from "../mesh/cidr.ts";
import { PORT_MAX, readCidr, requiredText } from "./local-mesh-values.ts";
import type { YamlRecord, YamlValue } from "./yaml-record.ts";

export function readPolicy(value: YamlValue): AuthorizationPolicy {
  return value.record((record) => ({
    name: requiredText(record, "name"),
    namespace: requiredText(record, "namespace"),
    scope: record.required(
      "scope",
      (text) => text.oneOf(["Global", "Namespace", "WorkloadSelector"]),
      "Global",
    ),
    action: record.required("action", (text) => text.oneOf(["Allow", "Deny"]), "Allow"),
    dryRun: record.required("dryRun", (flag) => flag.flag(), false),
    rules: record.required(
      "rules",
      (rules) =>
        rules.list((rule) => rule.list((clause) => clause.list((match) => readMatch(match)))),
      [],
    ),
  }));
}

function readMatch(value: YamlValue): PolicyMatch {
  return value.record((record) => ({
    namespaces: readStringMatches(record, "namespaces"),
    notNamespaces: readStringMatches(record, "notNamespaces"),
    principals: readStringMatches(record, "principals"),
    notPrincipals: readStringMatches(record, "notPrincipals"),
    serviceAccounts: readServiceAccounts(record, "serviceAccounts"),
    notServiceAccounts: readServiceAccounts(record, "notServiceAccounts"),
    sourceIps: readCidrs(record, "sourceIps"),
    notSourceIps: readCidrs(record, "notSourceIps"),
    destinationIps: readCidrs(record, "destinationIps"),
    notDestinationIps: readCidrs(record, "notDestinationIps"),
    destinationPorts: readPortList(record, "destinationPorts"),
    notDestinationPorts: readPortList(record, "notDestinationPorts"),
  }));
}

function readStringMatches(record: YamlRecord, key: string): StringMatch[] {
  return record.optional(key, (list) => list.list(readStringMatch)) ?? [];
}

function readStringMatch(value: YamlValue): StringMatch | undefined {
  switch (value.tag ?? "") {
    case "!Exact":
      return { kind: "exact", value: value.taggedText() };
    case "!Prefix":
      return { kind: "prefix", value: value.taggedText() };
    case "!Suffix":
      return { kind: "suffix", value: value.taggedText() };
    case "!Presence":
      if (!value.isTagAlone) value.mistake("!Presence takes nothing but []");
      return { kind: "presence" };
    default:
      value.mistake("must be written as !Exact text, !Prefix text, !Suffix text or !Presence []");
      return undefined;
  }
}

function readServiceAccounts(record: YamlRecord, key: string): ServiceAccountMatch[] {
  return (
    record.optional(key, (list) =>
      list.list((value) =>
        value.record((account) => ({
          namespace: requiredText(account, "namespace"),
          serviceAccount: requiredText(account, "serviceAccount"),
        })),
      ),
    ) ?? []
  );
}

function readCidrs(record: YamlRecord, key: string): Cidr[] {
  return record.optional(key, (list) => list.list(readCidr)) ?? [];
}

function readPortList(record: YamlRecord, key: string): number[] {
  return record.optional(key, (list) => list.list((port) => port.integer(PORT_MAX))) ?? [];
}
