import assert from "node:assert/strict";
import { test } from "node:test";
import { quiet } from "../support/memory-engine.ts";
import type { MemorySocket } from "../support/memory-socket.ts";
import { echoTwice, greet, type Lab, makeLab, type Node } from "./lab.ts";

/** A connection from client1 to server1 through both proxies, and the application's side of it. */
async function connected(
  lab: Lab,
  to = "10.77.0.21:9000",
): Promise<{ client: MemorySocket; server: MemorySocket }> {
  let server: MemorySocket | undefined;
  lab.pod("server1").serve(9000, (socket) => {
    server = socket;
  });
  const client = lab.pod("client1").dial(to);
  client.write("hi");
  await quiet();
  assert.ok(server !== undefined, "the application was reached");
  assert.equal(server.read(), "hi");
  return { client, server };
}

function messages(node: Node): readonly string[] {
  return node.log.lines.map(({ level, target, spans, message, fields }) => {
    const shown = fields
      .filter(([name]) => ["component", "error"].includes(name))
      .map(([, value]) => String(value));
    return [level, target, ...spans, message, ...shown].join(" | ");
  });
}

test("listens on all ports with the options that each needs, mark and reuseport among them", () => {
  const lab = makeLab();
  const listens = lab.network.engine.listens.slice(0, 3).map((options) => ({
    port: options.address.port,
    ip: options.address.ip,
    mark: options.mark,
    reusePort: options.reusePort,
    transparent: options.transparent,
    backlog: options.backlog,
    keepsAlive: options.keepAlive !== undefined,
    originalDestination: options.originalDestination,
  }));
  const shared = { ip: "::", mark: 1337, reusePort: true, transparent: "try", backlog: 128 };
  assert.deepEqual(listens, [
    { port: 15008, ...shared, keepsAlive: false, originalDestination: false },
    { port: 15006, ...shared, keepsAlive: true, originalDestination: true },
    { port: 15001, ...shared, keepsAlive: true, originalDestination: true },
  ]);
});

test("mark and reuseport are absent where they are not configured, on what listens and what dials", async () => {
  const lab = makeLab("info", { mark: undefined, reusePort: false });
  // Nobody answers there; whoever did would be captured again, for want of a mark.
  lab.pod("client1").dial("10.98.0.9:8080");
  await quiet();
  const { listens, connects } = lab.network.engine;
  const asked = [...listens, ...connects].map((one) => [
    one.mark,
    "reusePort" in one && one.reusePort,
  ]);
  assert.ok(connects.length > 0);
  assert.deepEqual(
    asked,
    asked.map(() => [undefined, false]),
  );
});

test("says which listeners are established, as the original does", () => {
  const lab = makeLab();
  lab.b.proxy("server9", lab.network.pod("10.77.0.29", "captured")).listen();
  assert.deepEqual(
    lab.b.log.lines.map(({ target, spans, message, fields }) => ({
      target,
      spans,
      message,
      fields: Object.fromEntries(fields),
    })),
    (
      [
        ["inbound", "inbound", 15008],
        ["inbound_passthrough", "inbound plaintext", 15006],
        ["outbound", "outbound", 15001],
      ] as const
    ).map(([file, component, port]) => ({
      target: `ztunnel::proxy::${file}`,
      spans: [],
      message: "listener established",
      fields: { address: { bare: `[::]:${port}` }, component, transparent: true },
    })),
  );
});

test("connections wait until the proxy starts", async () => {
  const lab = makeLab();
  const pod = lab.network.pod("10.77.0.13", "captured");
  const proxy = lab.a.proxy("client1", pod);
  proxy.listen();
  const socket = pod.dial("10.77.0.32:8080");
  socket.write("x");
  await quiet();
  assert.equal(socket.read(), "");
  proxy.start();
  await quiet();
  assert.equal(socket.read(), "xx");
});

test("a taken port fails the start with the text of the original and leaves nothing bound", () => {
  const lab = makeLab();
  const pod = lab.network.pod("10.77.0.29", "captured");
  pod.serve(15006, echoTwice);
  assert.throws(() => lab.b.proxy("server9", pod).listen(), {
    name: "ProxyError",
    code: "bind",
    message:
      'Bind([::]:15006, Os { code: 98, kind: AddrInUse, message: "Address already in use" })',
  });
  assert.deepEqual([...pod.acceptors.keys()], [15006]);
});

test("a proxy that must be transparent does not start without", () => {
  const lab = makeLab("info", { originalSource: "required" });
  lab.network.transparent = false;
  const pod = lab.network.pod("10.77.0.29", "captured");
  assert.throws(() => lab.b.proxy("server9", pod).listen(), { code: "bind" });
});

for (const { originalSource, transparent, seen } of [
  { originalSource: "try", transparent: true, seen: "10.77.0.11" },
  { originalSource: "try", transparent: false, seen: "10.77.0.21" },
  { originalSource: "off", transparent: true, seen: "10.77.0.21" },
] as const) {
  test(`the application sees ${seen} with source "${originalSource}" and transparency ${transparent}`, async () => {
    const lab = makeLab("info", { originalSource });
    lab.network.transparent = transparent;
    const pod = lab.network.pod("10.77.0.21", "captured");
    lab.b.enroll("server1", pod);
    const peers: string[] = [];
    pod.serve(9000, (socket) => {
      peers.push(socket.peer.ip);
    });
    lab.pod("client1").dial("10.77.0.21:9000");
    await quiet();
    assert.deepEqual(peers, [seen]);
  });
}

test("a workload that calls itself is dialled without a spoofed source", async () => {
  const lab = makeLab();
  await greet(lab, lab.pod("server1"), "10.78.0.1:80");
  assert.equal(lab.network.engine.connects.at(-1)?.remote.port, 8080);
  assert.equal(lab.network.engine.connects.at(-1)?.source, undefined);
});

test("an idle proxy drains at once and says so", async () => {
  const lab = makeLab();
  await lab.proxy("server1").drain(5_000);
  assert.deepEqual(messages(lab.b), [
    "info | ztunnel::drain | proxy{wl=default/server1} | shutdown complete | inbound",
    "info | ztunnel::drain | proxy{wl=default/server1} | shutdown complete | inbound passthrough",
    "info | ztunnel::drain | proxy{wl=default/server1} | shutdown complete | outbound",
  ]);
  assert.equal(lab.clock.pendingCount, 0);
});

for (const draining of ["client1", "server1"]) {
  test(`a drain of ${draining} waits for connections that end by themselves`, async () => {
    const lab = makeLab();
    const { client, server } = await connected(lab);
    let isDrained = false;
    const drained = lab
      .proxy(draining)
      .drain(5_000)
      .then(() => {
        isDrained = true;
      });
    await lab.clock.advance(1_000);
    client.write("still");
    await quiet();
    assert.equal(server.read(), "still");
    assert.equal(isDrained, false);
    client.end();
    server.end();
    await quiet();
    assert.equal(isDrained, true, "the tunnel ends with its last stream");
    await drained;
  });
}

test("a draining proxy takes no new connections", async () => {
  const lab = makeLab();
  await connected(lab);
  void lab.proxy("client1").drain(5_000);
  assert.throws(() => lab.pod("client1").dial("10.77.0.32:8080"), { errno: "ECONNREFUSED" });
});

test("what outlives the deadline ends with EOF and the words of the original", async () => {
  const lab = makeLab();
  const { client, server } = await connected(lab);
  const drained = lab.proxy("client1").drain(5_000);
  await lab.clock.advance(4_999);
  assert.equal(client.readEnd, "open");
  await lab.clock.advance(1);
  await drained;
  await quiet();
  assert.equal(client.readEnd, "fin");
  assert.equal(server.readEnd, "fin");
  assert.deepEqual(messages(lab.a), [
    "info | ztunnel::drain | proxy{wl=default/client1} | shutdown complete | inbound",
    "info | ztunnel::drain | proxy{wl=default/client1} | shutdown complete | inbound passthrough",
    "warn | ztunnel::drain | proxy{wl=default/client1} | drain duration expired with pending connections, forcefully shutting down | outbound",
    "error | access | connection complete | connection closed due to connection drain",
    "info | ztunnel::drain | proxy{wl=default/client1} | shutdown complete | outbound",
  ]);
  const flags = lab.a.traffic.collect().series.map(({ labels, closed }) => [labels[21], closed]);
  assert.deepEqual(flags, [["-", 1]], "going down is nobody's failure");
});

test("a deleted pod's connections end with EOF on both sides at once", async () => {
  const lab = makeLab();
  const { client, server } = await connected(lab);
  const outside = lab.pod("outside").dial("10.77.0.21:8080");
  await quiet();
  await lab.proxy("server1").close();
  await quiet();
  assert.deepEqual([client.readEnd, server.readEnd, outside.readEnd], ["fin", "fin", "fin"]);
  assert.throws(() => lab.pod("outside").dial("10.77.0.21:15008"), { errno: "ECONNREFUSED" });
  const errors = messages(lab.b).filter((line) => line.startsWith("error"));
  assert.deepEqual(errors, [
    "error | access | connection complete | connection closed due to connection drain",
    "error | access | connection complete | connection closed due to connection drain",
  ]);
  const sockets = lab.b.traffic.collect().socketsOpen;
  assert.deepEqual(sockets, [{ reporter: "destination", change: 0 }]);
});

test("closing leaves no timer and no relay behind", async () => {
  const lab = makeLab();
  await connected(lab);
  await greet(lab, lab.pod("client1"), "10.78.0.1:80");
  for (const proxy of lab.proxies.values()) await proxy.close();
  await quiet();
  assert.equal(lab.clock.pendingCount, 0);
  assert.equal(lab.network.engine.relays.size, 0);
});

test("a connection that is still being dialled ends with a close, too", async () => {
  const lab = makeLab();
  const client = lab.pod("client1").dial("10.98.0.1:80");
  await quiet();
  await lab.proxy("client1").close();
  await quiet();
  assert.equal(client.readEnd, "fin");
  await lab.clock.advance(10_000);
  assert.deepEqual(
    messages(lab.a).filter((line) => line.includes("access")),
    ["error | access | connection complete | connection closed due to connection drain"],
    "the connect that fails later is not reported again",
  );
});

test("lists what is connected, with the service that was asked for", async () => {
  const lab = makeLab();
  lab.pod("client1").dial("10.78.0.1:80");
  lab.pod("client1").dial("10.77.0.32:8080");
  lab.pod("outside").dial("10.77.0.21:8080");
  await quiet();
  const show = (name: string): unknown =>
    JSON.parse(
      JSON.stringify(lab.proxy(name).connections(), (key, value) =>
        key === "port" && value >= 40_000 ? "any" : value,
      ),
    );
  const at = (ip: string, port: number | string): unknown => ({ ip, port });
  assert.deepEqual(show("client1"), {
    inbound: [],
    outbound: [
      {
        source: at("10.77.0.11", "any"),
        originalDestination: at("10.78.0.1", 80),
        actualDestination: at("10.77.0.21", 15008),
        protocol: "HBONE",
      },
      {
        source: at("10.77.0.11", "any"),
        originalDestination: at("10.77.0.32", 8080),
        actualDestination: at("10.77.0.32", 8080),
        protocol: "TCP",
      },
    ],
  });
  assert.deepEqual(show("server1"), {
    inbound: [
      {
        source: at("10.77.0.11", "any"),
        originalDestination: "echo.default.svc.cluster.local",
        actualDestination: at("10.77.0.21", 8080),
        protocol: "HBONE",
      },
      {
        source: at("10.77.0.31", "any"),
        actualDestination: at("10.77.0.21", 8080),
        protocol: "TCP",
      },
    ],
    outbound: [],
  });
});

test("a drained proxy may be closed, which changes and says nothing", async () => {
  const lab = makeLab();
  const proxy = lab.proxy("server1");
  await proxy.drain(1_000);
  lab.b.log.clear();
  await proxy.close();
  await proxy.close();
  assert.deepEqual(lab.b.log.lines, []);
});

test("a connection that arrives as the proxy closes is not served", async () => {
  const lab = makeLab();
  const client = lab.pod("client1").dial("10.77.0.32:8080");
  await lab.proxy("client1").close();
  await quiet();
  assert.equal(client.readEnd, "fin");
  assert.equal(lab.network.engine.relays.size, 0);
});

test("a tunnel that opens during a drain carries what it must and goes", async () => {
  const lab = makeLab();
  const { promise, resolve } = Promise.withResolvers<void>();
  const { certificateFor } = lab.b;
  lab.b.certificateFor = async (identity) => {
    await promise;
    return certificateFor(identity);
  };
  const client = lab.pod("client1").dial("10.77.0.21:8080");
  client.write("x");
  await quiet();
  let isDrained = false;
  const drained = lab
    .proxy("server1")
    .drain(5_000)
    .then(() => {
      isDrained = true;
    });
  resolve();
  await quiet();
  client.end();
  await quiet();
  assert.equal(isDrained, true);
  await drained;
});

test("an upstream that answers too late is closed", async () => {
  const lab = makeLab();
  let upstream: MemorySocket | undefined;
  lab.pod("echo").serve(9000, (socket) => {
    upstream = socket;
  });
  lab.network.delays.set("10.77.0.32", 1_000);
  const client = lab.pod("client1").dial("10.77.0.32:9000");
  await quiet();
  await lab.proxy("client1").close();
  await lab.clock.advance(1_000);
  await quiet();
  assert.equal(client.readEnd, "fin");
  assert.equal(upstream?.readEnd, "fin");
});

test("a closed client's tunnels close, too", async () => {
  const lab = makeLab();
  await greet(lab, lab.pod("client1"), "10.77.0.21:8080");
  const open = (): unknown => lab.b.traffic.collect().socketsOpen;
  assert.deepEqual(open(), [{ reporter: "destination", change: 1 }]);
  await lab.proxy("client1").close();
  await quiet();
  assert.deepEqual(open(), [{ reporter: "destination", change: -1 }]);
});

test("a full tunnel closes with its last stream", async () => {
  const lab = makeLab("info", {
    pool: {
      streamsPerConnectionMax: 1,
      dialBackoffMaxMs: 1000,
      unusedReleaseMs: 300_000,
      connectionsMax: 500,
    },
  });
  await greet(lab, lab.pod("client1"), "10.77.0.21:8080");
  assert.deepEqual(lab.b.traffic.collect().socketsOpen, [{ reporter: "destination", change: 0 }]);
  assert.equal(lab.clock.pendingCount, 0);
});

test("nothing listens to the mesh on behalf of a closed proxy", async () => {
  const lab = makeLab();
  let listenerCount = 0;
  const { mesh } = lab.b;
  const listen = mesh.onChange.bind(mesh);
  mesh.onChange = (listener) => {
    listenerCount++;
    const stop = listen(listener);
    return () => {
      listenerCount--;
      stop();
    };
  };
  const proxy = lab.b.enroll("late", lab.network.pod("10.77.0.28", "captured"));
  lab.pod("outside").dial("10.77.0.28:80");
  await quiet();
  assert.equal(listenerCount, 2);
  await lab.clock.advance(5_000);
  assert.equal(listenerCount, 1);
  await proxy.close();
  assert.equal(listenerCount, 0);
});
