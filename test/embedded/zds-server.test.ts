import assert from "node:assert/strict";
import { closeSync, existsSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { ZdsServer } from "../../src/embedded/zds-server.ts";
import { SeqpacketConnection } from "../../src/inpod/zds-connection.ts";
import type { EnrolledWorkload } from "../../src/mesh/enrolled-workload.ts";
import { native } from "../../src/net/native.ts";
import { ownNetns } from "../../src/net/netns.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { silentLogger } from "../support/silent-logger.ts";
import { HandProxy } from "./hand-proxy.ts";

function startServer(
  t: TestContext,
  clock: Clock = systemClock,
): { server: ZdsServer; path: string } {
  const folder = mkdtempSync(join(tmpdir(), "zds-"));
  const path = join(folder, "zds.sock");
  const server = new ZdsServer({ native, clock, log: silentLogger }, { path });
  t.after(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });
  return { server, path };
}

function workload(uid: string): EnrolledWorkload {
  return { uid, name: `pod-${uid}`, namespace: "default", serviceAccount: "sa" };
}

function netnsFd(t: TestContext): number {
  const fd = openSync("/proc/self/ns/net", "r");
  t.after(() => closeSync(fd));
  return fd;
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!condition() && performance.now() < deadline) await turn();
  assert.ok(condition(), "condition not met");
}

test("a new proxy is told every pod with its namespace, one at a time, then the end of the snapshot", async (t) => {
  const { server, path } = startServer(t);
  const fd = netnsFd(t);
  await assert.rejects(server.add(workload("u1"), fd), /no ztunnel is connected to /);
  await assert.rejects(server.add(workload("u2"), fd));
  const proxy = new HandProxy(t, path);
  assert.equal(await proxy.agree(), "add u1 +fd");
  assert.equal(await proxy.agree(), "add u2 +fd");
  assert.equal(await proxy.agree(), "snapshot-sent");
});

test("an add settles with the proxy's answer", async (t) => {
  const { server, path } = startServer(t);
  const fd = netnsFd(t);
  const proxy = new HandProxy(t, path);
  await proxy.agree();
  const accepted = server.add(workload("u1"), fd);
  const next = await proxy.next();
  assert.deepEqual(next?.request, {
    kind: "add",
    uid: "u1",
    workload: { name: "pod-u1", namespace: "default", serviceAccount: "sa" },
  });
  const own = ownNetns();
  own.close();
  assert.deepEqual(next?.netnsKeys, [own.key]);
  proxy.answer();
  await accepted;
  const refused = server.add(workload("u2"), fd);
  await proxy.next();
  proxy.answer("failure to start proxy : no");
  await assert.rejects(refused, { message: "failure to start proxy : no" });
});

test("adds go to the proxy that came last, deletes to all", async (t) => {
  const { server, path } = startServer(t);
  const old = new HandProxy(t, path);
  await old.agree();
  const latest = new HandProxy(t, path);
  await latest.agree();
  const added = server.add(workload("u1"), netnsFd(t));
  assert.equal(await latest.agree(), "add u1 +fd");
  await added;
  const deleted = server.del("u1");
  assert.equal(await latest.agree(), "del u1");
  assert.equal(await old.agree(), "del u1");
  await deleted;
});

test("a second message waits for the answer to the first", async (t) => {
  const { server, path } = startServer(t);
  const proxy = new HandProxy(t, path);
  await proxy.agree();
  const fd = netnsFd(t);
  const both = Promise.all([server.add(workload("u1"), fd), server.add(workload("u2"), fd)]);
  assert.ok((await proxy.next()) !== undefined);
  let arrived = false;
  const second = proxy.next().then((next) => {
    arrived = true;
    return next;
  });
  await turn();
  assert.equal(arrived, false);
  proxy.answer();
  assert.ok((await second) !== undefined);
  proxy.answer();
  await both;
});

test("an add that is under way fails when the proxy hangs up, and the pod is in the next snapshot", async (t) => {
  const { server, path } = startServer(t);
  const proxy = new HandProxy(t, path);
  await proxy.agree();
  const added = server.add(workload("u1"), netnsFd(t));
  await proxy.next();
  proxy.close();
  await assert.rejects(added, /connection to ztunnel lost/);
  const next = new HandProxy(t, path);
  assert.equal(await next.agree(), "add u1 +fd");
  assert.equal(await next.agree(), "snapshot-sent");
});

test("a proxy that sends without being asked is hung up on", async (t) => {
  const { server, path } = startServer(t);
  const proxy = new HandProxy(t, path);
  await proxy.agree();
  proxy.answer();
  assert.equal(await proxy.next(), undefined);
  await until(() => server.proxyCount === 0);
});

test("a proxy that does not answer within five seconds is hung up on", async (t) => {
  const clock = new FakeClock();
  const { server, path } = startServer(t, clock);
  const proxy = new HandProxy(t, path);
  await proxy.agree();
  const added = server.add(workload("u1"), netnsFd(t));
  await proxy.next();
  const failed = assert.rejects(added, /no answer within 5000 ms/);
  await clock.advance(5_000);
  await failed;
  await until(() => server.proxyCount === 0);
});

test("a caller that says no hello within five seconds is hung up on", async (t) => {
  const clock = new FakeClock();
  const { path } = startServer(t, clock);
  const connection = SeqpacketConnection.dial(native, path);
  t.after(() => connection.close());
  await until(() => clock.pendingCount === 1);
  await clock.advance(5_000);
  assert.equal(await connection.receive(AbortSignal.timeout(30_000)), undefined);
});

test("a hello of another version is refused", async (t) => {
  const { path } = startServer(t);
  const proxy = new HandProxy(t, path, Uint8Array.of(0x08, 0x02));
  assert.equal(await proxy.next(), undefined);
});

test("a socket file left by a dead agent is taken over, a living agent is not", (t) => {
  const { server, path } = startServer(t);
  assert.throws(() => new ZdsServer({ native, clock: systemClock, log: silentLogger }, { path }), {
    message: `can't listen on ${path}: something else has it, end that or choose another (EADDRINUSE)`,
  });
  assert.equal(server.proxyCount, 0);
  const stale = `${path}.stale`;
  closeSync(native.listenSeqpacket(stale, 1));
  assert.ok(existsSync(stale));
  new ZdsServer({ native, clock: systemClock, log: silentLogger }, { path: stale }).close();
  assert.ok(!existsSync(stale));
});
