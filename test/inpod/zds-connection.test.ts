import assert from "node:assert/strict";
import { closeSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { SeqpacketConnection } from "../../src/inpod/zds-connection.ts";
import { readRequest } from "../../src/inpod/zds-session.ts";
import { native } from "../../src/net/native.ts";
import { encodeZdsRequest } from "../../src/wire/zds-message.ts";
import { ownNetnsFd } from "./memory-connection.ts";

const POD = { name: "server", namespace: "default", serviceAccount: "server" };
const ADD = encodeZdsRequest({ kind: "add", uid: "u1", workload: POD });

/** Both ends of a connection; the agent's is a bare descriptor. */
function connectedPair(t: TestContext): { proxy: SeqpacketConnection; agentFd: number } {
  const folder = mkdtempSync(join(tmpdir(), "zds-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "zds.sock");
  const listenFd = native.listenSeqpacket(path, 1);
  const proxy = SeqpacketConnection.dial(native, path);
  t.after(() => proxy.close());
  const agentFd = native.acceptSeqpacket(listenFd);
  closeSync(listenFd);
  assert.ok(agentFd !== undefined);
  return { proxy, agentFd };
}

function openFdCount(): number {
  return readdirSync("/proc/self/fd").length;
}

const forever = new AbortController().signal;

test("packets keep their borders and their descriptors", async (t) => {
  const { proxy, agentFd } = connectedPair(t);
  const netnsFd = ownNetnsFd();
  native.sendPacket(agentFd, Uint8Array.of(1, 2));
  native.sendPacket(agentFd, Uint8Array.of(3), netnsFd);
  closeSync(netnsFd);
  const first = await proxy.receive(forever);
  const second = await proxy.receive(forever);
  assert.deepEqual([[...(first?.data ?? [])], first?.fds.length], [[1, 2], 0]);
  assert.deepEqual([[...(second?.data ?? [])], second?.fds.length], [[3], 1]);
  for (const fd of second?.fds ?? []) closeSync(fd);
  closeSync(agentFd);
  assert.equal(await proxy.receive(forever), undefined);
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

test("a wait that is aborted ends with the signal's reason and leaves no watch behind", async (t) => {
  const { proxy, agentFd } = connectedPair(t);
  t.after(() => closeSync(agentFd));
  const controller = new AbortController();
  const waiting = proxy.receive(controller.signal);
  controller.abort(new Error("enough"));
  await assert.rejects(waiting, { message: "enough" });
  native.sendPacket(agentFd, Uint8Array.of(9));
  assert.deepEqual([...((await proxy.receive(forever))?.data ?? [])], [9]);
});
