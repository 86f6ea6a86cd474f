import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import { makeTrafficFamilies, mergeTraffic } from "../../src/proxy/metrics.ts";
import { quiet } from "../support/memory-engine.ts";
import { ip, mesh } from "../support/mesh-fixture.ts";
import { greet, type Lab, makeLab } from "./lab.ts";

/** A service in front of a plain workload of which only the host name is known. */
function labWithHost(): Lab {
  const lab = makeLab();
  const vip = mesh.service("ext").at("10.78.0.77").at("10.78.0.77", "fd78::77").port(80, 8080);
  const host = mesh.workload("ext").with({ hostname: "ext.example", uid: "ext/uid" }).behind(vip);
  lab.a.mesh.apply([
    { kind: "service", service: vip.value },
    { kind: "workload", workload: host.value },
  ]);
  return lab;
}

function lastError(lab: Lab): unknown {
  const line = lab.a.log.of("access").at(-1);
  return [line?.level, line?.message, Object.fromEntries(line?.fields ?? [])["error"]];
}

test("an address of the family asked for is taken, else one of the other", async () => {
  const lab = labWithHost();
  lab.a.hosts.set("ext.example", [ip("fd00::1"), ip("10.77.0.32")]);
  assert.equal((await greet(lab, lab.pod("client1"), "10.78.0.77:80", "x")).received, "xx");
  lab.a.hosts.set("ext.example", [ip("10.77.0.32")]);
  assert.equal((await greet(lab, lab.pod("client1"), "[fd78::77]:80", "x")).received, "xx");
  assert.deepEqual(
    lab.network.engine.connects.map(({ remote }) => remote),
    [1, 2].map(() => ({ ip: "10.77.0.32", port: 8080 })),
  );
});

test("among several of a family chance decides", async () => {
  const lab = labWithHost();
  const ips = ["10.77.0.32", "10.77.0.33"].map(ip);
  lab.a.hosts.set("ext.example", ips);
  const dialled = new Set<string>();
  for (let i = 0; i < 60 && dialled.size < 2; i++) {
    await greet(lab, lab.pod("client1"), "10.78.0.77:80", "x");
    for (const { remote } of lab.network.engine.connects) dialled.add(remote.ip);
  }
  assert.deepEqual([...dialled].sort(), ips);
});

test("a host name that can't be looked up refuses with the workload's uid and says why", async () => {
  const lab = labWithHost();
  assert.equal((await greet(lab, lab.pod("client1"), "10.78.0.77:80")).end, "ECONNRESET");
  const error = "no ip addresses were resolved for workload: ext/uid";
  assert.deepEqual(lastError(lab), ["warn", "connection failed", error]);
  const [line] = lab.a.log.of("ztunnel::state");
  assert.deepEqual(
    [line?.level, line?.message, line?.fields],
    [
      "warn",
      "dns lookup failed",
      [
        ["err", "nobody knows ext.example"],
        ["hostname", { bare: "ext.example" }],
      ],
    ],
  );
});

test("a host name without an address refuses in other words", async () => {
  const lab = labWithHost();
  lab.a.hosts.set("ext.example", []);
  await greet(lab, lab.pod("client1"), "10.78.0.77:80");
  const error =
    "ip addresses were resolved for workload ext/uid, but valid dns response had no A/AAAA records";
  assert.deepEqual(lastError(lab), ["warn", "connection failed", error]);
});

test("a client that leaves while its host is looked up is forgotten", async () => {
  const lab = labWithHost();
  const asked = Promise.withResolvers<never>();
  lab.a.hosts.get = () => asked.promise as never;
  const client = lab.pod("client1").dial("10.78.0.77:80");
  await quiet();
  await lab.proxy("client1").close();
  asked.reject(new Error("too late"));
  await quiet();
  assert.equal(client.readEnd, "fin");
  assert.deepEqual(lab.network.engine.connects, []);
});

test("each lookup counts, by who asked and for what", async () => {
  const lab = labWithHost();
  lab.a.hosts.set("ext.example", [ip("10.77.0.32")]);
  for (let i = 0; i < 2; i++) await greet(lab, lab.pod("client1"), "10.78.0.77:80");
  const registry = new Registry();
  mergeTraffic(makeTrafficFamilies(registry), [lab.a.traffic.collect()]);
  const line = (await registry.metrics()).split("\n").find((one) => /^istio_on_dem/.test(one));
  assert.equal(
    line,
    'istio_on_demand_dns_total{source_workload="client1",source_canonical_service="client1",source_canonical_revision="v1",source_workload_namespace="default",source_principal="spiffe://cluster.local/ns/default/sa/client1",source_app="client1",source_version="v1",source_cluster="Kubernetes",hostname="ext.example"} 2',
  );
  assert.deepEqual(lab.a.traffic.collect().lookups, []);
});
