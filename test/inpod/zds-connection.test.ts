import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { SeqpacketConnection } from "../../src/inpod/zds-connection.ts";
import { readRequest } from "../../src/inpod/zds-session.ts";
import { native } from "../../src/net/native.ts";
import { encodeZdsRequest } from "../../src/wire/zds-message.ts";
import { zdsConnectionSuite } from "../conformance/zds-connection.ts";
import { MemoryConnection, ownNetnsFd } from "./memory-connection.ts";

const POD = { name: "server", namespace: "default", serviceAccount: "server" };
const ADD = encodeZdsRequest({ kind: "add", uid: "u1", workload: POD });

interface Pair {
  readonly proxy: SeqpacketConnection;
  /** Belongs to the caller. */
  readonly agentFd: number;
  close(): void;
}

/** Both ends of a connection; the agent's is a bare descriptor. */
function pair(): Pair {
  const folder = mkdtempSync(join(tmpdir(), "zds-"));
  const path = join(folder, "zds.sock");
  const listenFd = native.listenSeqpacket(path, 1);
  const proxy = SeqpacketConnection.dial(native, path);
  const agentFd = native.accept(listenFd);
  closeSync(listenFd);
  rmSync(folder, { recursive: true });
  assert.ok(agentFd !== undefined);
  return { proxy, agentFd, close: () => proxy.close() };
}

function connectedPair(t: TestContext): Pair {
  const made = pair();
  t.after(() => made.close());
  return made;
}

/** As the kernel does with descriptors that it passes on. */
function duplicate(fd: number): number {
  return openSync(`/proc/self/fd/${fd}`, "r");
}

function openFdCount(): number {
  return readdirSync("/proc/self/fd").length;
}

const forever = new AbortController().signal;

zdsConnectionSuite("the memory connection", () => {
  const connection = new MemoryConnection();
  return {
    connection,
    deliver: (data, ...fds) => connection.deliver(data, { fds: fds.map(duplicate) }),
    take: () => connection.take(),
    hangUp: () => connection.end(),
    close: () => connection.close(),
  };
});

zdsConnectionSuite("the seqpacket connection", () => {
  const { proxy, agentFd, close } = pair();
  const agent = new SeqpacketConnection(native, agentFd);
  return {
    connection: proxy,
    deliver: (data, ...fds) => native.sendPacket(agentFd, data, ...fds),
    async take() {
      const packet = await agent.receive(forever);
      assert.ok(packet !== undefined);
      return packet.data;
    },
    hangUp: () => agent.close(),
    close() {
      agent.close();
      close();
    },
  };
});

test("the agent's end passes one descriptor along", async (t) => {
  const { proxy, agentFd } = connectedPair(t);
  const agent = new SeqpacketConnection(native, agentFd);
  const netnsFd = ownNetnsFd();
  agent.send(ADD, netnsFd);
  closeSync(netnsFd);
  agent.close();
  const packet = await proxy.receive(forever);
  assert.ok(packet !== undefined);
  const received = readRequest(packet).netnsFd;
  assert.ok(received !== undefined);
  closeSync(received);
});

for (const [fdCount, message] of [
  [2, "received 2 descriptors, expected one"],
  [3, "received truncated message"],
] as const) {
  test(`an add with ${fdCount} descriptors is refused and all are closed`, async (t) => {
    const { proxy, agentFd } = connectedPair(t);
    t.after(() => closeSync(agentFd));
    const before = openFdCount();
    const fds = Array.from({ length: fdCount }, ownNetnsFd);
    native.sendPacket(agentFd, ADD, ...fds);
    for (const fd of fds) closeSync(fd);
    const packet = await proxy.receive(forever);
    assert.ok(packet !== undefined);
    assert.throws(() => readRequest(packet), { code: "read", message });
    assert.equal(openFdCount(), before);
  });
}

test("a packet of more than 1024 bytes is refused", async (t) => {
  const { proxy, agentFd } = connectedPair(t);
  t.after(() => closeSync(agentFd));
  const uid = "u".repeat(1100);
  native.sendPacket(agentFd, encodeZdsRequest({ kind: "del", uid }));
  const packet = await proxy.receive(forever);
  assert.ok(packet !== undefined);
  assert.throws(() => readRequest(packet), { message: "received truncated message" });
});
