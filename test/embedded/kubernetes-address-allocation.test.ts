import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type AllocatedAddresses,
  allocateAddresses,
} from "../../src/embedded/kubernetes-address-allocation.ts";
import { meshOf } from "./translated-mesh.ts";

const NOTHING: AllocatedAddresses = new Map();

function addresses(allocated: AllocatedAddresses): Record<string, string> {
  return Object.fromEntries(Array.from(allocated, ([key, ips]) => [key, ips.join(" ")]));
}

test("hosts get one address after another of each family", () => {
  const keys = Array.from({ length: 257 }, (_, index) => `h${index + 1}`);
  const made = addresses(allocateAddresses(keys, NOTHING, new Set()));
  assert.equal(made["h1"], "240.240.0.1 2001:2::1");
  assert.equal(made["h2"], "240.240.0.2 2001:2::2");
  assert.equal(made["h257"], "240.240.1.1 2001:2::101");
});

test("a host keeps its addresses, whoever comes before it", () => {
  const before = allocateAddresses(["b"], NOTHING, new Set());
  const made = addresses(allocateAddresses(["a", "b"], before, new Set()));
  assert.deepEqual(made, { b: "240.240.0.1 2001:2::1", a: "240.240.0.2 2001:2::2" });
});

test("addresses that somebody wrote down are passed over, in either family", () => {
  const taken = new Set(["240.240.0.1", "2001:2::2"]);
  assert.deepEqual(addresses(allocateAddresses(["a"], NOTHING, taken)), {
    a: "240.240.0.3 2001:2::3",
  });
});

test("hosts for which nothing is left go without", () => {
  const keys = Array.from({ length: 0xffff }, (_, index) => `h${index}`);
  const made = allocateAddresses(keys, NOTHING, new Set());
  assert.equal(made.size, 0xfffe);
  assert.deepEqual(made.get("h65533"), ["240.240.255.254", "2001:2::fffe"]);
});

const ENTRIES: readonly (readonly [words: string, labels: string, addresses: number])[] = [
  ["resolution: STATIC, hosts: [a.example.com]", "", 2],
  ["resolution: DNS, hosts: [a.example.com]", "", 2],
  ["resolution: NONE, hosts: [a.example.com]", "", 0],
  ["resolution: STATIC, hosts: [a.example.com], addresses: [240.1.0.1]", "", 1],
  ['resolution: STATIC, hosts: ["*.example.com"]', "", 0],
  ['resolution: DYNAMIC_DNS, hosts: ["*.example.com"]', "", 2],
  [
    "resolution: STATIC, hosts: [a.example.com]",
    'networking.istio.io/enable-autoallocate-ip: "False"',
    0,
  ],
];

for (const [words, labels, count] of ENTRIES) {
  test(`an entry {${words}} labelled {${labels}} has ${count} addresses`, () => {
    const { services } = meshOf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: shop, labels: {${labels}}}
spec: {${words}}
`);
    assert.deepEqual(
      [...services.values()].map((service) => service.addresses.length),
      [count],
    );
  });
}

test("what the status of an entry says goes before what was given until now", () => {
  const { services } = meshOf(
    `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: shop}
spec: {resolution: STATIC, hosts: [a.example.com]}
status: {addresses: [{host: a.example.com, value: 240.240.0.9}]}
`,
    { allocated: new Map([["shop/a/a.example.com", []]]) },
  );
  assert.deepEqual(
    [...services.values()].flatMap((service) =>
      service.addresses.map(({ address }) => [...address]),
    ),
    [[240, 240, 0, 9]],
  );
});
