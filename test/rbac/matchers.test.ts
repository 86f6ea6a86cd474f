import assert from "node:assert/strict";
import { test } from "node:test";
import type { PolicyMatch, RbacConnection, StringMatch } from "../../src/mesh/authorization.ts";
import { parseSpiffeId } from "../../src/mesh/identity.ts";
import { policyMatches, prepareConnection } from "../../src/rbac/matchers.ts";
import { address, cidr, match, mesh } from "../support/mesh-fixture.ts";

const base = {
  source: address("127.0.0.1:1234"),
  destination: address("127.0.0.2:8080"),
  destinationNetwork: "",
};
const plaintext: RbacConnection = { ...base, sourceIdentity: undefined };
const peer: RbacConnection = {
  ...base,
  sourceIdentity: parseSpiffeId("spiffe://td/ns/shop/sa/web"),
};
const otherPeer: RbacConnection = {
  ...base,
  sourceIdentity: parseSpiffeId("spiffe://td2/ns/ops/sa/probe"),
};

function applies(policy: Parameters<typeof policyMatches>[0], connection: RbacConnection): boolean {
  return policyMatches(policy, prepareConnection(connection));
}

const exact = (value: string): StringMatch => ({ kind: "exact", value });
const PRESENCE: StringMatch = { kind: "presence" };
const WEB = { namespace: "shop", serviceAccount: "web" };

type Row = [title: string, Partial<PolicyMatch>, plain: boolean, peer: boolean, other: boolean];
const kinds: readonly Row[] = [
  ["namespaces", { namespaces: [exact("shop")] }, false, true, false],
  ["any of the namespaces", { namespaces: [exact("x"), exact("ops")] }, false, false, true],
  ["any namespace", { namespaces: [PRESENCE] }, false, true, true],
  ["the empty namespace of a plaintext peer", { namespaces: [exact("")] }, true, false, false],
  ["notNamespaces", { notNamespaces: [exact("shop")] }, true, false, true],
  ["no namespace at all", { notNamespaces: [PRESENCE] }, true, false, false],
  ["principals", { principals: [exact("td/ns/shop/sa/web")] }, false, true, false],
  [
    "principals with their scheme",
    { principals: [exact("spiffe://td/ns/shop/sa/web")] },
    false,
    false,
    false,
  ],
  ["any principal", { principals: [PRESENCE] }, false, true, true],
  ["notPrincipals", { notPrincipals: [exact("td/ns/shop/sa/web")] }, true, false, true],
  ["no principal at all (strict mutual TLS)", { notPrincipals: [PRESENCE] }, true, false, false],
  ["serviceAccounts", { serviceAccounts: [WEB] }, false, true, false],
  [
    "serviceAccounts of another namespace",
    { serviceAccounts: [{ ...WEB, namespace: "ops" }] },
    false,
    false,
    false,
  ],
  ["notServiceAccounts", { notServiceAccounts: [WEB] }, true, false, true],
  ["sourceIps", { sourceIps: [cidr("127.0.0.0/24")] }, true, true, true],
  ["sourceIps elsewhere", { sourceIps: [cidr("127.0.1.0/24")] }, false, false, false],
  ["sourceIps of the other family", { sourceIps: [cidr("::/0")] }, false, false, false],
  ["notSourceIps", { notSourceIps: [cidr("127.0.0.1/32")] }, false, false, false],
  ["notSourceIps elsewhere", { notSourceIps: [cidr("127.0.0.2/32")] }, true, true, true],
  ["destinationIps", { destinationIps: [cidr("127.0.0.2/32")] }, true, true, true],
  ["destinationIps elsewhere", { destinationIps: [cidr("127.0.0.1/32")] }, false, false, false],
  ["notDestinationIps", { notDestinationIps: [cidr("127.0.0.2/31")] }, false, false, false],
  ["notDestinationIps elsewhere", { notDestinationIps: [cidr("10.0.0.0/8")] }, true, true, true],
  ["destinationPorts", { destinationPorts: [1, 8080] }, true, true, true],
  ["other destinationPorts", { destinationPorts: [1] }, false, false, false],
  ["notDestinationPorts", { notDestinationPorts: [8080] }, false, false, false],
  ["other notDestinationPorts", { notDestinationPorts: [1] }, true, true, true],
  ["kinds together", { namespaces: [exact("shop")], destinationPorts: [8080] }, false, true, false],
  [
    "kinds of which one fails",
    { namespaces: [exact("shop")], destinationPorts: [1] },
    false,
    false,
    false,
  ],
  [
    "a kind and its opposite",
    { namespaces: [PRESENCE], notNamespaces: [exact("ops")] },
    false,
    true,
    false,
  ],
  ["nothing", {}, false, false, false],
];
for (const [title, fields, ...expected] of kinds) {
  test(`a match that asks for ${title} applies to the right peers`, () => {
    const policy = mesh.allow("p").rule(fields).value;
    const found = [plaintext, peer, otherPeer].map((connection) => applies(policy, connection));
    assert.deepEqual(found, expected);
  });
}

test("IPv6 ranges match IPv6 addresses", () => {
  const connection = {
    ...plaintext,
    source: address("[fd00::1]:1"),
    destination: address("[fd01::1]:1"),
  };
  const of = (fields: Partial<PolicyMatch>): boolean =>
    applies(mesh.allow("p").rule(fields).value, connection);
  assert.equal(of({ sourceIps: [cidr("fd00::/16")] }), true);
  assert.equal(
    of({ sourceIps: [cidr("fd00::/127")], destinationIps: [cidr("fd01::1/128")] }),
    true,
  );
  assert.equal(of({ sourceIps: [cidr("fd01::/16")] }), false);
  assert.equal(of({ sourceIps: [cidr("0.0.0.0/0")] }), false);
});

const texts: readonly [StringMatch, string, boolean][] = [
  [exact("a"), "a", true],
  [exact("a"), "ab", false],
  [exact(""), "", true],
  [{ kind: "prefix", value: "td/ns/shop" }, "td/ns/shop/sa/web", true],
  [{ kind: "prefix", value: "td/ns/shop" }, "td/ns/sho", false],
  [{ kind: "prefix", value: "" }, "", true],
  [{ kind: "suffix", value: "/web" }, "td/ns/shop/sa/web", true],
  [{ kind: "suffix", value: "/web" }, "td/ns/shop/sa/web2", false],
  [{ kind: "suffix", value: "" }, "x", true],
  [PRESENCE, "x", true],
  [PRESENCE, "", false],
];
for (const [matcher, namespace, expected] of texts) {
  const value = matcher.kind === "presence" ? "" : matcher.value;
  const outcome = expected ? "matches" : "does not match";
  test(`${matcher.kind} "${value}" ${outcome} "${namespace}"`, () => {
    const sourceIdentity = { trustDomain: "td", namespace, serviceAccount: "sa" };
    const policy = mesh.allow("p").rule({ namespaces: [matcher] }).value;
    assert.equal(applies(policy, { ...base, sourceIdentity }), expected);
  });
}

const HIT = match({ destinationPorts: [8080] });
const MISS = match({ destinationPorts: [1] });
const NOTHING = match({});
const shapes: readonly [string, PolicyMatch[][][], boolean][] = [
  ["no rules", [], false],
  ["a rule without clauses", [[]], true],
  ["a clause without matches", [[[]]], true],
  ["a match that asks nothing", [[[NOTHING]]], false],
  ["a match that asks nothing beside one that applies", [[[NOTHING, HIT]]], true],
  ["matches of which one applies", [[[MISS, HIT]]], true],
  ["clauses that all apply", [[[HIT], [HIT]]], true],
  ["clauses of which one fails", [[[HIT], [MISS]]], false],
  ["a failing clause beside an empty one", [[[], [MISS]]], false],
  ["the same clause twice", [[[HIT], [HIT], [HIT]]], true],
  ["rules of which one applies", [[[MISS]], [[HIT]]], true],
  ["rules that all fail", [[[MISS]], [[MISS]]], false],
  ["a failing rule beside an empty one", [[[MISS]], []], true],
];
for (const [title, rules, expected] of shapes) {
  test(`a policy with ${title}: it ${expected ? "matches" : "does not match"}`, () => {
    assert.equal(applies(mesh.allow("p").with({ rules }).value, plaintext), expected);
  });
}

test("a port exception to strict mutual TLS lets plaintext reach that port only", () => {
  const strict = mesh.deny("strict").with({
    rules: [[[match({ notPrincipals: [PRESENCE] })], [match({ notDestinationPorts: [8080] })]]],
  }).value;
  assert.equal(applies(strict, plaintext), false);
  assert.equal(applies(strict, { ...plaintext, destination: address("127.0.0.2:9090") }), true);
  assert.equal(applies(strict, { ...peer, destination: address("127.0.0.2:9090") }), false);
});
