import assert from "node:assert/strict";
import { test } from "node:test";
import { serviceKey } from "../../src/mesh/service.ts";
import type { ProxyOptions } from "../../src/proxy/proxy-options.ts";
import type { MeshState } from "../../src/state/mesh-state.ts";
import { quiet } from "../support/memory-engine.ts";
import { gateway, mesh } from "../support/mesh-fixture.ts";
import { greet, type Lab, makeLab } from "./lab.ts";
import { CLIENT_1, workload } from "./recorded-mesh.ts";

test("a workload that the mesh learns in time is served without a warning", async () => {
  const lab = makeLab();
  const socket = lab.pod("stranger").dial("10.77.0.32:8080");
  socket.write("x");
  await lab.clock.advance(4_999);
  assert.equal(socket.read(), "");
  const stranger = workload("stranger", "10.77.0.15", { node: "node-a" });
  lab.a.mesh.apply([{ kind: "workload", workload: stranger }]);
  await quiet();
  assert.equal(socket.read(), "xx");
  assert.deepEqual(lab.a.log.lines, []);
  assert.equal(lab.clock.pendingCount, 0);
});

test("a proxy that closes while it waits for its workload serves nobody later", async () => {
  const lab = makeLab();
  const client = lab.pod("stranger").dial("10.77.0.32:8080");
  await quiet();
  await lab.proxy("stranger").close();
  lab.a.log.clear();
  const stranger = workload("stranger", "10.77.0.15", { node: "node-a" });
  lab.a.mesh.apply([{ kind: "workload", workload: stranger }]);
  await quiet();
  assert.equal(client.readEnd, "fin");
  assert.deepEqual(lab.a.log.lines, []);
  assert.deepEqual(lab.network.engine.connects, []);
});

test("a workload of another node with the same name is not ours", async () => {
  const lab = makeLab();
  const elsewhere = workload("stranger", "10.77.0.15", { node: "node-b" });
  lab.a.mesh.apply([{ kind: "workload", workload: elsewhere }]);
  const { end } = await greet(lab, lab.pod("stranger"), "10.77.0.32:8080");
  assert.equal(end, "ECONNRESET");
  const [warning, refused] = lab.a.log.lines;
  assert.equal(
    warning?.message,
    "timed out waiting for workload 'stranger.default (stranger)' from xds",
  );
  assert.match(
    warning.spans.join(":"),
    /^proxy\{wl=default\/stranger\}:outbound\{id=[0-9a-f]{32}\}$/,
  );
  assert.equal(warning.target, "ztunnel::state");
  assert.equal(refused?.message, "connection failed");
});

test("what a route needs is asked for on demand, each key once, before the way is chosen", async () => {
  const lab = makeLab();
  const asked: string[] = [];
  const hostname = "waypoint.default.svc.cluster.local";
  lab.a.learn = async (key) => {
    asked.push(key);
    if (key !== "/10.77.0.60") return;
    const waypoint = {
      destination: { kind: "hostname", namespace: "default", hostname },
      hboneMtlsPort: 15008,
    } as const;
    const found = workload("behind", "10.77.0.60", { waypoint });
    lab.a.mesh.apply([{ kind: "workload", workload: found }]);
  };
  lab.a.mesh.apply([
    { kind: "workload", workload: workload("eager", "10.77.0.16", { node: "node-a" }) },
  ]);
  const pod = lab.network.pod("10.77.0.16", "captured");
  lab.a.enroll("eager", pod);
  lab.a.log.clear();
  const client = pod.dial("10.77.0.60:8080");
  await quiet();
  assert.deepEqual(asked, ["/10.77.0.60", `default/${hostname}`]);
  assert.equal(client.readEnd, "fin");
  const [line] = lab.a.log.of("access");
  assert.match(String(Object.fromEntries(line?.fields ?? [])["error"]), /^unknown waypoint/);
  pod.dial("10.77.0.21:8080");
  await quiet();
  assert.equal(asked.length, 2);
});

test("a network gateway is asked for when an endpoint behind it was chosen", async () => {
  const lab = makeLab();
  const asked: string[] = [];
  lab.a.learn = async (key) => {
    asked.push(key);
    const gateway = mesh.workload("gw").at("10.77.0.34").hbone().network("far");
    if (key === "far/10.77.0.34") lab.a.mesh.apply([{ kind: "workload", workload: gateway.value }]);
  };
  const vip = mesh.service("abroad").at("10.78.0.91").port(80, 8080);
  const endpoint = mesh
    .workload("abroad")
    .hbone()
    .behind(vip)
    .network("far")
    .with({ networkGateway: gateway("far/10.77.0.34") });
  lab.a.mesh.apply([
    { kind: "workload", workload: workload("eager", "10.77.0.16", { node: "node-a" }) },
    { kind: "service", service: vip.value },
    { kind: "workload", workload: endpoint.value },
  ]);
  const pod = lab.network.pod("10.77.0.16", "captured");
  lab.a.enroll("eager", pod);
  lab.a.log.clear();
  pod.dial("10.78.0.91:80");
  await quiet();
  assert.deepEqual(asked, ["far/10.77.0.34"]);
  assert.equal(
    complete(lab)["error"],
    "io error: Connection refused (os error 111), at network gateway default/gw",
  );
});

test("a connection into another network that is ended before anybody answered is reported", async () => {
  const lab = makeLab();
  const vip = mesh.service("abroad").at("10.78.0.91").port(80, 8080);
  const parts = [
    mesh
      .workload("abroad")
      .hbone()
      .behind(vip)
      .network("far")
      .with({ networkGateway: gateway("far/10.98.0.9") }),
    mesh.workload("gw").at("10.98.0.9").hbone().network("far"),
  ];
  lab.a.mesh.apply([
    { kind: "service", service: vip.value },
    ...parts.map(({ value }) => ({ kind: "workload", workload: value }) as const),
  ]);
  lab.pod("client1").dial("10.78.0.91:80");
  await quiet();
  await lab.proxy("client1").close();
  await lab.clock.advance(10_000);
  const fields = complete(lab);
  assert.equal(fields["error"], "connection closed due to connection drain");
  assert.equal(fields["dst.workload"], "gw");
  const [series] = lab.a.traffic.collect().series;
  assert.deepEqual([series?.opened, series?.closed, series?.failed], [1, 1, 0]);
});

test("without a certificate the connection fails as an identity error", async () => {
  const lab = makeLab();
  lab.a.certificateFor = () => Promise.reject(new Error("the authority is away"));
  const { end } = await greet(lab, lab.pod("client1"), "10.77.0.21:8080");
  assert.equal(end, "ECONNRESET");
  const [line] = lab.a.log.of("access");
  assert.equal(line?.message, "connection complete");
  assert.equal(Object.fromEntries(line.fields)["error"], "identity error: the authority is away");
  const failed = lab.a.traffic.collect().series.filter((one) => one.failed > 0);
  assert.deepEqual(
    failed.map(({ labels }) => labels[21]),
    ["IDENTITY_ERROR"],
  );
});

test("a trust domain comes from the mesh, the rest of the identity from the node agent", async () => {
  const lab = makeLab();
  lab.a.mesh.apply([{ kind: "workload", workload: { ...CLIENT_1, trustDomain: "other.example" } }]);
  const asked: unknown[] = [];
  const { certificateFor } = lab.a;
  lab.a.certificateFor = (identity) => {
    asked.push(identity);
    return certificateFor(identity);
  };
  await greet(lab, lab.pod("client1"), "10.77.0.21:8080");
  assert.deepEqual(asked, [
    { trustDomain: "other.example", namespace: "default", serviceAccount: "client1" },
  ]);
});

test("dials with the mark and never with a spoofed source", async () => {
  const lab = makeLab();
  await greet(lab, lab.pod("client1"), "10.77.0.32:8080");
  await greet(lab, lab.pod("client1"), "10.77.0.21:8080");
  const dialled = lab.network.engine.connects.slice(0, 2);
  assert.deepEqual(
    dialled.map(({ remote, source, mark, timeoutMs, keepAlive }) => ({
      port: remote.port,
      source,
      mark,
      timeoutMs,
      keepsAlive: keepAlive !== undefined,
    })),
    [8080, 15008].map((port) => ({
      port,
      source: undefined,
      mark: 1337,
      timeoutMs: 10_000,
      keepsAlive: true,
    })),
  );
});

test("an opened connection is a line at debug, without its outcome", async () => {
  const lab = makeLab("debug");
  await greet(lab, lab.pod("client1"), "10.78.0.1:80");
  const [opened, complete] = lab.a.log.of("access");
  assert.deepEqual([opened?.level, opened?.message], ["debug", "connection opened"]);
  assert.deepEqual(complete?.fields.slice(0, opened?.fields.length), opened?.fields);
  assert.deepEqual(
    complete?.fields.slice(opened?.fields.length).map(([name]) => name),
    ["bytes_sent", "bytes_recv", "duration"],
  );
});

test("duration counts from the accept, in whole milliseconds", async () => {
  const lab = makeLab();
  const socket = lab.pod("client1").dial("10.77.0.32:8080");
  await lab.clock.advance(1_234.9);
  socket.end();
  await quiet();
  const [line] = lab.a.log.of("access");
  assert.equal(Object.fromEntries(line?.fields ?? [])["duration"], "1234ms");
});

test("open sockets are those of clients, whatever becomes of them", async () => {
  const lab = makeLab();
  const changes = (): unknown => lab.a.traffic.collect().socketsOpen;
  const clients = [
    lab.pod("client1").dial("10.77.0.32:8080"),
    lab.pod("client1").dial("10.98.0.1:80"),
    lab.pod("client1").dial("10.78.0.3:80"),
  ];
  await quiet();
  assert.deepEqual(changes(), [{ reporter: "source", change: 2 }]);
  assert.deepEqual(changes(), []);
  clients[0]?.reset();
  await lab.clock.advance(10_000);
  assert.deepEqual(changes(), [{ reporter: "source", change: -2 }]);
});

/** A service of server1 and of endpoints that are asked first, for their weight. */
function labWithDeadEndpoints(
  dead: readonly { name: string; at: string }[],
  options: Partial<ProxyOptions> & { readonly server1?: "Unhealthy" } = {},
): Lab {
  const lab = makeLab("info", options);
  const vip = mesh.service("pool").at("10.78.0.90").port(80, 8080);
  const parts = [
    mesh
      .workload("server1")
      .at("10.77.0.21")
      .hbone()
      .behind(vip)
      .with({ status: options.server1 ?? "Healthy" }),
    ...dead.map(({ name, at }, i) =>
      mesh
        .workload(name)
        .at(at)
        .hbone()
        .behind(vip)
        .with({ capacity: 1e9 / 1000 ** i }),
    ),
  ];
  lab.a.mesh.apply([
    { kind: "service", service: vip.value },
    ...parts.map(({ value }) => ({ kind: "workload", workload: value }) as const),
  ]);
  return lab;
}

const DEAD = [
  { name: "dead1", at: "10.77.0.34" },
  { name: "dead2", at: "10.77.0.33" },
];

function complete(lab: Lab): Record<string, unknown> {
  return Object.fromEntries(lab.a.log.of("access").at(-1)?.fields ?? []);
}

test("another endpoint is tried when one can't be reached, and everybody is told", async () => {
  const lab = labWithDeadEndpoints(DEAD.slice(0, 1));
  assert.deepEqual(await greet(lab, lab.pod("client1"), "10.78.0.90:80"), {
    received: "hello worldhello world",
    end: "EOF",
  });
  const fields = complete(lab);
  assert.equal(fields["dst.workload"], "server1");
  assert.equal(fields["error"], undefined);
  assert.deepEqual(Object.entries(fields).slice(-3), [
    ["duration", fields["duration"]],
    ["retries", 1],
    ["retry_error", "10.77.0.34:15008: io error: Connection refused (os error 111)"],
  ]);
  const sample = lab.a.traffic.collect();
  assert.equal(sample.retries, 1);
  assert.deepEqual(
    sample.series.map(({ labels, opened, closed, failed, receivedBytes }) => [
      labels[12],
      labels[21],
      ...[opened, closed, failed, receivedBytes],
    ]),
    [
      ["dead1", "-", 1, 0, 0, 0],
      ["dead1", "CONNECT", 0, 1, 1, 0],
      ["server1", "-", 1, 1, 0, 11],
    ],
  );
});

test("as many endpoints are tried as configured, the last error is the connection's", async () => {
  const lab = labWithDeadEndpoints([...DEAD, { name: "dead3", at: "10.98.0.9" }], {
    connectRetriesMax: 2,
  });
  const { end } = await greet(lab, lab.pod("client1"), "10.78.0.90:80");
  assert.equal(end, "ECONNRESET");
  const fields = complete(lab);
  assert.deepEqual(
    ["dst.workload", "retries", "retry_error", "error"].map((name) => fields[name]),
    [
      "dead3",
      2,
      "10.77.0.33:15008: io error: Connection refused (os error 111)",
      "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has elapsed",
    ],
  );
});

test("an endpoint that fails often enough is no longer tried", async () => {
  const outliers = {
    consecutiveFailures: 2,
    windowMs: 60_000,
    baseEjectionMs: 30_000,
    ejectionMaxMs: 30_000,
    ejectionMaxPercent: 50,
  };
  const lab = labWithDeadEndpoints(DEAD.slice(0, 1), { outliers });
  const retries = async (): Promise<unknown> => {
    await greet(lab, lab.pod("client1"), "10.78.0.90:80");
    return complete(lab)["retries"];
  };
  assert.deepEqual([await retries(), await retries(), await retries()], [1, 1, undefined]);
  await lab.clock.advance(30_000);
  assert.deepEqual([await retries(), await retries()], [1, undefined]);
});

test("a waypoint is left out when it can't be reached, not when it can't reach what is behind", async () => {
  const waypoints = mesh.service("waypoints").port(15008, 15008);
  const gated = mesh
    .service("gated")
    .at("10.78.0.91")
    .port(80, 8080)
    .with({ waypoint: gateway(`default/${waypoints.value.hostname}`) });
  const stands = new Map([[serviceKey(waypoints.value), waypoints.value.ports]]);
  const updates = [
    { kind: "service", service: waypoints.value },
    { kind: "service", service: gated.value },
    ...["server1", "server2"].map((name, i) => ({
      kind: "workload" as const,
      workload: workload(name, `10.77.0.2${i + 1}`, { services: stands }),
    })),
  ] as const;
  const lab = makeLab("info", {
    outliers: {
      consecutiveFailures: 2,
      windowMs: 60_000,
      baseEjectionMs: 30_000,
      ejectionMaxMs: 30_000,
      ejectionMaxPercent: 50,
    },
  });
  for (const node of [lab.a, lab.b]) node.mesh.apply(updates);
  const call = async (): Promise<unknown> => {
    await greet(lab, lab.pod("client1"), "10.78.0.91:80");
    return complete(lab)["error"];
  };
  for (let i = 0; i < 4; i++) {
    assert.equal(await call(), "http status: 503 Service Unavailable");
  }
  assert.equal(lab.a.outliers?.leftOut(waypoints.value, 15008), undefined);
  const away = workload("server1", "10.77.0.34", { services: stands, uid: "away", capacity: 1e9 });
  lab.a.mesh.apply([{ kind: "workload", workload: away }]);
  for (let i = 0; i < 4; i++) await call();
  assert.deepEqual(lab.a.outliers?.leftOut(waypoints.value, 15008), new Set(["away"]));
});

test("when no other endpoint is left the connection fails with what it failed with", async () => {
  const lab = labWithDeadEndpoints(DEAD.slice(0, 1), { server1: "Unhealthy" });
  await greet(lab, lab.pod("client1"), "10.78.0.90:80");
  const fields = complete(lab);
  assert.equal(fields["error"], "io error: Connection refused (os error 111)");
  assert.equal(fields["retries"], undefined);
  assert.equal(lab.a.traffic.collect().retries, 0);
});

test("with no retries configured the first endpoint's failure is final", async () => {
  const lab = labWithDeadEndpoints(DEAD.slice(0, 1), { connectRetriesMax: 0 });
  await greet(lab, lab.pod("client1"), "10.78.0.90:80");
  assert.equal(complete(lab)["error"], "io error: Connection refused (os error 111)");
});

test("an endpoint whose application is down is passed over, one that says no is not", async () => {
  for (const [status, retries] of [
    [503, 1],
    [401, undefined],
  ] as const) {
    const lab = labWithDeadEndpoints([{ name: "server2", at: "10.77.0.22" }]);
    lab.pod("server2").stopServing(8080);
    lab.b.mesh.apply([
      {
        kind: "workload",
        workload: workload("server2", "10.77.0.22", {
          authorizationPolicies: status === 401 ? ["default/nobody"] : [],
        }),
      },
      { kind: "policy", policy: mesh.allow("nobody").value },
    ]);
    await greet(lab, lab.pod("client1"), "10.78.0.90:80");
    const fields = complete(lab);
    assert.equal(fields["retries"], retries);
    assert.equal(fields["error"], status === 401 ? "http status: 401 Unauthorized" : undefined);
  }
});

test("a bug that one connection meets ends that one, on either side", async () => {
  const lab = makeLab();
  const meet = (mesh: MeshState, method: "servicesOf" | "findWorkloadByAddress"): void => {
    mesh[method] = () => {
      Reflect.deleteProperty(mesh, method);
      throw new TypeError("a bug");
    };
  };
  for (const [node, from, to] of [
    ["a", "client1", "10.77.0.21:8080"],
    ["b", "client1", "10.77.0.21:8080"],
    ["b", "plain", "10.77.0.21:8080"],
  ] as const) {
    lab[node].log.clear();
    meet(lab[node].mesh, node === "a" ? "findWorkloadByAddress" : "servicesOf");
    assert.notEqual((await greet(lab, lab.pod(from), to)).received, "hello worldhello world");
    const errors = lab[node].log.of("ztunnel::proxy").filter(({ level }) => level === "error");
    assert.match(
      errors[0]?.message ?? "",
      /^closed a connection because of a bug: TypeError: a bug\n/,
    );
    assert.equal((await greet(lab, lab.pod(from), to)).received, "hello worldhello world");
  }
});
