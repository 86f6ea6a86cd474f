import assert from "node:assert/strict";
import { closeSync, fstatSync, openSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { InpodError } from "../../src/inpod/inpod-error.ts";
import { readRequest, ZdsSession } from "../../src/inpod/zds-session.ts";
import { decodeZdsAck, encodeZdsRequest } from "../../src/wire/zds-message.ts";
import { MemoryConnection, ownNetnsFd } from "./memory-connection.ts";
import { ReconcilerBench } from "./recorded-launcher.ts";

const POD = { name: "server", namespace: "default", serviceAccount: "server" };
const ADD = encodeZdsRequest({ kind: "add", uid: "u1", workload: POD });
const DEL = encodeZdsRequest({ kind: "del", uid: "u1" });
const KEEP = encodeZdsRequest({ kind: "keep", uid: "u1" });
const SNAPSHOT = encodeZdsRequest({ kind: "snapshot-sent" });
const ACK = Uint8Array.of(0x0a, 0x00);
const BIND = "failed to bind to address [::]:15006: Address already in use (os error 98)";

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}

function startedSession(): {
  bench: ReconcilerBench;
  connection: MemoryConnection;
  ended: Promise<unknown>;
} {
  const bench = new ReconcilerBench();
  const connection = new MemoryConnection();
  const session = new ZdsSession({ reconciler: bench.reconciler, log: bench.log }, connection);
  const ended = session.run(new AbortController().signal).catch((error: unknown) => error);
  return { bench, connection, ended };
}

test("a del is read without a descriptor", () => {
  const read = readRequest({ data: DEL, fds: [], truncated: false });
  assert.deepEqual(read, { request: { kind: "del", uid: "u1" }, netnsFd: undefined });
});

test("an add without info is read, so that the answer can say what is missing", () => {
  const fd = ownNetnsFd();
  const data = encodeZdsRequest({ kind: "add", uid: "u1", workload: undefined });
  const { request, netnsFd } = readRequest({ data, fds: [fd], truncated: false });
  assert.deepEqual([request, netnsFd], [{ kind: "add", uid: "u1", workload: undefined }, fd]);
  closeSync(fd);
});

test("an add with info is read with its descriptor", () => {
  const fd = ownNetnsFd();
  const read = readRequest({ data: ADD, fds: [fd], truncated: false });
  assert.deepEqual(read, { request: { kind: "add", uid: "u1", workload: POD }, netnsFd: fd });
  closeSync(fd);
});

for (const [name, data, fdCount, truncated, message] of [
  ["an add without a descriptor", ADD, 0, false, "No control message"],
  ["a del with a descriptor (fd)", DEL, 1, false, "Unexpected control message"],
  ["a keep with a descriptor", KEEP, 1, false, "Unexpected control message"],
  ["a snapshot with a descriptor", SNAPSHOT, 1, false, "Unexpected control message"],
  ["an add with two descriptors", ADD, 2, false, "received 2 descriptors, expected one"],
  ["a truncated packet", ADD, 1, true, "received truncated message"],
  ["a request without a payload", Uint8Array.of(0x22, 0x00), 0, false, "no payload"],
] as const) {
  test(`${name} is refused and leaves no descriptor open`, () => {
    const fds = Array.from({ length: fdCount }, ownNetnsFd);
    assert.throws(() => readRequest({ data, fds, truncated }), { code: "read", message });
    assert.deepEqual(
      fds.map(isOpen),
      fds.map(() => false),
    );
  });
}

test("whatever bytes arrive, reading answers or refuses and leaks no descriptor", () => {
  const messages = fc.constantFrom(ADD, DEL, KEEP, SNAPSHOT);
  const packets = fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    fc.tuple(messages, fc.nat(80)).map(([bytes, length]) => bytes.subarray(0, length)),
    fc
      .tuple(messages, fc.nat(80), fc.integer({ min: 0, max: 255 }))
      .map(([bytes, at, value]) =>
        bytes.map((byte, i) => (i === at % bytes.length ? value : byte)),
      ),
  );
  fc.assert(
    fc.property(packets, fc.nat(2), fc.boolean(), (data, fdCount, truncated) => {
      const fds = Array.from({ length: fdCount }, ownNetnsFd);
      try {
        const { request, netnsFd } = readRequest({ data, fds, truncated });
        assert.equal(netnsFd !== undefined, request.kind === "add");
        if (netnsFd !== undefined) closeSync(netnsFd);
      } catch (error) {
        assert.ok(error instanceof InpodError && error.code === "read", String(error));
      }
      assert.ok(!fds.some(isOpen));
    }),
    { numRuns: 2_000, verbose: true },
  );
});

test("the session says hello once and acknowledges each message in order", async () => {
  const { bench, connection, ended } = startedSession();
  assert.deepEqual(await connection.take(), Uint8Array.of(0x08, 0x01));
  connection.deliver(ADD, { fds: [ownNetnsFd()] });
  connection.deliver(SNAPSHOT);
  connection.deliver(DEL);
  assert.deepEqual(await connection.take(), ACK);
  assert.deepEqual(await connection.take(), ACK);
  assert.deepEqual(await connection.take(), ACK);
  connection.end();
  assert.equal(await ended, undefined);
  assert.equal(connection.sent.length, 0);
  assert.equal(connection.closed, true);
  assert.deepEqual(bench.launcher.calls, ["start u1", "stop u1"]);
});

test("a failed start is answered with its reason and the conversation goes on", async () => {
  const { bench, connection } = startedSession();
  bench.launcher.failures.set("u1", [BIND]);
  await connection.take();
  const nack = await connection.ask(ADD, [ownNetnsFd()]);
  assert.equal(
    decodeZdsAck(nack).error,
    'failure to start proxy : Bind([::]:15006, Os { code: 98, kind: AddrInUse, message: "Address already in use" })',
  );
  assert.deepEqual(await connection.ask(SNAPSHOT), ACK);
  connection.end();
  await bench.reconciler.close();
});

test("a descriptor that is no namespace is refused like a failed start, and closed", async () => {
  const { connection, ended, bench } = startedSession();
  await connection.take();
  const fd = openSync("/dev/null", "r");
  const nack = await connection.ask(ADD, [fd]);
  assert.match(
    decodeZdsAck(nack).error,
    /^failure to start proxy : descriptor \d+ is no network namespace$/,
  );
  assert.equal(isOpen(fd), false);
  assert.deepEqual(await connection.ask(SNAPSHOT), ACK);
  connection.end();
  assert.equal(await ended, undefined);
  assert.deepEqual(bench.launcher.calls, []);
});

test("a packet that cannot be read is answered with its reason and ends the conversation", async () => {
  const { connection, ended, bench } = startedSession();
  await connection.take();
  const nack = await connection.ask(ADD);
  assert.equal(decodeZdsAck(nack).error, "failure to read message : No control message");
  assert.equal(((await ended) as InpodError).code, "read");
  assert.equal(connection.closed, true);
  assert.deepEqual(bench.launcher.calls, []);
});

test("keep after the snapshot is answered with the original's words and ends the conversation", async () => {
  const { connection, ended, bench } = startedSession();
  await connection.take();
  await connection.ask(SNAPSHOT);
  const nack = await connection.ask(KEEP);
  assert.equal(
    decodeZdsAck(nack).error,
    'failure to process message : ProtocolError("pod keep received after snapshot")',
  );
  assert.equal(((await ended) as InpodError).code, "protocol");
  assert.equal(
    bench.lines.at(-1),
    'ztunnel error failed to process message: ProtocolError("pod keep received after snapshot")',
  );
});

test("an add without a workload is answered as a protocol error and leaves no descriptor open", async () => {
  const { connection, ended } = startedSession();
  await connection.take();
  const fd = ownNetnsFd();
  const nack = await connection.ask(
    encodeZdsRequest({ kind: "add", uid: "u1", workload: undefined }),
    [fd],
  );
  assert.match(decodeZdsAck(nack).error, /^failure to process message : ProtocolError\(/);
  assert.equal(((await ended) as InpodError).code, "protocol");
  assert.equal(isOpen(fd), false);
});

test("an agent that vanishes before the hello ends the conversation with the system's word", async () => {
  const bench = new ReconcilerBench();
  const connection = new MemoryConnection();
  connection.broken = true;
  const session = new ZdsSession({ reconciler: bench.reconciler, log: bench.log }, connection);
  await assert.rejects(session.run(new AbortController().signal), { code: "EPIPE" });
  assert.equal(connection.closed, true);
});
