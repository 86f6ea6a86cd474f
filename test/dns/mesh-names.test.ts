/** The table of names, each asked as a pod would, over UDP and over TCP. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Workload } from "../../src/mesh/workload.ts";
import { answersOf, askDns, dnsQuery, dnsReply, ednsOf } from "../support/dns-client.ts";
import { type DnsStage, startDnsServer } from "../support/dns-stage.ts";
import { mesh, type ServiceBuilder } from "../support/mesh-fixture.ts";

const client = mesh.workload("client").in("ns1").at("10.1.0.1");
const elsewhere = mesh.workload("elsewhere").in("ns3").at("10.1.0.2");

/** As ServiceEntries make them. */
function external(hostname: string, namespace: string): ServiceBuilder {
  return mesh.service(hostname).in(namespace).hostname(hostname);
}

const headless = mesh.service("headless").in("ns1");
const partly = mesh.service("partly").in("ns1");
const headlessSix = mesh.service("headless-six").in("ns1").families("IPv6");
const abroad = external("headless.example.com", "ns1");
const state = mesh.state(
  client,
  elsewhere,
  mesh.service("echo").in("ns1").at("10.96.0.1", "fd96::1"),
  mesh.service("echo").in("ns2").at("10.96.0.2"),
  mesh.service("twice").in("ns1").at("10.96.0.3", "10.96.0.4"),
  mesh.service("four").in("ns1").at("10.96.0.5", "fd96::5").families("IPv4"),
  mesh.service("six").in("ns1").at("10.96.0.6", "fd96::6").families("IPv6"),
  mesh.service("both").in("ns1").at("10.96.0.7", "fd96::7").families("Dual"),
  mesh.service("far").in("ns1").at("remote/10.96.0.8"),
  mesh.service("near-and-far").in("ns1").at("10.96.0.9", "remote/10.96.0.10"),
  mesh.service("hidden").in("ns2").at("10.96.0.11").hidden(),
  mesh.service("own-hidden").in("ns1").at("10.96.0.12").hidden(),
  headless,
  mesh
    .workload("h1")
    .in("ns1")
    .at("10.1.1.1", "10.1.1.2", "fd01::1")
    .with({ hostname: "h1.headless.ns1.svc.cluster.local" })
    .behind(headless),
  mesh.workload("h2").in("ns1").at("10.1.1.3", "fd01::3").behind(headless),
  mesh.workload("h3").in("ns1").at("10.1.1.4").unhealthy().behind(headless),
  partly,
  mesh.workload("p1").in("ns1").at("fd01::5").behind(partly),
  headlessSix,
  mesh.workload("s1").in("ns1").at("10.1.1.6", "fd01::6").behind(headlessSix),
  abroad,
  mesh.workload("a1").in("ns1").at("10.1.1.7").behind(abroad),
  mesh.service("empty").in("ns1"),
  mesh
    .service("details")
    .in("ns2")
    .hostname("details.ns2.svc.cluster.remote")
    .at("10.96.2.1", "10.96.2.2"),
  external("www.example.com", "ns2").at("240.0.0.1"),
  external("nothing.example.com", "ns2"),
  external("range.example.com", "ns2").ranges("", "10.200.0.0/16"),
  external("*.wild.example.com", "ns2").at("240.0.0.2"),
  external("*.deep.wild.example.com", "ns2").at("240.0.0.3"),
  external("exact.wild.example.com", "ns2").at("240.0.0.4"),
  external("*.example.org", "ns2").at("240.0.0.13"),
  external("shared.example.com", "ns2").at("240.0.0.5"),
  external("shared.example.com", "ns1").at("240.0.0.6"),
  external("shared.example.com", "ns4").at("240.0.0.7"),
  external("loved.example.com", "ns2").at("240.0.0.8"),
  external("loved.example.com", "preferred").at("240.0.0.9"),
  external("canon.example.com", "ns2").at("240.0.0.10").canonical(),
  external("canon.example.com", "preferred").at("240.0.0.11"),
  external("own.example.com", "ns1").at("240.0.0.14"),
  external("own.example.com", "ns2").at("240.0.0.15").canonical(),
  external("everywhere.example.com", "ns1").at("240.0.0.16"),
  external("everywhere.example.com", "ns2").at("240.0.0.17"),
  external("everywhere.example.com", "preferred").at("240.0.0.18"),
  external("single", "ns2").at("240.0.0.12"),
  mesh.workload("vm").in("ns1").at("10.1.0.9").with({ hostname: "vm.example.com" }),
);

type Expected = "forwarded" | readonly string[];
const rows: readonly [name: string, type: "A" | "AAAA", expected: Expected, from?: Workload][] = [
  // A service by all its names.
  ["echo.ns1.svc.cluster.local", "A", ["A 10.96.0.1"]],
  ["echo.ns1.svc.cluster.local", "AAAA", ["AAAA fd96::1"]],
  ["ECHO.ns1.SVC.cluster.Local", "A", ["A 10.96.0.1"]],
  ["echo", "A", ["A 10.96.0.1"]],
  ["echo.ns1", "A", ["A 10.96.0.1"]],
  ["echo.ns1.svc", "A", ["A 10.96.0.1"]],
  ["echo.ns2", "A", ["A 10.96.0.2"]],
  ["echo.ns2.svc.cluster.local", "A", ["A 10.96.0.2"]],
  ["echo.ns3", "A", "forwarded"],
  ["echo.ns2.svc", "A", ["A 10.96.0.2"]],
  ["echo.ns1.svc.cluster", "A", "forwarded"],
  ["echo", "A", "forwarded", elsewhere.value],
  ["echo.ns1", "A", ["A 10.96.0.1"], elsewhere.value],
  // Of another cluster.
  ["details.ns2.svc.cluster.remote", "A", ["A 10.96.2.1", "A 10.96.2.2"]],
  ["details.ns2", "A", "forwarded"],
  // What resolvers append.
  [
    "echo.ns1.svc.cluster.local.ns1.svc.cluster.local",
    "A",
    ["CNAME echo.ns1.svc.cluster.local", "A 10.96.0.1"],
  ],
  [
    "echo.ns1.svc.cluster.local.svc.cluster.local",
    "A",
    ["CNAME echo.ns1.svc.cluster.local", "A 10.96.0.1"],
  ],
  [
    "echo.ns1.svc.cluster.local.cluster.local",
    "A",
    ["CNAME echo.ns1.svc.cluster.local", "A 10.96.0.1"],
  ],
  ["echo.ns2.ns1.svc.cluster.local", "A", ["CNAME echo.ns2", "A 10.96.0.2"]],
  ["www.example.com.ns1.svc.cluster.local", "A", ["CNAME www.example.com", "A 240.0.0.1"]],
  ["www.example.com.svc.cluster.local", "A", ["CNAME www.example.com", "A 240.0.0.1"]],
  ["www.example.com.ns3.svc.cluster.local", "A", "forwarded"],
  [
    "www.example.com.ns3.svc.cluster.local",
    "A",
    ["CNAME www.example.com", "A 240.0.0.1"],
    elsewhere.value,
  ],
  ["www.example.com.ns1.svc.cluster.local", "AAAA", []],
  ["four.ns1.ns1.svc.cluster.local", "AAAA", []],
  ["a.wild.example.com.ns1.svc.cluster.local", "A", ["A 240.0.0.2"]],
  // Families.
  ["twice", "A", ["A 10.96.0.3", "A 10.96.0.4"]],
  ["twice", "AAAA", []],
  ["four", "A", ["A 10.96.0.5"]],
  ["four", "AAAA", []],
  ["six", "A", []],
  ["six", "AAAA", ["AAAA fd96::6"]],
  ["both", "A", ["A 10.96.0.7"]],
  ["both", "AAAA", ["AAAA fd96::7"]],
  // Networks and visibility.
  ["far", "A", []],
  ["near-and-far", "A", ["A 10.96.0.9"]],
  ["hidden.ns2", "A", "forwarded"],
  ["own-hidden", "A", ["A 10.96.0.12"]],
  ["own-hidden.ns1", "A", "forwarded", elsewhere.value],
  // Services without an address of their own.
  ["headless", "A", ["A 10.1.1.1", "A 10.1.1.3"]],
  ["headless", "AAAA", ["AAAA fd01::1", "AAAA fd01::3"]],
  [
    "headless.ns1.svc.cluster.local.cluster.local",
    "AAAA",
    ["CNAME headless.ns1.svc.cluster.local", "AAAA fd01::1", "AAAA fd01::3"],
  ],
  ["h1.headless", "A", "forwarded"],
  ["h1.headless.ns1", "A", "forwarded"],
  ["h1.headless.ns1.svc.cluster.local", "A", "forwarded"],
  ["headless-six", "A", []],
  ["headless-six", "AAAA", ["AAAA fd01::6"]],
  ["headless.example.com", "A", "forwarded"],
  ["partly", "A", []],
  ["partly", "AAAA", ["AAAA fd01::5"]],
  ["empty", "A", []],
  // Names outside Kubernetes.
  ["www.example.com", "A", ["A 240.0.0.1"]],
  ["www.example.com", "AAAA", []],
  ["example.com", "A", "forwarded"],
  ["nothing.example.com", "A", "forwarded"],
  ["range.example.com", "A", "forwarded"],
  ["a.wild.example.com", "A", ["A 240.0.0.2"]],
  ["a.b.c.wild.example.com", "A", ["A 240.0.0.2"]],
  ["a.deep.wild.example.com", "A", ["A 240.0.0.3"]],
  ["deep.wild.example.com", "A", ["A 240.0.0.2"]],
  ["exact.wild.example.com", "A", ["A 240.0.0.4"]],
  ["wild.example.com", "A", "forwarded"],
  ["a.example.org", "A", ["A 240.0.0.13"]],
  ["example.org", "A", "forwarded"],
  ["single", "A", ["A 240.0.0.12"]],
  ["single.ns1", "A", "forwarded"],
  ["vm.example.com", "A", "forwarded"],
  // Several namespaces claim a name.
  ["shared.example.com", "A", ["A 240.0.0.6"]],
  ["shared.example.com", "A", ["A 240.0.0.5"], elsewhere.value],
  ["loved.example.com", "A", ["A 240.0.0.9"]],
  ["canon.example.com", "A", ["A 240.0.0.10"]],
  ["own.example.com", "A", ["A 240.0.0.14"]],
  ["everywhere.example.com", "A", ["A 240.0.0.16"]],
];

const stages = new Map<string, Promise<DnsStage>>();
after(async () => {
  for (const stage of stages.values()) await (await stage).close();
});

/** One server for each client. */
function stageOf(source: Workload): Promise<DnsStage> {
  let stage = stages.get(source.uid);
  if (stage === undefined) {
    stage = startDnsServer({ state, source, options: { preferredNamespace: "preferred" } });
    stages.set(source.uid, stage);
  }
  return stage;
}

for (const [name, type, expected, from = client.value] of rows) {
  const outcome = expected === "forwarded" ? expected : expected.join(", ") || "no records";
  for (const transport of ["udp", "tcp"] as const) {
    test(`${name} ${type} from ${from.namespace} by ${transport}: ${outcome}`, async () => {
      const { server, forwarded } = await stageOf(from);
      const before = forwarded.length;
      const reply = dnsReply(await askDns(server, transport, dnsQuery(name, type)));
      if (expected === "forwarded") {
        assert.equal(forwarded.length, before + 1);
        return;
      }
      assert.equal(forwarded.length, before);
      assert.deepEqual(answersOf(reply).toSorted(), expected.toSorted());
      assert.equal(reply.rcode, "NOERROR");
      assert.equal(reply.flag_aa, true);
      assert.equal(reply.flag_ra, true);
      for (const answer of reply.answers ?? []) assert.ok("ttl" in answer && answer.ttl === 30);
    });
  }
}

test("AAAA of a service that has it is empty where IPv6 is off", async (t) => {
  const stage = await startDnsServer({ state, source: client.value, options: { ipv6: false } });
  t.after(() => stage.close());
  const reply = dnsReply(await askDns(stage.server, "udp", dnsQuery("echo", "AAAA")));
  assert.deepEqual(answersOf(reply), []);
  assert.match(stage.lines().at(-1) ?? "", /result="service does not support this record type"/);
});

test("truncation: of 256 addresses TCP brings all, UDP with 1232 bytes of EDNS 74 and TC", async (t) => {
  const large = mesh.service("large").in("ns1");
  const endpoints = Array.from({ length: 256 }, (_, n) =>
    mesh.workload(`l${n}`).in("ns1").at(`240.0.1.${n}`).behind(large),
  );
  const crowd = mesh.state(client, large, ...endpoints);
  const stage = await startDnsServer({ state: crowd, source: client.value });
  t.after(() => stage.close());
  const query = dnsQuery("large", "A", { additionals: [ednsOf(1232)] });
  for (const [transport, count, isTruncated] of [
    ["tcp", 256, false],
    ["udp", 74, true],
  ] as const) {
    const reply = dnsReply(await askDns(stage.server, transport, query));
    assert.equal(new Set(answersOf(reply)).size, count);
    assert.equal(reply.flag_tc, isTruncated);
  }
});

test("addresses come in any order", async () => {
  const { server } = await stageOf(client.value);
  const orders = new Set<string>();
  for (let i = 0; i < 100 && orders.size < 2; i++) {
    orders.add(answersOf(dnsReply(await askDns(server, "udp", dnsQuery("twice", "A")))).join());
  }
  assert.equal(orders.size, 2);
});

test("another domain of the cluster is one", async (t) => {
  const other = mesh
    .service("echo")
    .in("ns1")
    .hostname("echo.ns1.svc.mesh.example")
    .at("10.96.1.1");
  const own = mesh.state(client, other);
  const options = { clusterDomain: "mesh.example" };
  const stage = await startDnsServer({ state: own, source: client.value, options });
  t.after(() => stage.close());
  const reply = dnsReply(await askDns(stage.server, "udp", dnsQuery("echo.ns1", "A")));
  assert.deepEqual(answersOf(reply), ["A 10.96.1.1"]);
});

test("a workload of its own searches what its resolv.conf says, and nothing else", async (t) => {
  const stage = await startDnsServer({
    state,
    source: client.value,
    options: { searchDomains: "file" },
    searchDomains: ["corp.example"],
  });
  t.after(() => stage.close());
  const ask = async (name: string): Promise<readonly string[]> =>
    answersOf(dnsReply(await askDns(stage.server, "udp", dnsQuery(name, "A"))));
  assert.deepEqual(await ask("www.example.com.corp.example"), [
    "CNAME www.example.com",
    "A 240.0.0.1",
  ]);
  assert.deepEqual(await ask("www.example.com.ns1.svc.cluster.local"), []);
  assert.equal(stage.forwarded.length, 1);
});
