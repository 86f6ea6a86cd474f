import assert from "node:assert/strict";
import { test } from "node:test";
import type { AuthorizationPolicy } from "../../src/mesh/authorization.ts";
import type { Workload } from "../../src/mesh/workload.ts";
import { quiet } from "../support/memory-engine.ts";
import type { MemorySocket } from "../support/memory-socket.ts";
import { greet, type Lab, makeLab } from "./lab.ts";
import { policy, workload } from "./recorded-mesh.ts";

const DENY_PLAINTEXT: AuthorizationPolicy = {
  ...policy("istio_converted_static_strict", "Deny", { notPrincipals: [{ kind: "presence" }] }),
  scope: "Namespace",
};

const DENY_CLIENT_1: AuthorizationPolicy = {
  ...policy("deny-client1", "Deny", {
    principals: [{ kind: "exact", value: "cluster.local/ns/default/sa/client1" }],
  }),
  scope: "Namespace",
};

async function open(lab: Lab, from: string): Promise<MemorySocket> {
  const client = lab.pod(from).dial("10.77.0.21:8080");
  client.write("x");
  await quiet();
  assert.equal(client.read(), "xx");
  return client;
}

for (const { what, change, closed, stays, described } of [
  {
    what: "an identity",
    change: DENY_CLIENT_1,
    closed: "client1",
    stays: "outside",
    described:
      /^connection 10\.77\.0\.11:\d+\(spiffe:\/\/cluster\.local\/ns\/default\/sa\/client1\)->10\.77\.0\.21:8080 \(lab\/\/Pod\/default\/server1\) closed because it's no longer allowed after a policy update$/,
  },
  {
    what: "plaintext",
    change: DENY_PLAINTEXT,
    closed: "outside",
    stays: "client1",
    described:
      /^connection 10\.77\.0\.31:\d+\(None\)->10\.77\.0\.21:8080 \(lab\/\/Pod\/default\/server1\) closed because it's no longer allowed after a policy update$/,
  },
]) {
  test(`a policy against ${what} resets the connections that it denies and no others`, async () => {
    const lab = makeLab();
    const denied = await open(lab, closed);
    const allowed = await open(lab, stays);
    lab.b.mesh.apply([{ kind: "policy", policy: change }]);
    await quiet();
    assert.equal(denied.readEnd, "reset");
    assert.equal(allowed.readEnd, "open");
    const [line, ...others] = lab.b.log.of("ztunnel::proxy::connection_manager");
    assert.deepEqual(others, []);
    assert.deepEqual([line?.level, line?.spans], ["info", ["proxy{wl=default/server1}"]]);
    assert.match(line?.message ?? "", described);
    const reports = lab.b.log
      .of("access")
      .map(({ level, fields }) => [level, Object.fromEntries(fields)["error"]]);
    assert.deepEqual(reports, [["error", "connection closed due to policy change"]]);
    const flags = lab.b.traffic.collect().series.filter(({ failed }) => failed > 0);
    assert.deepEqual(
      flags.map(({ labels }) => labels[21]),
      ["DENY"],
    );
  });
}

test("streams of one tunnel to one target are one line when a policy closes them", async () => {
  const lab = makeLab();
  const clients = [await open(lab, "client1"), await open(lab, "client1")];
  lab.b.mesh.apply([{ kind: "policy", policy: DENY_CLIENT_1 }]);
  await quiet();
  assert.deepEqual(
    clients.map(({ readEnd }) => readEnd),
    ["reset", "reset"],
  );
  assert.equal(lab.b.log.of("ztunnel::proxy::connection_manager").length, 1);
  assert.equal(lab.b.log.of("access").length, 2);
});

test("a dry-run policy and a change of the workload close nothing", async () => {
  const lab = makeLab();
  const client = await open(lab, "client1");
  lab.b.mesh.apply([{ kind: "policy", policy: { ...DENY_CLIENT_1, dryRun: true } }]);
  lab.b.mesh.apply([
    {
      kind: "workload",
      workload: workload("server1", "10.77.0.21", {
        authorizationPolicies: ["default/allow-client1", "default/deny-8081"],
      }),
    },
  ]);
  await quiet();
  assert.equal(client.readEnd, "open");
});

test("connections that have ended are not judged again", async () => {
  const lab = makeLab();
  await greet(lab, lab.pod("client1"), "10.77.0.21:8080");
  await greet(lab, lab.pod("outside"), "10.77.0.21:8080");
  lab.b.mesh.apply([
    { kind: "policy", policy: DENY_CLIENT_1 },
    { kind: "policy", policy: DENY_PLAINTEXT },
  ]);
  assert.deepEqual(lab.b.log.of("ztunnel::proxy::connection_manager"), []);
});

test("a closed proxy judges no more", async () => {
  const lab = makeLab("debug");
  await lab.proxy("server1").close();
  lab.b.log.clear();
  lab.b.mesh.apply([{ kind: "policy", policy: DENY_CLIENT_1 }]);
  assert.deepEqual(lab.b.log.lines, []);
});

test("a policy that a workload names is waited for: control planes send it a moment later", async () => {
  const lab = makeLab();
  const policies = lab.b.mesh.policiesFor(localWorkload(lab, "server2")).policies;
  const named = policies.find(({ name }) => name === "allow-client1");
  assert(named !== undefined);
  lab.b.mesh.apply([{ kind: "remove-policy", name: "default/allow-client1" }]);
  const client = lab.pod("client1").dial("10.77.0.22:8080");
  client.write("x");
  await lab.clock.advance(900);
  assert.equal(client.read(), "");
  lab.b.mesh.apply([{ kind: "policy", policy: named }]);
  await quiet();
  assert.equal(client.read(), "xx");
  assert.deepEqual(lab.b.log.of("ztunnel::state"), []);
});

test("a policy that never comes denies", async () => {
  const lab = makeLab();
  lab.b.mesh.apply([{ kind: "remove-policy", name: "default/allow-client1" }]);
  const client = lab.pod("client1").dial("10.77.0.22:8080");
  await lab.clock.advance(1000);
  await quiet();
  assert.equal(client.readEnd, "fin");
  const [warning] = lab.b.log.of("ztunnel::state");
  assert.equal(warning?.level, "warn");
  assert.equal(warning.message, "denying because of unknown policy default/allow-client1");
  const [report] = lab.b.log.of("access").map(({ fields }) => Object.fromEntries(fields));
  assert.equal(
    report?.["error"],
    "connection closed due to policy rejection: unknown policy: default/allow-client1",
  );
  assert.deepEqual(lab.b.traffic.collect().unknownPolicies, { deny: 1, allow: 0 });
});

test("a policy that never comes is skipped where the operator wants what the original does", async () => {
  const lab = makeLab("info", { unknownPolicy: "allow" });
  lab.b.mesh.apply([{ kind: "remove-policy", name: "default/allow-client1" }]);
  const client = lab.pod("client2").dial("10.77.0.22:8080");
  client.write("x");
  await lab.clock.advance(1000);
  await quiet();
  const [warning] = lab.b.log.of("ztunnel::state");
  assert.equal(warning?.message, "skipping unknown policy default/allow-client1");
  assert.deepEqual(lab.b.traffic.collect().unknownPolicies, { deny: 0, allow: 1 });
});

test("who leaves while a policy is awaited is gone without an answer to it", async () => {
  const lab = makeLab();
  lab.b.mesh.apply([{ kind: "remove-policy", name: "default/allow-client1" }]);
  const client = lab.pod("client1").dial("10.77.0.22:8080");
  await lab.clock.advance(500);
  client.reset();
  await lab.clock.advance(1000);
  await quiet();
  assert.equal(lab.b.log.of("access").length, 1);
});

test("a policy that is removed does not end what runs", async () => {
  const lab = makeLab();
  const client = lab.pod("client1").dial("10.77.0.22:8080");
  client.write("x");
  await quiet();
  assert.equal(client.read(), "xx");
  lab.b.mesh.apply([{ kind: "remove-policy", name: "default/allow-client1" }]);
  await lab.clock.advance(5000);
  assert.equal(client.readEnd, "open");
});

function localWorkload(lab: Lab, name: string): Workload {
  const found = lab.b.mesh.findLocalWorkload({
    name,
    namespace: "default",
    serviceAccount: name,
  });
  assert(found !== undefined);
  return found;
}

/** As recorded with AUTHZ_POLICY_INFO_LOGGING. */
const TRACES = [
  { from: "client1", to: "10.77.0.21:8080", lines: ["no allow policies, allow"] },
  {
    from: "client1",
    to: "10.77.0.22:8080",
    lines: ['allow policy match policy="default/allow-client1"'],
  },
  { from: "client2", to: "10.77.0.22:8080", lines: ["no allow policies matched"] },
  {
    from: "client1",
    to: "10.77.0.22:8081",
    lines: ['deny policy match policy="default/deny-8081"'],
  },
  {
    from: "client1",
    to: "10.77.0.23:8080",
    lines: ['dry-run: deny policy match policy="default/dry-run-deny"', "no allow policies, allow"],
  },
  { from: "outside", to: "10.77.0.22:8080", lines: ["no allow policies matched"] },
];

for (const { from, to, lines } of TRACES) {
  test(`tells at info why ${from} may or may not reach ${to}`, async () => {
    const lab = makeLab("info", { policyInfoLogging: true });
    await greet(lab, lab.pod(from), to);
    const traced = lab.b.log.of("ztunnel::state");
    assert.deepEqual(
      traced.map(({ level, message, fields }) =>
        [level, message, ...fields.map(([name, value]) => `${name}="${value}"`)].join(" "),
      ),
      lines.map((line) => `info ${line}`),
    );
    const pattern =
      from === "outside"
        ? /^proxy\{wl=default\/server\d\}$/
        : /^proxy\{wl=default\/server\d\}:inbound\{id=[0-9a-f]{32} peer=10\.77\.0\.1\d:\d+\}$/;
    for (const { spans } of traced) assert.match(spans.join(":"), pattern);
  });
}

test("says nothing about policies at info unless asked to", async () => {
  const lab = makeLab();
  await greet(lab, lab.pod("client1"), "10.77.0.22:8080");
  assert.deepEqual(lab.b.log.of("ztunnel::state"), []);
});
