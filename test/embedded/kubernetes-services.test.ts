import assert from "node:assert/strict";
import { test } from "node:test";
import { servicePortProtocol } from "../../src/embedded/kubernetes-protocols.ts";
import {
  AppProtocol,
  IPFamilies,
  LoadBalancing_Scope as Scope,
} from "../../src/wire/proto/istio-workload.ts";
import { decodeServiceExtensions } from "../../src/wire/service-extension.ts";
import { meshOf, podYaml, serviceYaml } from "./translated-mesh.ts";

const PROTOCOLS: readonly (readonly [
  port: Partial<Parameters<typeof servicePortProtocol>[0]>,
  protocol: AppProtocol,
])[] = [
  [{ name: "http" }, AppProtocol.HTTP11],
  [{ name: "HTTP-web" }, AppProtocol.HTTP11],
  [{ name: "http2-x" }, AppProtocol.HTTP2],
  [{ name: "grpc" }, AppProtocol.GRPC],
  [{ name: "grpc-web" }, AppProtocol.UNKNOWN],
  [{ name: "https" }, AppProtocol.TLS],
  [{ name: "tls-x" }, AppProtocol.TLS],
  [{ name: "tcp" }, AppProtocol.TCP],
  [{ name: "httpx" }, AppProtocol.UNKNOWN],
  [{ name: "" }, AppProtocol.UNKNOWN],
  [{ name: "", port: 3306 }, AppProtocol.TCP],
  [{ name: "mysql", port: 3306 }, AppProtocol.UNKNOWN],
  [{ name: "http", port: 3306 }, AppProtocol.HTTP11],
  [{ name: "tcp", appProtocol: "http" }, AppProtocol.HTTP11],
  [{ name: "http", appProtocol: "example.com/own" }, AppProtocol.UNKNOWN],
  [{ appProtocol: "kubernetes.io/h2c" }, AppProtocol.HTTP2],
  [{ appProtocol: "kubernetes.io/ws" }, AppProtocol.HTTP11],
  [{ appProtocol: "kubernetes.io/wss" }, AppProtocol.TLS],
  [{ name: "http", transport: "UDP" }, AppProtocol.UNKNOWN],
  [{ name: "", port: 53, transport: "UDP" }, AppProtocol.UNKNOWN],
];

for (const [port, protocol] of PROTOCOLS) {
  test(`the protocol of a port with ${JSON.stringify(port)} is ${protocol}`, () => {
    const whole = { port: 80, name: "", appProtocol: "", transport: "TCP", ...port };
    assert.equal(servicePortProtocol(whole), protocol);
  });
}

const ZONE = [Scope.NETWORK, Scope.REGION, Scope.ZONE];
const DISTRIBUTIONS: readonly (readonly [
  words: { field?: string; own?: string; namespace?: string },
  scopes: readonly Scope[] | undefined,
])[] = [
  [{}, undefined],
  [{ field: "PreferClose" }, ZONE],
  [{ field: "PreferSameZone" }, ZONE],
  [{ field: "PreferSameNode" }, [...ZONE, Scope.SUBZONE, Scope.NODE]],
  [{ field: "Other", own: "PreferClose" }, ZONE],
  [{ field: "PreferClose", own: "PreferSameNode" }, ZONE],
  [{ own: "preferclose" }, ZONE],
  [{ own: "constructor" }, undefined],
  [{ own: "Any", namespace: "PreferClose" }, undefined],
  [{ namespace: "PreferSameZone" }, ZONE],
];

for (const [words, scopes] of DISTRIBUTIONS) {
  test(`traffic distribution ${JSON.stringify(words)} prefers ${JSON.stringify(scopes)}`, () => {
    const key = "networking.istio.io/traffic-distribution";
    const text = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {${words.namespace ? `${key}: ${words.namespace}` : ""}}}
${serviceYaml(
  "a",
  words.own ? `annotations: {${key}: ${words.own}}` : "",
  words.field ? `trafficDistribution: ${words.field}` : "",
)}`;
    const { services } = meshOf(text);
    const service = services.get("shop/a.shop.svc.cluster.local");
    assert.deepEqual(service?.loadBalancing?.routingPreference, scopes);
  });
}

test("the families are those of the addresses where nobody says them", () => {
  const families = (address: string) => {
    const text = serviceYaml("a").replace("clusterIP: 10.96.0.1", address);
    return [...meshOf(text).services.values()].map(({ ipFamilies }) => ipFamilies);
  };
  assert.deepEqual(families("clusterIP: 10.0.0.1"), [IPFamilies.IPV4_ONLY]);
  assert.deepEqual(families('clusterIP: "fd00::1"'), [IPFamilies.IPV6_ONLY]);
  assert.deepEqual(families('clusterIPs: [10.0.0.1, "fd00::1"]'), [IPFamilies.DUAL]);
  assert.deepEqual(families("clusterIP: None"), [IPFamilies.IPV4_ONLY]);
  assert.deepEqual(families("clusterIP: None, ipFamilies: [IPv6]"), [IPFamilies.IPV6_ONLY]);
});

for (const [spec, seconds] of [
  ["", undefined],
  ["sessionAffinity: None", undefined],
  ["sessionAffinity: ClientIP", 10_800],
  ["sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}", 600],
] as const) {
  test(`{${spec}} keeps a client at one endpoint for ${seconds} s, in an extension`, () => {
    const [service] = meshOf(serviceYaml("a", "", spec)).services.values();
    assert.ok(service);
    assert.equal(decodeServiceExtensions(service.extensions), seconds);
    assert.equal(service.extensions.length, seconds === undefined ? 0 : 1);
  });
}

test("a port without a target goes to the port of its own number", () => {
  const text = serviceYaml("a", "", "ports: [{port: 80}], selector: {app: a}");
  const { workloads } = meshOf(text + podYaml("a", "labels: {app: a}"));
  assert.deepEqual(
    [...workloads.values()].map(({ services }) => services),
    [
      new Map([
        [
          "shop/a.shop.svc.cluster.local",
          { ports: [{ servicePort: 80, targetPort: 80, appProtocol: 0 }] },
        ],
      ]),
    ],
  );
});

function entryYaml(name: string, namespace: string, createdAt: string, host: string): string {
  return `
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ${name}, namespace: ${namespace}, creationTimestamp: "${createdAt}"}
spec: {hosts: [${host}], addresses: [240.1.0.1], resolution: STATIC}
`;
}

test("of one host each namespace has its oldest entry, and the oldest of all is canonical", () => {
  const host = "a.example.com";
  const { services } = meshOf(
    entryYaml("younger", "one", "2026-01-02T00:00:00Z", host) +
      entryYaml("older", "one", "2026-01-01T00:00:00Z", host) +
      entryYaml("oldest", "two", "2025-01-01T00:00:00Z", host),
  );
  assert.deepEqual(
    Array.from(services, ([key, { name, canonical }]) => [key, name, canonical]).toSorted(),
    [
      ["one/a.example.com", "older", false],
      ["two/a.example.com", "oldest", true],
    ],
  );
});

test("a Service goes before an entry of its host, however old", () => {
  const host = "a.shop.svc.cluster.local";
  const { services } = meshOf(
    entryYaml("same", "shop", "2020-01-01T00:00:00Z", host) +
      entryYaml("other", "two", "2020-01-01T00:00:00Z", host) +
      serviceYaml("a", 'creationTimestamp: "2026-01-01T00:00:00Z"'),
  );
  assert.deepEqual(
    Array.from(services, ([key, { name, canonical }]) => [key, name, canonical]).toSorted(),
    [
      [`shop/${host}`, "a", true],
      [`two/${host}`, "other", false],
    ],
  );
});

test("an entry that nobody may see makes neither services nor workloads", () => {
  const text = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: hidden}
spec: {hosts: [a.example.com], resolution: STATIC, endpoints: [{address: 192.0.2.1}]}
`;
  const hidden = meshOf(text, { serviceEntryVisibility: new Map([["hidden", "None"]]) });
  assert.equal(hidden.services.size + hidden.workloads.size, 0);
  const shown = meshOf(text);
  assert.equal(shown.services.size + shown.workloads.size, 2);
});
