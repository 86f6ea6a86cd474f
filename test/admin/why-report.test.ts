import assert from "node:assert/strict";
import { test } from "node:test";
import { reportWhy, type WhyDeps, type WhyReport } from "../../src/admin/why-report.ts";
import { formatWhy } from "../../src/admin/why-text.ts";
import type { Service } from "../../src/mesh/service.ts";
import type { ThreadOutlier } from "../../src/state/endpoint-outliers.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { fixedRandom, gateway, ip, makeAffinity, mesh } from "../support/mesh-fixture.ts";

const echo = mesh.service("echo").at("10.96.0.1").port(80, 8080);
const twoPorts = mesh.service("two").at("10.96.0.2").port(80, 8080).port(443, 8443);
const headless = mesh.service("headless").port(80, 8080);
const distant = mesh.service("distant").at("10.96.0.3").port(80, 8080);
const client = mesh.workload("client").at("10.0.0.1").on("node-a").hbone();
const STATE = mesh.state(
  echo,
  twoPorts,
  headless,
  distant,
  client,
  mesh.workload("server").at("10.0.0.2").on("node-b").hbone().behind(echo, { 80: 8080 }),
  mesh.workload("waypoint").at("10.0.0.9").on("node-c").hbone(),
  mesh
    .workload("shop")
    .at("10.0.0.3")
    .on("node-b")
    .hbone()
    .waypoint("/10.0.0.9")
    .policies("default/only-waypoint"),
  mesh.workload("lost").at("10.0.0.4").on("node-b").hbone().policies("default/never-sent"),
  mesh.workload("gate").at("10.0.0.8").on("node-c").hbone(),
  mesh
    .workload("far")
    .network("west")
    .hbone()
    .with({ networkGateway: gateway("/10.0.0.8") })
    .behind(distant, { 80: 8080 }),
  mesh.workload("plain").at("10.0.0.5").on("node-b"),
  mesh
    .allow("only-waypoint")
    .scope("WorkloadSelector")
    .rule({ principals: [{ kind: "exact", value: "cluster.local/ns/default/sa/waypoint" }] }),
);

const deps: WhyDeps = {
  mesh: STATE,
  outliers: { leftOut: () => undefined, all: () => [] },
  affinity: makeAffinity(new FakeClock()),
  certificates: () => [],
  workloads: () => [],
  probe: () => undefined,
  random: fixedRandom(),
};
const ask = (source: string, destination: string, by = deps): Promise<WhyReport> =>
  reportWhy(
    by,
    { network: "", illegalPorts: new Set([15001]), unknownPolicy: "deny", onDemand: true },
    { source, destination, connect: false },
  );

test("behind a waypoint the destination judges the waypoint", async () => {
  const { route, judgement } = await ask("default/client", "default/shop:8080");
  assert.equal(route.kind, "hbone");
  assert.equal(route.remote, "10.0.0.9:15008");
  assert.equal(route.authority, "10.0.0.3:8080");
  assert.equal(route.waypoint, "default/waypoint");
  assert.equal(judgement?.workload, "default/shop");
  assert.equal(judgement?.identity, "spiffe://cluster.local/ns/default/sa/waypoint");
  assert.equal(judgement?.verdict, "allow");
  assert.deepEqual(
    judgement?.policies.map(({ policy, matches }) => [policy, matches]),
    [["default/only-waypoint", true]],
  );
});

test("a pod's own address stays in the pod, but for the ports on which we listen there", async () => {
  for (const own of ["default/client:8080", "10.0.0.1:8080", "127.0.0.1:8080", "[::1]:8080"]) {
    const report = await ask("default/client", own);
    assert.deepEqual(
      [report.route.kind, report.judgement, report.certificate],
      [...["loopback", undefined, null]],
    );
    assert.match(formatWhy(report), /^ +because \S+ is an address of the pod itself, /m);
    assert.match(formatWhy(report), /^policies +nobody judges what stays in the pod$/m);
    assert.match(formatWhy(report), /^verdict +goes through$/m);
  }
  const { route } = await ask("default/client", "127.0.0.1:15001");
  assert.equal(route.kind, "refuse");
});

test("a policy that nobody has sent denies, as the daemon is told to take it", async () => {
  const report = await ask("default/client", "10.0.0.4:80");
  assert.equal(report.judgement?.reason, "unknown policy: default/never-sent");
  assert.match(formatWhy(report), /^ +default\/never-sent: named by the workload, but nobody/m);
  assert.match(formatWhy(report), /^verdict +denied: unknown policy: default\/never-sent$/m);
  assert.match(formatWhy(report), /^note +the mesh is known here as far as .*XDS_ON_DEMAND/m);
});

test("a service without an endpoint is refused at the source", async () => {
  const report = await ask("10.0.0.1", "two.default.svc.cluster.local:443");
  assert.equal(report.route.kind, "refuse");
  assert.equal(report.judgement, undefined);
  assert.match(formatWhy(report), /^policies +nobody judges: it does not leave the source$/m);
  assert.match(formatWhy(report), /^verdict +refused at the source: /m);
});

test("beyond a network gateway others judge", async () => {
  const report = await ask("default/client", "distant.default.svc.cluster.local");
  assert.equal(report.route.kind, "hbone");
  assert.equal(report.route.gateway, "default/gate");
  assert.equal(report.route.workload, "default/far");
  assert.match(formatWhy(report), /^ +through network gateway default\/gate$/m);
  assert.match(formatWhy(report), /^ +beyond the gateway nobody is believed: /m);
  assert.match(formatWhy(report), /^policies +judged in the other network$/m);
});

test("a service's only port need not be said", async () => {
  const { destination, route } = await ask("default/client", "echo.default.svc.cluster.local");
  assert.equal(destination.address, "10.96.0.1:80");
  assert.equal(route.authority, "10.0.0.2:8080");
});

test("who is left out of the service is named, and passed over", async () => {
  const outlier: ThreadOutlier = {
    service: "default/echo.default.svc.cluster.local",
    port: 80,
    uid: "uid-of-another",
    workload: "default/another",
    failures: 5,
    ejectionMs: 30_000,
    until: 1_800_000_030_000,
    thread: "data-0",
  };
  const asked: number[] = [];
  const outliers = {
    leftOut(_service: Service, port: number) {
      asked.push(port);
      return undefined;
    },
    all: () => [outlier, { ...outlier, service: "default/other" }],
  };
  const report = await ask("default/client", "10.96.0.1:80", { ...deps, outliers });
  assert.deepEqual(asked, [80]);
  assert.match(
    formatWhy(report),
    /^ +not to default\/another, port 80: 5 connects in a row failed, left out by data-0 until 2027-01-15T08:00:30.000000Z$/m,
  );
  assert.equal(report.route.leftOut?.length, 1);
});

test("where the service keeps a client at one endpoint, the reason of the choice is told", async () => {
  const service = "default/echo.default.svc.cluster.local";
  const affinity = makeAffinity(new FakeClock(), { [service]: 600 });
  const reason = async (): Promise<string | undefined> =>
    /^ +where .*/m.exec(
      formatWhy(await ask("default/client", "10.96.0.1:80", { ...deps, affinity })),
    )?.[0];
  assert.match(
    (await reason()) ?? "",
    /where the client's address leads: the service keeps it at one endpoint for 600 s after its last connection$/,
  );
  const known = STATE.findServiceByHostname("echo.default.svc.cluster.local", undefined);
  const workload = STATE.findWorkloadByAddress("", ip("10.0.0.2"));
  assert.ok(known && workload);
  affinity.keep({ service: known, workload }, ip("10.0.0.1"));
  assert.match((await reason()) ?? "", /where the client was last: the service keeps it/);
});

test("who is outside the mesh meets a service's endpoint by the network", async () => {
  const { route, judgement, certificate } = await ask("default/plain", "10.96.0.1:80");
  assert.deepEqual(
    [route.kind, route.remote, route.reason],
    ["plain", "10.0.0.2:8080", "workload plain is not in the mesh"],
  );
  assert.equal(judgement?.identity, null);
  assert.equal(certificate, null);
});

test("a pod that is enrolled here is captured, whatever the mesh says that it speaks", async () => {
  const enrolled = (name: string, state: "Up" | "Draining" = "Up"): WhyDeps => ({
    ...deps,
    workloads: () => [
      { workload: { uid: name, name, namespace: "default", serviceAccount: name }, state },
    ],
  });
  const from = await ask("default/plain", "10.96.0.1:80", enrolled("plain"));
  assert.deepEqual([from.source.enrolled, from.route.kind], ["Up", "hbone"]);
  assert.equal(
    from.judgement?.identity,
    "spiffe://cluster.local/ns/default/sa/plain",
    "the tunnel proves who it is",
  );
  const to = await ask("default/client", "default/plain:80", enrolled("plain"));
  assert.deepEqual([to.route.kind, to.judgement?.identity], ["tcp", null]);
  assert.equal(to.judgement?.workload, "default/plain");
  const taken = await ask("default/client", "default/plain:80", enrolled("plain", "Draining"));
  assert.equal(taken.judgement, undefined);
  const left = await ask("default/client", "10.96.0.1:80", enrolled("client", "Draining"));
  assert.match(formatWhy(left), /^source +taken back from this daemon, which carries /m);
  const unjudged = await ask("default/client", "default/plain:80");
  assert.equal(unjudged.judgement, undefined);
  assert.match(formatWhy(unjudged), /^policies +nobody judges: the destination has no proxy/m);
});

for (const [source, destination, message] of [
  ["default/nobody", "10.0.0.2:80", "the mesh knows no workload default/nobody"],
  [
    "nobody.svc",
    "10.0.0.2:80",
    "the mesh knows no service nobody.svc (pods are named NAMESPACE/NAME)",
  ],
  [
    "default/client",
    "two.default.svc.cluster.local",
    "two.default.svc.cluster.local needs a port, it has 80, 443",
  ],
  ["default/client", "10.0.0.2", "10.0.0.2 needs a port"],
  ["default/client", "default/server:99999", "default/server:99999 has no port from 0 to 65535"],
  [
    "default/client",
    "headless.default.svc.cluster.local:80",
    'service headless.default.svc.cluster.local has no address of its own in network "", name one of its pods',
  ],
] as const) {
  test(`${source} to ${destination}: ${message}`, async () => {
    await assert.rejects(ask(source, destination), {
      name: "AdminError",
      code: "question",
      message,
    });
  });
}
