/**
 * Authorization policies as xDS resources: bytes of an `istio.security.Authorization` ⇄ the mesh's noun.
 *
 * The original drops what it can't read inside a policy, and what is left may allow more than was
 * meant. Here such a policy is refused as a whole.
 *
 * @see spec control-plane 2.2, trap 12.
 */
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import type {
  AuthorizationPolicy,
  PolicyAction,
  PolicyMatch,
  PolicyScope,
  StringMatch,
} from "../mesh/authorization.ts";
import { type Cidr, makeCidr } from "../mesh/cidr.ts";
import { ipAddressFromBytes, ipAddressToBytes } from "../mesh/ip-address.ts";
import { type EnumNames, enumName, enumNumber } from "./enum-names.ts";
import { decodeMessage, encodeMessage } from "./message-codec.ts";
import * as proto from "./proto/istio-security.ts";
import { WireError } from "./wire-error.ts";

const SCOPES: EnumNames<PolicyScope> = ["Global", "Namespace", "WorkloadSelector"];
const ACTIONS: EnumNames<PolicyAction> = ["Allow", "Deny"];

/** Of `istio.security.Authorization`. */
const SCOPE_FIELD = 3;

/** @throws WireError with the reason that a control plane is told. */
export function decodeAuthorization(bytes: Uint8Array): AuthorizationPolicy {
  const message = decodeMessage("Authorization", proto.Authorization, bytes);
  return {
    name: message.name,
    namespace: message.namespace,
    scope: enumName("policy scope", SCOPES, message.scope),
    action: enumName("policy action", ACTIONS, message.action),
    dryRun: message.dryRun,
    rules: message.rules.map(({ clauses }) => clauses.map(({ matches }) => matches.map(toMatch))),
  };
}

/**
 * To whom a policy applies that is not understood otherwise.
 *
 * @returns `undefined` when not even that can be read.
 */
export function readPolicyScope(bytes: Uint8Array): PolicyScope | undefined {
  try {
    const reader = new BinaryReader(bytes);
    let scope = 0;
    while (reader.pos < reader.len) {
      const [field, type] = reader.tag();
      // Encoders write fields by number, and what is not understood is mostly among the rules.
      if (field > SCOPE_FIELD) break;
      if (field === SCOPE_FIELD && type === WireType.Varint) scope = reader.uint32();
      else reader.skip(type, field);
    }
    return reader.pos > reader.len ? undefined : SCOPES[scope];
  } catch {
    return undefined;
  }
}

/** Decodes to an equal value. */
export function encodeAuthorization(policy: AuthorizationPolicy): Uint8Array {
  const message: proto.Authorization = {
    name: policy.name,
    namespace: policy.namespace,
    scope: enumNumber(SCOPES, policy.scope),
    action: enumNumber(ACTIONS, policy.action),
    dryRun: policy.dryRun,
    rules: policy.rules.map((clauses) => ({
      clauses: clauses.map((matches) => ({ matches: matches.map(fromMatch) })),
    })),
    extensions: [],
  };
  return encodeMessage(proto.Authorization, message);
}

function toMatch(message: proto.Match): PolicyMatch {
  return {
    namespaces: message.namespaces.map(toStringMatch),
    notNamespaces: message.notNamespaces.map(toStringMatch),
    principals: message.principals.map(toStringMatch),
    notPrincipals: message.notPrincipals.map(toStringMatch),
    serviceAccounts: message.serviceAccounts,
    notServiceAccounts: message.notServiceAccounts,
    sourceIps: message.sourceIps.map(toCidr),
    notSourceIps: message.notSourceIps.map(toCidr),
    destinationIps: message.destinationIps.map(toCidr),
    notDestinationIps: message.notDestinationIps.map(toCidr),
    destinationPorts: message.destinationPorts.map(toPort),
    notDestinationPorts: message.notDestinationPorts.map(toPort),
  };
}

function fromMatch(match: PolicyMatch): proto.Match {
  return {
    namespaces: match.namespaces.map(fromStringMatch),
    notNamespaces: match.notNamespaces.map(fromStringMatch),
    principals: match.principals.map(fromStringMatch),
    notPrincipals: match.notPrincipals.map(fromStringMatch),
    serviceAccounts: [...match.serviceAccounts],
    notServiceAccounts: [...match.notServiceAccounts],
    sourceIps: match.sourceIps.map(fromCidr),
    notSourceIps: match.notSourceIps.map(fromCidr),
    destinationIps: match.destinationIps.map(fromCidr),
    notDestinationIps: match.notDestinationIps.map(fromCidr),
    destinationPorts: [...match.destinationPorts],
    notDestinationPorts: [...match.notDestinationPorts],
    extensions: [],
  };
}

function toStringMatch({ matchType }: proto.StringMatch): StringMatch {
  switch (matchType?.$case) {
    case "exact":
    case "prefix":
    case "suffix":
      return { kind: matchType.$case, value: matchType.value };
    case "presence":
      return { kind: "presence" };
    case undefined:
      // A later version of the API may compare in a way that is not known here.
      throw new WireError("unknown", "string match of an unknown kind");
  }
}

function fromStringMatch(match: StringMatch): proto.StringMatch {
  return {
    matchType:
      match.kind === "presence"
        ? { $case: "presence", value: {} }
        : { $case: match.kind, value: match.value },
  };
}

function toCidr({ address, length }: proto.Address): Cidr {
  const ip = ipAddressFromBytes(address);
  const cidr = ip === undefined ? undefined : makeCidr(ip, length);
  if (cidr !== undefined) return cidr;
  const text = ip ?? `${address.length} bytes`;
  throw new WireError("malformed", `invalid cidr: ${text}/${length}`);
}

function fromCidr({ ip, prefixLength }: Cidr): proto.Address {
  return { address: ipAddressToBytes(ip), length: prefixLength };
}

/** The wire has 32 bits for a port; the original cuts off what does not fit. */
function toPort(value: number): number {
  return value & 0xffff;
}
