import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClientTunnel, End } from "../../src/engine/engine.ts";
import { EngineError } from "../../src/engine/engine-error.ts";
import type { Identity } from "../../src/mesh/identity.ts";
import { formatSocketAddress } from "../../src/mesh/socket-address.ts";
import { peerIdentities } from "../../src/tls/spiffe-verifier.ts";
import { memoryCertificate } from "../support/memory-certificate.ts";
import { quiet } from "../support/memory-engine.ts";
import type { MemorySocket } from "../support/memory-socket.ts";
import { cidr } from "../support/mesh-fixture.ts";
import { readProxyHeader } from "../support/proxy-header-reader.ts";
import { dialOptions, dialPeer, greet, type Lab, makeLab } from "./lab.ts";
import { policy, workload } from "./recorded-mesh.ts";

const CLIENT: Identity = {
  trustDomain: "cluster.local",
  namespace: "default",
  serviceAccount: "client1",
};

/** A tunnel of a hand-made peer to server1. */
function peer(lab: Lab, from = "outside", identity = CLIENT): Promise<ClientTunnel> {
  return dialPeer(lab, lab.pod(from), "10.77.0.21", memoryCertificate(identity));
}

for (const { authority, status, error } of [
  { authority: "10.77.0.21:8080", status: 200, error: undefined },
  { authority: "echo.default.svc.cluster.local:80", status: 200, error: undefined },
  {
    authority: "nonsense",
    status: 400,
    error: "no valid authority pseudo header: nonsense",
  },
  { authority: "10.77.0.22:8080", status: 400, error: "ip mismatch: 10.77.0.21 != 10.77.0.22" },
  {
    authority: "nobody.example:80",
    status: 503,
    error: "no service or workload for hostname: nobody.example",
  },
  { authority: "10.77.0.21:15006", status: 503, error: "attempted recursive call to ourselves" },
]) {
  test(`a CONNECT to ${authority} is answered ${status}`, async () => {
    const lab = makeLab();
    const { status: answered } = await (await peer(lab)).open(authority, []);
    assert.equal(answered, status);
    const refused = lab.b.log
      .of("access")
      .filter(({ message }) => message === "connection failed")
      .map(({ level, fields }) => ({ level, ...Object.fromEntries(fields) }));
    assert.deepEqual(
      refused.map(({ "src.addr": _, ...rest }: Record<string, unknown>) => rest),
      error === undefined
        ? []
        : [
            {
              level: "warn",
              "dst.addr": { bare: "10.77.0.21:15008" },
              direction: "inbound",
              error,
            },
          ],
    );
    assert.equal(lab.b.traffic.collect().series.length, error === undefined ? 1 : 0);
  });
}

test("response baggage: the answer tells who the workload is", async () => {
  const lab = makeLab();
  const { headers } = await (await peer(lab)).open("10.77.0.21:8080", []);
  assert.deepEqual(
    [...headers],
    [
      [
        "baggage",
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=server1,service.name=server1,service.version=v1",
      ],
    ],
  );
});

test("response baggage gate: without it neither ours is sent nor the baggage of requests believed", async () => {
  const lab = makeLab("info", { responseBaggage: false });
  const tunnel = await peer(lab);
  const { headers } = await tunnel.open("10.77.0.21:8080", [["baggage", "service.name=guess"]]);
  assert.deepEqual([...headers], []);
  assert.equal(lab.b.traffic.collect().series[0]?.labels[2], "unknown");
});

for (const { localhostTunnel, remote, source } of [
  { localhostTunnel: true, remote: "127.0.0.1:15088", source: undefined },
  { localhostTunnel: false, remote: "10.77.0.21:15088", source: "10.77.0.31" },
]) {
  test(`an application that is told of its clients is reached at ${remote}`, async () => {
    const lab = makeLab("info", { localhostTunnel });
    const applicationTunnel = { protocol: "PROXY", port: 15_088 } as const;
    const server = workload("server1", "10.77.0.21", { applicationTunnel });
    lab.b.mesh.apply([{ kind: "workload", workload: server }]);
    let heard: MemorySocket | undefined;
    lab.pod("server1").serve(15_088, (socket) => {
      heard = socket;
    });
    const answer = await (await peer(lab)).open("10.1.1.1:80", []);
    (answer.end as MemorySocket).write("hello");
    await quiet();
    const dialled = lab.network.engine.connects.at(-1);
    assert.deepEqual(
      [dialled && formatSocketAddress(dialled.remote), dialled?.source],
      [remote, source],
    );
    const bytes = Buffer.from(heard?.read() ?? "", "latin1");
    const header = readProxyHeader(bytes);
    assert.match(header?.source ?? "", /^10\.77\.0\.31:/);
    assert.equal(header?.destination, "10.1.1.1:80");
    assert.equal(header.identity, "spiffe://cluster.local/ns/default/sa/client1");
    assert.equal(bytes.subarray(header.length).toString(), "hello");
  });
}

const BAGGAGE =
  "k8s.cluster.name=far,k8s.namespace.name=ns,k8s.deployment.name=app,service.name=canon,service.version=v9,cloud.region=r,cloud.availability_zone=z";

for (const { what, from, network, source } of [
  { what: "an unknown peer", from: "outside", network: undefined, source: "baggage" },
  { what: "a known peer", from: "client1", network: undefined, source: "mesh" },
  { what: "a peer of the same network", from: "client1", network: "", source: "mesh" },
  { what: "a peer of another network", from: "client1", network: "other", source: "baggage" },
] as const) {
  test(`${what} is described by the ${source}`, async () => {
    const lab = makeLab();
    const headers: [string, string][] = [["baggage", BAGGAGE]];
    if (network !== undefined) headers.push(["x-forwarded-network", network]);
    const tunnel = await dialPeer(lab, lab.pod(from), "10.77.0.21", memoryCertificate(CLIENT));
    const answer = await tunnel.open("10.77.0.21:8080", headers);
    (answer.end as MemorySocket).end();
    await quiet();
    const [delta] = lab.b.traffic.collect().series;
    const fields = Object.fromEntries(lab.b.log.of("access")[0]?.fields ?? []);
    const principal = "spiffe://cluster.local/ns/default/sa/client1";
    if (source === "mesh") {
      assert.deepEqual(delta?.labels.slice(1, 9), [
        "client1",
        "client1",
        "v1",
        "default",
        principal,
        "client1",
        "v1",
        "Kubernetes",
      ]);
      assert.equal(fields["src.workload"], "client1");
    } else {
      assert.deepEqual(delta?.labels.slice(1, 9), [
        "app",
        "canon",
        "v9",
        "ns",
        principal,
        "app",
        "v9",
        "far",
      ]);
      assert.deepEqual(delta?.labels.slice(23, 25), ["r", "z"]);
      assert.deepEqual(
        [fields["src.workload"], fields["src.namespace"], fields["src.cluster"]],
        ["canon", "ns", "far"],
      );
    }
    assert.equal(fields["src.identity"], principal);
  });
}

for (const { what, dial, error } of [
  {
    what: "a peer of another trust domain",
    dial: (lab: Lab) => peer(lab, "outside", { ...CLIENT, trustDomain: "evil.example" }),
    error:
      'tls handshake error: Custom { kind: InvalidData, error: InvalidCertificate(Other(OtherError(SanTrustDomainError("cluster.local", [Spiffe { trust_domain: "evil.example", namespace: "default", service_account: "client1" }])))) }',
  },
  {
    what: "a peer with a certificate of another root",
    dial: (lab: Lab) =>
      dialPeer(lab, lab.pod("outside"), "10.77.0.21", memoryCertificate(CLIENT, "other root")),
    error: "tls handshake error: Custom { kind: InvalidData, error: AlertReceived(UnknownCA) }",
  },
]) {
  test(`${what} is refused in the handshake`, async () => {
    const lab = makeLab();
    await assert.rejects(dial(lab), EngineError);
    const [line] = lab.b.log.of("access");
    assert.equal(line?.message, "connection failed");
    assert.equal(Object.fromEntries(line.fields)["error"], error);
    assert.deepEqual(lab.b.traffic.collect(), {
      series: [],
      socketsOpen: [{ reporter: "destination", change: 0 }],
      unknownPolicies: { deny: 0, allow: 0 },
      revocations: {
        source: { rejected: 0, untracked: 0 },
        destination: { rejected: 0, untracked: 0 },
      },
      lookups: [],
      retries: 0,
    });
  });
}

test("a peer of a further trust domain is served where TRUST_DOMAINS names it", async () => {
  const lab = makeLab("info", { trustDomains: ["old.example"] });
  const tunnel = await peer(lab, "outside", { ...CLIENT, trustDomain: "old.example" });
  assert.equal((await tunnel.open("10.77.0.21:8080", [])).status, 200);
  await assert.rejects(
    peer(lab, "outside", { ...CLIENT, trustDomain: "evil.example" }),
    EngineError,
  );
});

test("without a certificate of its own a proxy refuses peers and says why", async () => {
  const lab = makeLab();
  lab.b.certificateFor = () => Promise.reject(new Error("the authority is away"));
  await assert.rejects(peer(lab));
  const [line] = lab.b.log.of("access");
  assert.equal(
    Object.fromEntries(line?.fields ?? [])["error"],
    "signing error: the authority is away",
  );
});

test("a peer is served as soon as the mesh knows the workload", async () => {
  const lab = makeLab();
  const pod = lab.network.pod("10.77.0.28", "captured");
  lab.b.enroll("late", pod);
  const tunnel = dialPeer(lab, lab.pod("outside"), "10.77.0.28", memoryCertificate(CLIENT));
  await lab.clock.advance(4_900);
  lab.b.mesh.apply([{ kind: "workload", workload: workload("late", "10.77.0.28") }]);
  assert.equal((await (await tunnel).open("10.77.0.28:1", [])).status, 503);
  assert.deepEqual(
    lab.b.log.of("ztunnel::state").filter(({ level }) => level === "warn"),
    [],
  );
});

test("a peer that gives up before the answer leaves no connection behind", async () => {
  const lab = makeLab();
  const tunnel = await peer(lab);
  lab.network.silent.add("10.77.0.21");
  const answer = tunnel.open("10.77.0.21:8080", []);
  await quiet();
  tunnel.destroy();
  await assert.rejects(answer, { code: "tunnel-closed" });
  await quiet();
  assert.deepEqual(lab.proxy("server1").connections().inbound, []);
  const [line] = lab.b.log.of("access");
  assert.equal(
    Object.fromEntries(line?.fields ?? [])["error"],
    "client disconnected before its request was answered",
  );
  await lab.clock.advance(10_000);
  assert.equal(lab.b.log.of("access").length, 1);
});

test("an application that answers after its peer gave up is let go", async () => {
  const lab = makeLab();
  let server: MemorySocket | undefined;
  lab.pod("server1").serve(9000, (socket) => {
    server = socket;
  });
  const tunnel = await peer(lab);
  lab.network.delays.set("10.77.0.21", 1_000);
  const answer = tunnel.open("10.77.0.21:9000", []);
  await quiet();
  tunnel.destroy();
  await assert.rejects(answer);
  await lab.clock.advance(1_000);
  await quiet();
  assert.equal(server?.readEnd, "fin");
});

test("a renewed certificate is shown to the next peer", async () => {
  const lab = makeLab();
  const shown: string[] = [];
  const dial = async (): Promise<void> => {
    await lab.network.engine.dialTunnel({
      ...dialOptions(lab.pod("outside"), "10.77.0.21"),
      tls: {
        certificate: memoryCertificate(CLIENT),
        verifyPeer: ({ leafDer }) => {
          shown.push(peerIdentities(leafDer)[0]?.serviceAccount ?? "");
          return undefined;
        },
        tls12: false,
        postQuantumOnly: false,
      },
    });
  };
  await dial();
  lab.b.certificateFor = async (identity) =>
    memoryCertificate({ ...identity, serviceAccount: "renewed" });
  await dial();
  assert.deepEqual(shown, ["server1", "renewed"]);
});

test("an application that never answers the connect is 503 after the time-out", async () => {
  const lab = makeLab();
  const tunnel = await peer(lab);
  lab.network.silent.add("10.77.0.21");
  const answer = tunnel.open("10.77.0.21:8080", []);
  await lab.clock.advance(10_000);
  assert.equal((await answer).status, 503);
  const [line] = lab.b.log.of("access");
  assert.equal(
    Object.fromEntries(line?.fields ?? [])["error"],
    "connection failed: deadline has elapsed",
  );
});

test("streams of one tunnel are judged on their own", async () => {
  const lab = makeLab();
  lab.b.mesh.apply([
    {
      kind: "workload",
      workload: workload("server1", "10.77.0.21", {
        authorizationPolicies: ["default/deny-8081"],
      }),
    },
  ]);
  const tunnel = await peer(lab);
  const answers = await Promise.all(
    [8080, 8081, 8080].map((port) => tunnel.open(`10.77.0.21:${port}`, [])),
  );
  assert.deepEqual(
    answers.map(({ status }) => status),
    [200, 401, 200],
  );
});

test("policies see the pod's address and the application's port, whatever the authority names", async () => {
  for (const [what, match] of [
    ["the application's port", { destinationPorts: [8080] }],
    ["the pod's address", { destinationIps: [cidr("10.77.0.21/32")] }],
  ] as const) {
    const lab = makeLab();
    lab.b.mesh.apply([
      { kind: "policy", policy: { ...policy("deny", "Deny", match), scope: "Namespace" } },
    ]);
    const { status } = await (await peer(lab)).open("echo.default.svc.cluster.local:80", []);
    assert.equal(status, 401, what);
  }
  const lab = makeLab();
  const others = {
    ...policy("deny", "Deny", { destinationPorts: [80, 15_008] }),
    scope: "Namespace" as const,
  };
  lab.b.mesh.apply([{ kind: "policy", policy: others }]);
  const { status } = await (await peer(lab)).open("echo.default.svc.cluster.local:80", []);
  assert.equal(status, 200);
});

test("the application sees the peer's address, never the one that it says to forward for", async () => {
  const lab = makeLab();
  await (await peer(lab)).open("10.77.0.21:8080", [["forwarded", 'for="10.77.0.99:1234"']]);
  const dialled = lab.network.engine.connects.at(-1);
  assert.equal(dialled?.source, lab.pod("outside").ip);
});

test("a server that resets resets the client, and that is nobody's error", async () => {
  const lab = makeLab();
  lab.pod("server1").serve(9000, (socket) => socket.reset());
  const client = lab.pod("client1").dial("10.77.0.21:9000");
  await quiet();
  assert.equal(client.readEnd, "reset");
  for (const node of [lab.a, lab.b]) {
    assert.deepEqual(
      node.log.of("access").map(({ level }) => level),
      ["info"],
    );
  }
});

test("a client that resets resets the server", async () => {
  const lab = makeLab();
  let server: MemorySocket | undefined;
  lab.pod("server1").serve(9000, (socket) => {
    server = socket;
  });
  const client = lab.pod("client1").dial("10.77.0.21:9000");
  await quiet();
  client.reset();
  await quiet();
  assert.equal(server?.readEnd, "reset");
  assert.ok(lab.b.access().every((line) => line.startsWith("info")));
});

for (const first of ["client", "server"] as const) {
  test(`the ${first} may end its direction first and still receive`, async () => {
    const lab = makeLab();
    let server: MemorySocket | undefined;
    lab.pod("server1").serve(9000, (socket) => {
      server = socket;
    });
    const client = lab.pod("client1").dial("10.77.0.21:9000");
    await quiet();
    assert.ok(server !== undefined);
    const [one, other] = first === "client" ? [client, server] : [server, client];
    one.end();
    await quiet();
    assert.equal(other.readEnd, "fin");
    other.write("much later");
    await quiet();
    assert.equal(one.read(), "much later");
    assert.equal(one.readEnd, "open");
    other.end();
    await quiet();
    assert.equal(one.readEnd, "fin");
    assert.ok(lab.a.access()[0]?.includes(first === "client" ? "bytes_recv=10" : "bytes_sent=10"));
  });
}

test("what could not be written makes the end an error", async () => {
  const lab = makeLab();
  await greetOpen(lab);
  for (const relay of lab.network.engine.relays) {
    relay.break("sent", new EngineError("disconnected", "the peer has left"));
  }
  await quiet();
  const errors = [...lab.a.log.of("access"), ...lab.b.log.of("access")].map(
    ({ level, fields }) => `${level}: ${Object.fromEntries(fields)["error"]}`,
  );
  const text = "error: send: destination disconnected before all data was written";
  assert.deepEqual(errors, [text, text]);
  assert.deepEqual(
    lab.b.traffic.collect().series.map(({ labels, failed }) => [labels[21], failed]),
    [
      ["-", 0],
      ["CONNECT", 1],
    ],
  );
});

test("bytes count while the connection lives", async () => {
  const lab = makeLab();
  const client = await greetOpen(lab);
  const bytes = (): readonly number[][] =>
    lab.b.traffic.collect().series.map((one) => [one.opened, one.receivedBytes, one.sentBytes]);
  assert.deepEqual(bytes(), [[1, 5, 10]]);
  assert.deepEqual(bytes(), []);
  client.write("more");
  await quiet();
  assert.deepEqual(bytes(), [[0, 4, 8]]);
});

test("connections of one client share a tunnel, other clients have their own", async () => {
  const lab = makeLab();
  for (const from of ["client1", "client1", "client2", "client1"]) {
    await greet(lab, lab.pod(from), "10.77.0.21:8080");
  }
  assert.equal(lab.network.dialCount, 2);
  const sockets = lab.b.traffic.collect().socketsOpen;
  assert.deepEqual(sockets, [{ reporter: "destination", change: 2 }]);
});

test("a policy that comes while the application is dialled answers 401", async () => {
  const lab = makeLab();
  const tunnel = await peer(lab);
  lab.network.silent.add("10.77.0.21");
  const answer = tunnel.open("10.77.0.21:8080", []);
  await quiet();
  lab.b.mesh.apply([
    {
      kind: "policy",
      policy: { ...policy("deny", "Deny", { destinationPorts: [8080] }), scope: "Namespace" },
    },
  ]);
  assert.equal((await answer).status, 401);
});

/** A connection from client1 that has been echoed 5 bytes. */
async function greetOpen(lab: Lab): Promise<MemorySocket & End> {
  const client = lab.pod("client1").dial("10.77.0.21:8080");
  client.write("hello");
  await quiet();
  assert.equal(client.read(), "hellohello");
  return client;
}
