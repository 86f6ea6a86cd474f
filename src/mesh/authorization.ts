/**
 * Authorization policies and the connection they judge.
 *
 * @see spec control-plane 2.2 and 4.
 */
import type { Cidr } from "./cidr.ts";
import type { Identity } from "./identity.ts";
import type { SocketAddress } from "./socket-address.ts";

export type StringMatch =
  | { readonly kind: "exact"; readonly value: string }
  | { readonly kind: "prefix"; readonly value: string }
  | { readonly kind: "suffix"; readonly value: string }
  | { readonly kind: "presence" };

export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** Kinds AND together, values of one kind OR; an empty list is "not asked". */
export interface PolicyMatch {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  /** Compared without the `spiffe://` prefix. */
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
  readonly sourceIps: readonly Cidr[];
  readonly notSourceIps: readonly Cidr[];
  readonly destinationIps: readonly Cidr[];
  readonly notDestinationIps: readonly Cidr[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
}

/** What a match is made from. By itself it matches no connection. @see spec control-plane 12, trap 10 */
export const EMPTY_MATCH: PolicyMatch = {
  namespaces: [],
  notNamespaces: [],
  principals: [],
  notPrincipals: [],
  serviceAccounts: [],
  notServiceAccounts: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
  destinationPorts: [],
  notDestinationPorts: [],
};

/** OR of matches. */
export type PolicyClause = readonly PolicyMatch[];
/** AND of clauses. */
export type PolicyRule = readonly PolicyClause[];

export type PolicyScope = "Global" | "Namespace" | "WorkloadSelector";
export type PolicyAction = "Allow" | "Deny";

export interface AuthorizationPolicy {
  readonly name: string;
  readonly namespace: string;
  readonly scope: PolicyScope;
  readonly action: PolicyAction;
  readonly dryRun: boolean;
  /** OR of rules. No rule at all never matches. */
  readonly rules: readonly PolicyRule[];
}

/** `namespace/name`, the xDS name of the policy. */
export function policyKey(policy: AuthorizationPolicy): string {
  return `${policy.namespace}/${policy.name}`;
}

/** What a policy sees of an inbound connection. */
export interface RbacConnection {
  readonly source: SocketAddress;
  /** From the client certificate; `undefined` for plaintext. */
  readonly sourceIdentity: Identity | undefined;
  /** The resolved application address, never port 15008. */
  readonly destination: SocketAddress;
  readonly destinationNetwork: string;
}
