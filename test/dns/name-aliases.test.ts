import assert from "node:assert/strict";
import { test } from "node:test";
import { kubernetesNames, nameAliases, wildcardsOf } from "../../src/dns/name-aliases.ts";

const SCOPE = { namespace: "ns1", clusterDomain: "cluster.local", searchDomains: undefined };

const expansions: readonly [name: string, expected: readonly string[]][] = [
  ["", []],
  ["echo", ["echo.ns1.svc.cluster.local"]],
  ["echo.ns2", ["echo.ns2.svc.cluster.local", "echo.ns2.ns1.svc.cluster.local"]],
  ["echo.ns2.svc", ["echo.ns2.svc.cluster.local", "echo.ns2.svc.svc.cluster.local"]],
  ["pod-0.echo.ns2", ["pod-0.echo.ns2.svc.cluster.local"]],
  ["pod-0.echo.ns2.svc", ["pod-0.echo.ns2.svc.cluster.local"]],
  ["a.b.c.d", []],
  ["a.b.c.d.svc", []],
  ["echo.ns2.svc.cluster.local", []],
];
for (const [name, expected] of expansions) {
  test(`${name || "the root"} may be short for ${expected.join(", ") || "nothing"}`, () =>
    assert.deepEqual(kubernetesNames(name, SCOPE), expected));
}

const aliases: readonly [name: string, expected: readonly string[]][] = [
  ["echo", ["echo", "echo.ns1.svc.cluster.local"]],
  // The last three: what resolvers make of `www.example.com` and `echo.ns2` with ndots:5.
  [
    "www.example.com.ns1.svc.cluster.local",
    [
      "www.example.com.ns1.svc.cluster.local",
      "www.example.com ← www.example.com",
      "www.example.com.svc.cluster.local ← www.example.com",
      "www.example.com.ns1 ← www.example.com.ns1",
      "www.example.com.ns1.svc ← www.example.com.ns1.svc",
    ],
  ],
  [
    "echo.ns2.svc.cluster.local",
    [
      "echo.ns2.svc.cluster.local",
      "echo.ns2 ← echo.ns2",
      "echo.ns2.ns1.svc.cluster.local ← echo.ns2",
      "echo.ns2.svc ← echo.ns2.svc",
      "echo.ns2.svc.svc.cluster.local ← echo.ns2.svc",
    ],
  ],
  [
    "cluster.local",
    ["cluster.local", "cluster.local.svc.cluster.local", "cluster.local.ns1.svc.cluster.local"],
  ],
  ["xcluster.local.a.b.c", ["xcluster.local.a.b.c"]],
];
for (const [name, expected] of aliases) {
  test(`the meanings of ${name} in their order`, () => {
    const found = nameAliases(name, SCOPE).map(({ name: alias, stripped }) =>
      stripped === undefined ? alias : `${alias} ← ${stripped}`,
    );
    assert.deepEqual(found, expected);
  });
}

test("a workload of its own searches where its resolv.conf says", () => {
  const scope = { ...SCOPE, searchDomains: ["corp.example"] };
  assert.deepEqual(
    nameAliases("db.prod.corp.example", scope).map(({ name }) => name),
    [
      "db.prod.corp.example",
      "db.prod",
      "db.prod.svc.cluster.local",
      "db.prod.ns1.svc.cluster.local",
    ],
  );
});

test("wildcards go from the most special to the least", () => {
  assert.deepEqual(wildcardsOf("a.b.c"), ["*.b.c", "*.c"]);
  assert.deepEqual(wildcardsOf("a"), []);
});
