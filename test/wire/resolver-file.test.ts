import assert from "node:assert/strict";
import { test } from "node:test";
import {
  candidateNames,
  hostsAddresses,
  parseSearchRules,
  type SearchRules,
} from "../../src/wire/resolver-file.ts";

const POD = `search mesh.svc.cluster.local svc.cluster.local cluster.local.
nameserver 10.96.0.10
options ndots:5 timeout:2
`;

const files: readonly [title: string, text: string, expected: SearchRules][] = [
  ["an empty file", "", { search: [], dotsMin: 1 }],
  [
    "a pod's",
    POD,
    { search: ["mesh.svc.cluster.local", "svc.cluster.local", "cluster.local"], dotsMin: 5 },
  ],
  [
    "the last of several lines, comments left out",
    "search a.example\n; search b\ndomain c.example # here\noptions ndots:2 ndots:99\n",
    { search: ["c.example"], dotsMin: 15 },
  ],
  ["words that nobody knows", "sortlist x\noptions ndots:x rotate\n", { search: [], dotsMin: 1 }],
];
for (const [title, text, expected] of files) {
  test(`search rules of ${title}`, () => assert.deepEqual(parseSearchRules(text), expected));
}

const RULES: SearchRules = { search: ["a.example", "example"], dotsMin: 2 };
const names: readonly [name: string, expected: readonly string[]][] = [
  ["db", ["db.a.example", "db.example", "db"]],
  ["db.prod", ["db.prod.a.example", "db.prod.example", "db.prod"]],
  ["db.prod.eu", ["db.prod.eu", "db.prod.eu.a.example", "db.prod.eu.example"]],
  ["db.", ["db"]],
];
for (const [name, expected] of names) {
  test(`what ${name} may mean, the likeliest first`, () =>
    assert.deepEqual(candidateNames(name, RULES), expected));
}

test("a hosts file gives a name all addresses of its lines", () => {
  const text = `127.0.0.1 localhost
# 10.0.0.1 db
10.0.0.2\tdb.example DB # the old one
fd00::2   db
10.0.0.300 db
`;
  assert.deepEqual(hostsAddresses(text, "Db"), ["10.0.0.2", "fd00::2"]);
  assert.deepEqual(hostsAddresses(text, "db.example."), ["10.0.0.2"]);
  assert.deepEqual(hostsAddresses(text, "old"), []);
});
