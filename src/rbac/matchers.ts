/**
 * Whether one match, clause, rule or policy applies to a connection.
 *
 * A connection is prepared once and then compared with any number of policies; comparing allocates
 * nothing.
 *
 * @see spec control-plane 4.3.
 */
import type {
  AuthorizationPolicy,
  PolicyClause,
  PolicyMatch,
  PolicyRule,
  RbacConnection,
  ServiceAccountMatch,
  StringMatch,
} from "../mesh/authorization.ts";
import { type Cidr, cidrContainsBytes } from "../mesh/cidr.ts";
import type { Identity } from "../mesh/identity.ts";
import { ipAddressToBytes } from "../mesh/ip-address.ts";

/** A connection in the form in which policies look at it. */
export interface JudgedConnection {
  readonly identity: Identity | undefined;
  /** Empty without an identity. */
  readonly namespace: string;
  /** The SPIFFE id without its scheme; `undefined` without an identity. */
  readonly principal: string | undefined;
  /** 4 or 16 bytes, network order. */
  readonly sourceIp: Uint8Array;
  /** 4 or 16 bytes, network order. */
  readonly destinationIp: Uint8Array;
  readonly destinationPort: number;
}

export function prepareConnection(connection: RbacConnection): JudgedConnection {
  const identity = connection.sourceIdentity;
  return {
    identity,
    namespace: identity?.namespace ?? "",
    principal: identity === undefined ? undefined : principalOf(identity),
    sourceIp: ipAddressToBytes(connection.source.ip),
    destinationIp: ipAddressToBytes(connection.destination.ip),
    destinationPort: connection.destination.port,
  };
}

/** True when any rule applies; a policy without rules never does. */
export function policyMatches(policy: AuthorizationPolicy, connection: JudgedConnection): boolean {
  for (const rule of policy.rules) if (ruleMatches(rule, connection)) return true;
  return false;
}

/** All clauses; none means always. */
export function ruleMatches(rule: PolicyRule, connection: JudgedConnection): boolean {
  for (const clause of rule) if (!clauseMatches(clause, connection)) return false;
  return true;
}

/** Any match; none means always. */
export function clauseMatches(clause: PolicyClause, connection: JudgedConnection): boolean {
  if (clause.length === 0) return true;
  for (const match of clause) if (matchApplies(match, connection)) return true;
  return false;
}

/** All kinds that are asked for; a match that asks nothing never applies. */
export function matchApplies(match: PolicyMatch, c: JudgedConnection): boolean {
  let isAsked = false;
  if (match.namespaces.length > 0) {
    if (!anyText(match.namespaces, c.namespace)) return false;
    isAsked = true;
  }
  if (match.notNamespaces.length > 0) {
    if (anyText(match.notNamespaces, c.namespace)) return false;
    isAsked = true;
  }
  if (match.principals.length > 0) {
    if (!anyPrincipal(match.principals, c.principal)) return false;
    isAsked = true;
  }
  if (match.notPrincipals.length > 0) {
    if (anyPrincipal(match.notPrincipals, c.principal)) return false;
    isAsked = true;
  }
  if (match.serviceAccounts.length > 0) {
    if (!anyServiceAccount(match.serviceAccounts, c.identity)) return false;
    isAsked = true;
  }
  if (match.notServiceAccounts.length > 0) {
    if (anyServiceAccount(match.notServiceAccounts, c.identity)) return false;
    isAsked = true;
  }
  if (match.sourceIps.length > 0) {
    if (!anyRange(match.sourceIps, c.sourceIp)) return false;
    isAsked = true;
  }
  if (match.notSourceIps.length > 0) {
    if (anyRange(match.notSourceIps, c.sourceIp)) return false;
    isAsked = true;
  }
  if (match.destinationIps.length > 0) {
    if (!anyRange(match.destinationIps, c.destinationIp)) return false;
    isAsked = true;
  }
  if (match.notDestinationIps.length > 0) {
    if (anyRange(match.notDestinationIps, c.destinationIp)) return false;
    isAsked = true;
  }
  if (match.destinationPorts.length > 0) {
    if (!match.destinationPorts.includes(c.destinationPort)) return false;
    isAsked = true;
  }
  if (match.notDestinationPorts.length > 0) {
    if (match.notDestinationPorts.includes(c.destinationPort)) return false;
    isAsked = true;
  }
  return isAsked;
}

function anyText(matches: readonly StringMatch[], text: string): boolean {
  for (const match of matches) if (textMatches(match, text)) return true;
  return false;
}

/** A peer without an identity has no principal, not an empty one. */
function anyPrincipal(matches: readonly StringMatch[], principal: string | undefined): boolean {
  return principal !== undefined && anyText(matches, principal);
}

function textMatches(match: StringMatch, text: string): boolean {
  switch (match.kind) {
    case "exact":
      return text === match.value;
    case "prefix":
      return text.startsWith(match.value);
    case "suffix":
      return text.endsWith(match.value);
    case "presence":
      return text !== "";
  }
}

/** The trust domain is not compared. */
function anyServiceAccount(
  matches: readonly ServiceAccountMatch[],
  identity: Identity | undefined,
): boolean {
  if (identity === undefined) return false;
  for (const { namespace, serviceAccount } of matches) {
    if (identity.namespace === namespace && identity.serviceAccount === serviceAccount) return true;
  }
  return false;
}

function anyRange(ranges: readonly Cidr[], ip: Uint8Array): boolean {
  for (const range of ranges) if (cidrContainsBytes(range, ip)) return true;
  return false;
}

function principalOf(identity: Identity): string {
  return `${identity.trustDomain}/ns/${identity.namespace}/sa/${identity.serviceAccount}`;
}
