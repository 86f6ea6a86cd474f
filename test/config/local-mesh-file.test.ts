import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  LocalMeshError,
  parseLocalMesh,
  readLocalMeshFile,
} from "../../src/config/local-mesh-file.ts";
import type { MeshUpdate } from "../../src/mesh/mesh-update.ts";
import type { Service } from "../../src/mesh/service.ts";
import type { Workload } from "../../src/mesh/workload.ts";
import { cidr, gateway, ip, liveMesh, match } from "../support/mesh-fixture.ts";

const RECORDED = fileURLToPath(new URL("../fixtures/recorded-mesh.yaml", import.meta.url));

function parse(text: string): readonly MeshUpdate[] {
  return parseLocalMesh(text, "mesh.yaml");
}

function mistakes(text: string): readonly string[] {
  try {
    parse(text);
  } catch (error) {
    assert.ok(error instanceof LocalMeshError);
    assert.equal(error.message, error.mistakes.join("\n"));
    return error.mistakes;
  }
  return [];
}

test("a whole file becomes a mesh", () => {
  const state = liveMesh("node-a");
  state.apply(readLocalMeshFile(RECORDED));
  assert.deepEqual(state.counts(), { workloads: 11, services: 5, policies: 3 });
  const echo = state.findServiceByVip("", ip("10.78.0.1"), undefined);
  assert.deepEqual(
    [...(echo?.endpoints.values() ?? [])].map(({ uid }) => uid),
    ["lab//Pod/default/server1"],
  );
  const server2 = state.findWorkloadByAddress("", ip("10.77.0.22"));
  assert.ok(server2);
  const { policies, unknown } = state.policiesFor(server2);
  assert.deepEqual(
    policies.map(({ name }) => name),
    ["allow-client1", "deny-8081"],
  );
  assert.deepEqual(unknown, []);
});

test("updates come as workloads, then policies, then services", () => {
  const kinds = new Set(readLocalMeshFile(RECORDED).map(({ kind }) => kind));
  assert.deepEqual([...kinds], ["workload", "policy", "service"]);
});

test("nothing in a file is an empty mesh", () => {
  assert.deepEqual(parse(""), []);
  assert.deepEqual(parse("workloads:\nservices: []\n"), []);
});

test("what is left out of a workload stays empty", () => {
  const [update] = parse("workloads:\n- {workloadIps: [], namespace: shop, services: {}}\n");
  const workload: Workload = {
    uid: "",
    name: "",
    namespace: "shop",
    ips: [],
    hostname: "",
    network: "",
    protocol: "TCP",
    trustDomain: "",
    serviceAccount: "",
    waypoint: undefined,
    networkGateway: undefined,
    node: "",
    canonicalName: "",
    canonicalRevision: "",
    workloadType: "",
    workloadName: "",
    nativeTunnel: false,
    authorizationPolicies: [],
    status: "Healthy",
    clusterId: "",
    services: new Map(),
    applicationTunnel: undefined,
    locality: { region: "", zone: "", subzone: "" },
    networkMode: "Standard",
    capacity: 1,
  };
  assert.deepEqual(update, { kind: "workload", workload });
});

test("every key of a workload is read", () => {
  const [update] = parse(`
workloads:
- uid: demo//Pod/shop/cart-1
  name: cart-1
  namespace: shop
  trustDomain: td
  serviceAccount: cart
  workloadIps: ["10.1.0.11", "fd00:1:0::11"]
  hostname: cart.example
  protocol: HBONE
  networkMode: HostNetwork
  node: node-a
  network: net1
  clusterId: demo
  workloadName: cart
  workloadType: deployment
  canonicalName: cart
  canonicalRevision: v2
  nativeTunnel: true
  status: Unhealthy
  applicationTunnel: {protocol: PROXY, port: 15088}
  locality: {region: eu, zone: eu-1, subzone: ""}
  authorizationPolicies: ["shop/cart-clients"]
  capacity: 0
  waypoint: {destination: shop/waypoint.shop.svc.cluster.local, hboneMtlsPort: 15008}
  networkGateway: {destination: net1/10.9.9.9, hboneMtlsPort: 15009}
  services:
    "shop/cart.shop.svc.cluster.local": {80: 8080, 81: 0}
`);
  const workload: Workload = {
    uid: "demo//Pod/shop/cart-1",
    name: "cart-1",
    namespace: "shop",
    ips: [ip("10.1.0.11"), ip("fd00:1::11")],
    hostname: "cart.example",
    network: "net1",
    protocol: "HBONE",
    trustDomain: "td",
    serviceAccount: "cart",
    waypoint: gateway("shop/waypoint.shop.svc.cluster.local"),
    networkGateway: gateway("net1/10.9.9.9", 15009),
    node: "node-a",
    canonicalName: "cart",
    canonicalRevision: "v2",
    workloadType: "deployment",
    workloadName: "cart",
    nativeTunnel: true,
    authorizationPolicies: ["shop/cart-clients"],
    status: "Unhealthy",
    clusterId: "demo",
    services: new Map([
      [
        "shop/cart.shop.svc.cluster.local",
        new Map([
          [80, 8080],
          [81, 0],
        ]),
      ],
    ]),
    applicationTunnel: { protocol: "PROXY", port: 15088 },
    locality: { region: "eu", zone: "eu-1", subzone: "" },
    networkMode: "HostNetwork",
    capacity: 0,
  };
  assert.deepEqual(update, { kind: "workload", workload });
});

test("every key of a service is read", () => {
  const [update] = parse(`
services:
- name: cart
  namespace: shop
  hostname: cart.shop.svc.cluster.local
  vips: ["/10.96.4.7", "net1/fd00::7"]
  cidrVips: [{network: "", cidr: 192.0.2.0/24}]
  ports: {80: 8080}
  subjectAltNames: ["spiffe://td/ns/a/sa/b"]
  waypoint: {destination: /10.9.9.9, hboneMtlsPort: 15008}
  weightedWaypoints: [{destination: {destination: shop/w.example, hboneMtlsPort: 15008}, weight: 75}]
  loadBalancer: {routingPreferences: [Network, Region, Zone], mode: Failover, healthPolicy: AllowAll}
  ipFamilies: IPv4
  canonical: true
  visibility: Namespace
  affinitySeconds: 600
`);
  const service: Service = {
    name: "cart",
    namespace: "shop",
    hostname: "cart.shop.svc.cluster.local",
    vips: [
      { network: "", ip: ip("10.96.4.7") },
      { network: "net1", ip: ip("fd00::7") },
    ],
    cidrVips: [{ network: "", cidr: cidr("192.0.2.0/24") }],
    ports: new Map([[80, 8080]]),
    subjectAltNames: ["spiffe://td/ns/a/sa/b"],
    waypoint: gateway("/10.9.9.9"),
    weightedWaypoints: [{ destination: gateway("shop/w.example"), weight: 75 }],
    loadBalancer: {
      routingPreferences: ["Network", "Region", "Zone"],
      mode: "Failover",
      healthPolicy: "AllowAll",
    },
    ipFamilies: "IPv4",
    canonical: true,
    visibility: "Namespace",
    affinitySeconds: 600,
  };
  assert.deepEqual(update, { kind: "service", service });
});

test("every key and tag of a policy is read", () => {
  const [update] = parse(`
policies:
- name: p
  namespace: shop
  scope: Namespace
  action: Deny
  dryRun: true
  rules:
  - - - namespaces: [!Exact shop, !Prefix "a", !Suffix -b, !Presence []]
        notNamespaces: [!Presence ]
        principals: [!Exact td/ns/a/sa/b]
        notPrincipals: [!Exact 5]
        serviceAccounts: [{namespace: shop, serviceAccount: web}]
        notServiceAccounts: [{namespace: shop, serviceAccount: bad}]
      - sourceIps: [10.0.0.0/8]
        notSourceIps: ["fd00::/16"]
        destinationIps: [10.0.0.1/32]
        notDestinationIps: [0.0.0.0/0]
        destinationPorts: [80, 443]
        notDestinationPorts: [22]
    - []
  - []
`);
  assert.ok(update?.kind === "policy");
  const { rules, ...rest } = update.policy;
  assert.deepEqual(rest, {
    name: "p",
    namespace: "shop",
    scope: "Namespace",
    action: "Deny",
    dryRun: true,
  });
  assert.deepEqual(rules, [
    [
      [
        match({
          namespaces: [
            { kind: "exact", value: "shop" },
            { kind: "prefix", value: "a" },
            { kind: "suffix", value: "-b" },
            { kind: "presence" },
          ],
          notNamespaces: [{ kind: "presence" }],
          principals: [{ kind: "exact", value: "td/ns/a/sa/b" }],
          notPrincipals: [{ kind: "exact", value: "5" }],
          serviceAccounts: [{ namespace: "shop", serviceAccount: "web" }],
          notServiceAccounts: [{ namespace: "shop", serviceAccount: "bad" }],
        }),
        match({
          sourceIps: [cidr("10.0.0.0/8")],
          notSourceIps: [cidr("fd00::/16")],
          destinationIps: [cidr("10.0.0.1/32")],
          notDestinationIps: [cidr("0.0.0.0/0")],
          destinationPorts: [80, 443],
          notDestinationPorts: [22],
        }),
      ],
      [],
    ],
    [],
  ]);
});

test("endpoints that a service lists belong to it", () => {
  const text = (endpoint: string): string => `
workloads:
- {uid: w1, namespace: shop, workloadIps: [10.0.0.1], services: {}}
services:
- name: cart
  namespace: shop
  hostname: cart
  vips: []
  ports: {80: 80}
  endpoints: {w1: ${endpoint}}
`;
  const state = liveMesh(undefined);
  state.apply(parse(text("{workloadUid: w1, port: {80: 8080}, status: Healthy}")));
  const endpoint = state.findService("shop", "cart")?.endpoints.get("w1");
  assert.equal(endpoint?.services.get("shop/cart")?.get(80), 8080);
  assert.deepEqual(mistakes(text("{workloadUid: w2, port: {}, status: Healthy}")), [
    "mesh.yaml:10: services[0].endpoints[w1]: no workload has the uid w2",
  ]);
  assert.deepEqual(mistakes(text("{workloadUid: w1, port: {}, status: Unhealthy}")), [
    "mesh.yaml:10: services[0].endpoints[w1]: is Unhealthy, but its workload is Healthy",
  ]);
});

test("anchors and aliases may be used", () => {
  const updates = parse(`
workloads:
- {uid: a, namespace: shop, workloadIps: [], services: &s {shop/x: {80: 80}}}
- {uid: b, namespace: shop, workloadIps: [], services: *s}
`);
  assert.equal(updates.length, 2);
});

const WORKLOAD = "namespace: n, workloadIps: [], services: {}";
const POLICY = "name: p, namespace: n, scope: Global, action: Allow, dryRun: false";
const SERVICE = "name: s, namespace: n, hostname: h, vips: [], ports: {}";
const refused: readonly [string, string, string][] = [
  ["an unknown top-level key", "extra: 1", "1: unknown key extra"],
  [
    "an unknown key of a workload",
    `workloads:\n- {${WORKLOAD},\n   prtocol: HBONE}`,
    "3: workloads[0]: unknown key prtocol",
  ],
  [
    "an unknown key of a service",
    `services: [{${SERVICE}, vip: x}]`,
    "1: services[0]: unknown key vip",
  ],
  [
    "an unknown key of a policy",
    `policies: [{${POLICY}, rules: [], audit: true}]`,
    "1: policies[0]: unknown key audit",
  ],
  [
    "an unknown key of a match",
    `policies: [{${POLICY}, rules: [[[{methods: []}]]]}]`,
    "1: policies[0].rules[0][0][0]: unknown key methods",
  ],
  [
    "an unknown key of a gateway",
    `workloads: [{${WORKLOAD}, waypoint: {destination: /10.0.0.1, hboneMtlsPort: 1, x: 1}}]`,
    "1: workloads[0].waypoint: unknown key x",
  ],
  [
    "an unknown key of a load balancer",
    `services: [{${SERVICE}, loadBalancer: {routingPreferences: [], mode: Strict, healthPolicy: AllowAll, x: 1}}]`,
    "1: services[0].loadBalancer: unknown key x",
  ],
  [
    "a missing key",
    "workloads:\n- {workloadIps: [], services: {}}",
    "2: workloads[0]: missing key namespace",
  ],
  [
    "a required key without a value",
    "workloads:\n- {workloadIps: [], services: {}, namespace: }",
    "2: workloads[0]: missing key namespace",
  ],
  [
    "a string match as a map",
    `policies: [{${POLICY}, rules: [[[{principals: [{Exact: x}]}]]]}]`,
    "1: policies[0].rules[0][0][0].principals[0]: must be written as !Exact text, !Prefix text, !Suffix text or !Presence []",
  ],
  [
    "a string match without a tag",
    `policies: [{${POLICY}, rules: [[[{principals: [x]}]]]}]`,
    "1: policies[0].rules[0][0][0].principals[0]: must be written as !Exact text, !Prefix text, !Suffix text or !Presence []",
  ],
  [
    "presence of something",
    `policies: [{${POLICY}, rules: [[[{principals: [!Presence x]}]]]}]`,
    "1: policies[0].rules[0][0][0].principals[0]: !Presence takes nothing but []",
  ],
  [
    "a tag on a list",
    `policies: [{${POLICY}, rules: [[[{principals: [!Exact [x]]}]]]}]`,
    "1: policies[0].rules[0][0][0].principals[0]: must be text after !Exact",
  ],
  [
    "a tag where none belongs",
    `services: [{${SERVICE}, canonical: !Exact true}]`,
    "1: services[0].canonical: must be true or false",
  ],
  [
    "a quoted port",
    `services: [{name: s, namespace: n, hostname: h, vips: [], ports: {"80": 80}}]`,
    '1: services[0].ports[80]: must be a number of 0 to 65535, not "80"',
  ],
  [
    "a port out of range",
    `services: [{name: s, namespace: n, hostname: h, vips: [], ports: {80: 65536}}]`,
    "1: services[0].ports[80]: must be a number of 0 to 65535, not 65536",
  ],
  [
    "a number for text",
    `workloads: [{${WORKLOAD}, canonicalRevision: 2}]`,
    "1: workloads[0].canonicalRevision: must be text, so put 2 in quotes",
  ],
  [
    "an unknown choice",
    `workloads: [{${WORKLOAD}, protocol: TLS}]`,
    "1: workloads[0].protocol: must be one of TCP, HBONE, not TLS",
  ],
  [
    "a bad address",
    "workloads: [{namespace: n, workloadIps: [10.0.0.256], services: {}}]",
    "1: workloads[0].workloadIps[0]: must be an IP address, not 10.0.0.256",
  ],
  [
    "an address without its network",
    "services: [{name: s, namespace: n, hostname: h, vips: [10.0.0.1], ports: {}}]",
    "1: services[0].vips[0]: must be network/address, not 10.0.0.1",
  ],
  [
    "a range without a length",
    `services: [{${SERVICE}, cidrVips: [{network: "", cidr: 10.0.0.0}]}]`,
    "1: services[0].cidrVips[0].cidr: must be an address range such as 10.0.0.0/8, not 10.0.0.0",
  ],
  [
    "a waypoint without a namespace",
    `workloads: [{${WORKLOAD}, waypoint: {destination: w.example, hboneMtlsPort: 1}}]`,
    "1: workloads[0].waypoint.destination: must be network/address or namespace/hostname, not w.example",
  ],
  ["a map for a list", "workloads: {}", "1: workloads: must be a list"],
  ["a list for a map", "[]", "1: must be a map"],
  ["text for a record", "workloads: [x]", "1: workloads[0]: must be a map"],
];
for (const [title, text, mistake] of refused) {
  test(`${title} is refused with its line`, () => {
    assert.deepEqual(mistakes(text), [`mesh.yaml:${mistake}`]);
  });
}

test("a key given twice is refused", () => {
  assert.deepEqual(mistakes("workloads: []\nworkloads: []\n"), [
    "mesh.yaml:2: Map keys must be unique",
  ]);
});

test("what is no YAML is refused for that alone, not for what it seems to say", () => {
  assert.deepEqual(mistakes("workloads:\n- uid: a\n  name: [\n"), [
    "mesh.yaml:4: Flow sequence in block collection must be sufficiently indented and end with a ]",
  ]);
});

test("all mistakes are listed at once, by line", () => {
  const text = `
policies:
- {name: p, namespace: n, scope: All, action: Allow, dryRun: no way, rules: []}
workloads:
- workloadIps: [x]
  services: {}
  colour: red
`;
  assert.deepEqual(
    mistakes(text).map((mistake) => mistake.split(": ")[0]),
    ["mesh.yaml:3", "mesh.yaml:3", "mesh.yaml:5", "mesh.yaml:5", "mesh.yaml:7"],
  );
});

test("a file that can't be read is named", () => {
  assert.throws(
    () => readLocalMeshFile("/nonexistent/mesh.yaml"),
    /^LocalMeshError: can't read \/nonexistent\/mesh\.yaml: it is not there, make it or name another \(ENOENT\)$/,
  );
});
