import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import {
  type AnswerHttp,
  HttpListener,
  type HttpListenerOptions,
} from "../../src/admin/http-listener.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { createRootLogger } from "../../src/telemetry/root-logger.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { ask, exchange } from "../support/raw-http.ts";
import { silentLogger } from "../support/silent-logger.ts";

const OPTIONS: HttpListenerOptions = {
  component: "stats",
  hosts: ["127.0.0.1"],
  port: 0,
  headerTimeoutMs: 30_000,
  headerBytesMax: 8192,
  connectionsMax: 8,
};

async function listen(
  t: TestContext,
  answer: AnswerHttp = () => ({ status: 200, body: "here\n" }),
  options: Partial<HttpListenerOptions> = {},
): Promise<HttpListener> {
  const listener = await HttpListener.listen(
    { clock: systemClock, log: silentLogger, answer },
    { ...OPTIONS, ...options },
  );
  t.after(() => listener.close());
  return listener;
}

test("a request without a Host header is answered", async (t) => {
  const { port } = await listen(t);
  const answer = await ask(port, "GET", "/");
  assert.equal(answer.status, 200);
  assert.equal(answer.body.toString(), "here\n");
});

test("an answer that fails becomes status 500 with its message", async (t) => {
  const { port } = await listen(t, () => Promise.reject(new Error("no counters today")));
  const answer = await ask(port, "GET", "/");
  assert.equal(answer.status, 500);
  assert.equal(answer.body.toString(), "no counters today");
});

test("a request line that is none is answered 400 without a body", async (t) => {
  const { port } = await listen(t);
  const bytes = await exchange(port, "NONSENSE\r\n\r\n");
  assert.match(bytes.toString(), /^HTTP\/1\.1 400 Bad Request\r\n/);
  assert.match(bytes.toString(), /content-length: 0\r\n\r\n$/);
});

test("headers beyond the limit are answered 431", async (t) => {
  const { port } = await listen(t, undefined, { headerBytesMax: 256 });
  const bytes = await exchange(port, `GET / HTTP/1.1\r\nx: ${"y".repeat(512)}\r\n\r\n`);
  assert.match(bytes.toString(), /^HTTP\/1\.1 431 /);
});

test("a request that is not finished in time is cut without an answer", async (t) => {
  const { port } = await listen(t, undefined, { headerTimeoutMs: 200 });
  assert.equal((await exchange(port, "GET / HTTP/1.1\r\nx: y\r\n")).length, 0);
});

test("HTTP/1.0 is answered", async (t) => {
  const { port } = await listen(t);
  assert.match((await exchange(port, "GET / HTTP/1.0\r\n\r\n")).toString(), /here\n$/);
});

test("close refuses new connections and lets a running answer finish", async (t) => {
  let finish: (() => void) | undefined;
  const asked = Promise.withResolvers<void>();
  const listener = await listen(t, async () => {
    await new Promise<void>((resolve) => {
      finish = resolve;
      asked.resolve();
    });
    return { status: 200, body: "late\n" };
  });
  const answer = exchange(listener.port, "GET / HTTP/1.1\r\n\r\n");
  await asked.promise;
  const closed = listener.close();
  assert.equal((await exchange(listener.port, "GET / HTTP/1.1\r\n\r\n")).length, 0);
  finish?.();
  assert.match((await answer).toString(), /connection: close\r\n[\s\S]*late\n$/i);
  await closed;
});

test("close does not wait for a connection that asks nothing", async (t) => {
  const listener = await listen(t);
  const silent = await connected(listener.port);
  const closedByPeer = closed(silent);
  await listener.close();
  await closedByPeer;
});

function connected(port: number): Promise<Socket> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port }, () => resolve(socket));
    socket.on("error", () => {});
    socket.resume();
  });
}

/** Settles when it is gone, in whatever way. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

test("a connection beyond the limit takes the place of the one that is silent longest", async (t) => {
  const { port } = await listen(t, undefined, { connectionsMax: 2 });
  const [oldest, other] = [await connected(port), await connected(port)];
  oldest.write("GET / HTTP/1.1\r\nx: ");
  const ended = closed(oldest);
  assert.match((await exchange(port, "GET / HTTP/1.0\r\n\r\n")).toString(), /here\n$/);
  await ended;
  other.end("GET / HTTP/1.0\r\n\r\n");
  const [answer] = await once(other, "data");
  assert.match(String(answer), /^HTTP\/1\.1 200 /);
});

test("a connection beyond the limit is dropped while all others wait for answers", async (t) => {
  const [asked, mayAnswer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const answer: AnswerHttp = async () => {
    asked.resolve();
    await mayAnswer.promise;
    return { status: 200, body: "late\n" };
  };
  const { port } = await listen(t, answer, { connectionsMax: 1 });
  const first = exchange(port, "GET / HTTP/1.0\r\n\r\n");
  await asked.promise;
  assert.equal((await exchange(port, "GET / HTTP/1.0\r\n\r\n")).length, 0);
  mayAnswer.resolve();
  assert.match((await first).toString(), /late\n$/);
});

test("a connection that was answered is silent again", async (t) => {
  const { port } = await listen(t, undefined, { connectionsMax: 1 });
  const first = await connected(port);
  const answered = once(first, "data");
  first.write("GET / HTTP/1.1\r\n\r\n");
  await answered;
  const ended = closed(first);
  let bytes: Buffer = Buffer.alloc(0);
  // The server may need a moment more to see that its answer is out.
  while (bytes.length === 0) bytes = await exchange(port, "GET / HTTP/1.0\r\n\r\n");
  assert.match(bytes.toString(), /here\n$/);
  await ended;
});

test("the log tells when the listener stands and when it is drained", async () => {
  const lines: string[] = [];
  const { root } = createRootLogger({
    format: "plain",
    filter: "info",
    sink: { write: (line) => void lines.push(line.slice(line.indexOf("\t") + 1)), flush: () => {} },
    clock: new FakeClock(),
  });
  const listener = await HttpListener.listen(
    { clock: systemClock, log: root, answer: () => ({ status: 404 }) },
    OPTIONS,
  );
  await listener.close();
  const fields = `address=127.0.0.1:${listener.port} component="stats"`;
  assert.deepEqual(lines, [
    `info\thyper_util\tlistener established\t${fields}\n`,
    `info\thyper_util\tlistener drained\t${fields}\n`,
  ]);
});

test("a port that is taken is an error that names the address", async (t) => {
  const { port } = await listen(t);
  await assert.rejects(listen(t, undefined, { port }), {
    name: "AdminError",
    code: "bind",
    message: `failed to bind to address 127.0.0.1:${port}: address already in use (os error 98)`,
  });
});

test("a further address that the machine does not have is left out", async (t) => {
  // 192.0.2.0/24 is documentation space: no machine has it.
  const { port } = await listen(t, undefined, { hosts: ["127.0.0.1", "192.0.2.1"] });
  assert.equal((await ask(port, "GET", "/")).status, 200);
});

test("all addresses share one port", async (t) => {
  const { port } = await listen(t, undefined, { hosts: ["127.0.0.1", "127.0.0.2"] });
  assert.match((await exchange(port, "GET / HTTP/1.0\r\n\r\n", "127.0.0.2")).toString(), /here/);
});

test("a body in pieces that fails midway is cut, so that nobody takes it for whole", async (t) => {
  const { port } = await listen(t, () => ({
    status: 200,
    body: (async function* () {
      yield "half";
      throw new Error("and no more");
    })(),
  }));
  const bytes = (await exchange(port, "GET / HTTP/1.1\r\n\r\n")).toString();
  assert.doesNotMatch(bytes, /\r\n0\r\n\r\n$/);
});

test("who hangs up ends the making of the pieces", { timeout: 60_000 }, async (t) => {
  const ended = Promise.withResolvers<void>();
  const { port } = await listen(t, () => ({
    status: 200,
    body: (async function* () {
      try {
        for (;;) yield "x".repeat(65_536);
      } finally {
        ended.resolve();
      }
    })(),
  }));
  const socket = connect(port, "127.0.0.1");
  socket.write("GET / HTTP/1.1\r\n\r\n");
  socket.once("data", () => socket.destroy());
  await ended.promise;
});
