import assert from "node:assert/strict";
import { test } from "node:test";
import { parseConfig } from "../../src/config/config-parser.ts";
import { DataThread } from "../../src/dataplane/data-thread.ts";
import type { EnrolledWorkload } from "../../src/mesh/enrolled-workload.ts";
import { echoTwice } from "../proxy/lab.ts";
import { CapturedLog } from "../support/captured-log.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { memoryCertificate } from "../support/memory-certificate.ts";
import { MemoryNetwork, type MemoryPod, quiet } from "../support/memory-engine.ts";
import { fixedRandom, liveMesh, makeAffinity, mesh, noHosts } from "../support/mesh-fixture.ts";

const PORTS = [15001, 15006, 15008];

const WORKLOADS = ["client", "server", "ztunnel"].map((name, index) => ({
  kind: "workload" as const,
  workload: mesh
    .workload(name)
    .at(`10.0.0.${index + 1}`)
    .hbone()
    .with({ serviceAccount: name }).value,
}));

interface Lab {
  readonly thread: DataThread;
  readonly network: MemoryNetwork;
  readonly clock: FakeClock;
  readonly client: MemoryPod;
  readonly server: MemoryPod;
  /** In the thread's own namespace. */
  readonly host: MemoryPod;
}

const DELAY = { p50Ms: 0, p99Ms: 1, p999Ms: 2, maxMs: 3 };

function makeLab(): Lab {
  const clock = new FakeClock();
  const network = new MemoryNetwork(clock);
  const known = liveMesh(undefined);
  const thread = new DataThread(
    {
      engine: network.engine,
      mesh: known,
      certificateFor: async (identity) => memoryCertificate(identity),
      learn: undefined,
      outlierChanged() {},
      affinity: makeAffinity(clock),
      addressesOf: noHosts,
      log: new CapturedLog().root,
      clock,
      random: fixedRandom(),
      loopDelay: () => DELAY,
    },
    {
      onDemand: false,
      proxy: parseConfig({ LOCAL_XDS: "{}" }, undefined).proxy,
      proxyEnabled: true,
      dns: undefined,
    },
  );
  known.apply(WORKLOADS);
  return {
    thread,
    network,
    clock,
    client: network.pod("10.0.0.1", "captured"),
    server: network.pod("10.0.0.2", "captured"),
    host: network.host("10.0.0.3"),
  };
}

function enrolled(name: string): EnrolledWorkload {
  return { uid: `uid-${name}`, name, namespace: "default", serviceAccount: name };
}

/** With both pods started, and a server that answers everything twice. */
function startLab(): Lab {
  const lab = makeLab();
  const { thread, client, server } = lab;
  thread.startWorkload(enrolled("client"), fdOf(client), false);
  thread.startWorkload(enrolled("server"), fdOf(server), false);
  server.serve(8080, echoTwice);
  return lab;
}

/** A connection from the client to the server that has carried something both ways. */
async function connect({ client }: Lab): Promise<ReturnType<MemoryPod["dial"]>> {
  const socket = client.dial("10.0.0.2:8080");
  socket.write("hi");
  await quiet();
  assert.equal(socket.read(), "hihi");
  return socket;
}

function fdOf(pod: MemoryPod): number {
  assert.ok(pod.netns !== undefined);
  return pod.netns.fd;
}

function listening(pod: MemoryPod): number[] {
  return [...pod.acceptors.keys()].filter((port) => PORTS.includes(port)).toSorted();
}

test("each workload is served in its own namespace, and one is stopped without the other", async () => {
  const lab = startLab();
  const { thread, client, server } = lab;
  const socket = await connect(lab);
  const stopping = thread.stopWorkload("uid-client", 0);
  assert.deepEqual([listening(client), listening(server)], [[], PORTS]);
  await stopping;
  await quiet();
  assert.equal(socket.readEnd, "fin");
  await thread.stopWorkload("uid-client", 0);
  await thread.stopWorkload("never heard of", 0);
  thread.startWorkload(enrolled("client"), fdOf(client), false);
  assert.deepEqual(listening(client), PORTS);
});

test("a workload that leaves has free ports at once, and its connections until the deadline", async () => {
  const lab = startLab();
  const { thread, client, server, clock } = lab;
  const socket = await connect(lab);
  let hasEnded = false;
  const leaving = thread.stopWorkload("uid-client", 5000).then(() => {
    hasEnded = true;
  });
  assert.deepEqual([listening(client), listening(server)], [[], PORTS]);
  thread.startWorkload(enrolled("client"), fdOf(client), false);
  assert.deepEqual(listening(client), PORTS);
  const another = client.dial("10.0.0.2:8080");
  another.write("ho");
  await quiet();
  assert.equal(another.read(), "hoho");
  assert.equal(thread.connections("uid-client").outbound.length, 2);
  await clock.advance(4999);
  socket.write("still");
  await quiet();
  assert.deepEqual([socket.read(), hasEnded], ["stillstill", false]);
  await clock.advance(1);
  await leaving;
  await quiet();
  assert.deepEqual([socket.readEnd, another.readEnd], ["fin", "open"]);
  assert.equal(thread.connections("uid-client").outbound.length, 1);
});

test("a workload that leaves has ended with its last connection", async () => {
  const lab = startLab();
  const socket = await connect(lab);
  const leaving = lab.thread.stopWorkload("uid-server", 5000);
  socket.end();
  await quiet();
  await leaving;
  assert.equal(socket.readEnd, "fin");
});

test("a workload that leaves does not outlive the drain of the thread, nor its end", async () => {
  for (const how of ["drain", "close"] as const) {
    const lab = startLab();
    const { thread, clock } = lab;
    const socket = await connect(lab);
    const leaving = thread.stopWorkload("uid-client", 5000);
    const ending = how === "drain" ? thread.drain(1000) : thread.close();
    if (how === "drain") await clock.advance(1000);
    await Promise.all([leaving, ending]);
    await quiet();
    assert.equal(socket.readEnd, "fin", how);
  }
});

test("a workload that runs already is not started again", () => {
  const lab = startLab();
  assert.throws(
    () => lab.thread.startWorkload(enrolled("client"), fdOf(lab.client), false),
    /workload uid-client runs already/,
  );
  assert.deepEqual(listening(lab.client), PORTS);
});

for (const port of PORTS) {
  test(`when ${port} is taken nothing stays bound, and the workload may be started later`, () => {
    const { thread, client } = makeLab();
    client.serve(port, () => {});
    assert.throws(() => thread.startWorkload(enrolled("client"), fdOf(client), false), {
      name: "ProxyError",
      message: `Bind([::]:${port}, Os { code: 98, kind: AddrInUse, message: "Address already in use" })`,
    });
    assert.deepEqual(listening(client), [port]);
    client.stopServing(port);
    thread.startWorkload(enrolled("client"), fdOf(client), false);
    assert.deepEqual(listening(client), PORTS);
  });
}

test("the daemon's own pod takes tunnels only, in its own namespace, unmarked and as itself", () => {
  const { thread, host, network } = makeLab();
  thread.startSelf(enrolled("ztunnel"));
  assert.deepEqual(listening(host), [15008]);
  const [listen] = network.engine.listens;
  assert.equal(listen?.netns, undefined);
  assert.deepEqual(
    [listen?.mark, listen?.reusePort, listen?.transparent],
    [undefined, false, "off"],
  );
});

test("tells how late its event loop was", () => {
  assert.deepEqual(makeLab().thread.collect().loopDelay, DELAY);
});

test("counters of all workloads come together, each time what is new", async () => {
  const lab = startLab();
  const { thread, client } = lab;
  const socket = client.dial("10.0.0.2:8080");
  socket.write("hello");
  await quiet();
  const sum = (): number[] => {
    const { series } = thread.collect();
    return [
      series.reduce((total, { opened }) => total + opened, 0),
      series.reduce((total, { closed }) => total + closed, 0),
      series.reduce((total, { receivedBytes }) => total + receivedBytes, 0),
      series.reduce((total, { sentBytes }) => total + sentBytes, 0),
    ];
  };
  // One connection, told by its source and by its destination.
  assert.deepEqual(sum(), [2, 0, 10, 20]);
  assert.deepEqual(sum(), [0, 0, 0, 0]);
  socket.end();
  await quiet();
  assert.deepEqual(sum(), [0, 2, 0, 0]);
});

test("a drain waits for the connections of all workloads, at most until its deadline", async () => {
  const lab = startLab();
  const { thread, client, server, clock } = lab;
  const socket = await connect(lab);
  let drained = false;
  const draining = thread.drain(1000).then(() => {
    drained = true;
  });
  assert.deepEqual([listening(client), listening(server)], [[], []]);
  await clock.advance(999);
  await quiet();
  assert.deepEqual([drained, socket.readEnd], [false, "open"]);
  await clock.advance(1);
  await draining;
  await quiet();
  assert.equal(socket.readEnd, "fin");
});

test("closing ends everything at once, and twice is as good as once", async () => {
  const lab = startLab();
  const { thread, client, server, network } = lab;
  const socket = await connect(lab);
  const closing = thread.close();
  assert.deepEqual([listening(client), listening(server)], [[], []]);
  await closing;
  await thread.close();
  await quiet();
  assert.equal(socket.readEnd, "fin");
  assert.equal(network.engine.relays.size, 0);
});
