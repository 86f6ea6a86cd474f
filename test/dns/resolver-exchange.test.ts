/** Over real sockets on loopback; no test waits for a time-out of the machine's clock. */
import assert from "node:assert/strict";
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { framed } from "../../src/dns/message-stream.ts";
import { type ExchangeOptions, ResolverExchange } from "../../src/dns/resolver-exchange.ts";
import { native } from "../../src/net/native.ts";
import { encodeDnsError } from "../../src/wire/dns-answer.ts";
import { readDnsQuery } from "../../src/wire/dns-query.ts";
import { dnsQuery } from "../support/dns-client.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { ip } from "../support/mesh-fixture.ts";

const query = dnsQuery("x.example", "TXT");
const reply = encodeDnsError(query, readDnsQuery(query), 3);
// Of this file alone, but for those who listen on all addresses.
const RESOLVER = ip("127.9.9.53");

interface Lab {
  readonly clock: FakeClock;
  readonly datagrams: DatagramSocket;
  readonly streams: Server;
  readonly exchange: ResolverExchange;
  ask(transport: "udp" | "tcp", transfer?: ExchangeOptions["transfer"]): Promise<Uint8Array>;
}

async function makeLab(t: TestContext): Promise<Lab> {
  const { streams, datagrams, port } = await bindBoth();
  const clock = new FakeClock();
  const options = { netns: undefined, mark: undefined, port };
  const exchange = new ResolverExchange({ native, clock }, options);
  t.after(() => {
    exchange.close();
    streams.close();
    datagrams.close();
  });
  return {
    clock,
    datagrams,
    streams,
    exchange,
    ask: (transport, transfer) =>
      exchange.ask(query, { resolver: RESOLVER, transport, timeoutMs: 5000, transfer }),
  };
}

/** One port of both transports: what is free in one may be taken in the other. */
async function bindBoth(): Promise<{ streams: Server; datagrams: DatagramSocket; port: number }> {
  for (;;) {
    const streams = createServer().listen(0, RESOLVER);
    await once(streams, "listening");
    const { port } = streams.address() as { port: number };
    const datagrams = createSocket("udp4").bind(port, RESOLVER);
    try {
      await once(datagrams, "listening");
      return { streams, datagrams, port };
    } catch {
      streams.close();
      datagrams.close();
    }
  }
}

test("a datagram goes as it is and its reply comes back so", async (t) => {
  const { ask, datagrams, exchange, clock } = await makeLab(t);
  const answered = ask("udp");
  const [message, { port, address }] = await once(datagrams, "message");
  assert.deepEqual(message, query);
  assert.equal(exchange.isOwn("udp", { ip: ip(address), port }), true);
  assert.equal(exchange.isOwn("tcp", { ip: ip(address), port }), false);
  assert.equal(exchange.isOwn("udp", { ip: ip("::1"), port }), false);
  datagrams.send(reply, port, address);
  assert.deepEqual(Buffer.from(await answered), reply);
  assert.equal(exchange.isOwn("udp", { ip: ip(address), port }), false);
  assert.equal(clock.pendingCount, 0);
  assert.deepEqual(exchange.datagrams, { received: 1, sent: 1 });
});

test("what is no reply to the query, or comes from elsewhere, is passed over", async (t) => {
  const { ask, datagrams } = await makeLab(t);
  const stranger = createSocket("udp4");
  t.after(() => stranger.close());
  const answered = ask("udp");
  const [, { port, address }] = await once(datagrams, "message");
  const forged = Buffer.from(reply);
  forged.writeUInt16BE(0x8182, 2);
  await new Promise((sent) => stranger.send(forged, port, address, sent));
  const wrongId = Buffer.from(reply);
  wrongId.writeUInt16BE(1, 0);
  datagrams.send(wrongId, port, address);
  datagrams.send("?", port, address);
  datagrams.send(reply, port, address);
  assert.deepEqual(Buffer.from(await answered), reply);
});

test("a datagram that may have been lost is sent again, twice at most, from the same port", async (t) => {
  const { ask, datagrams, clock } = await makeLab(t);
  const ports: number[] = [];
  datagrams.on("message", (_message, { port }) => ports.push(port));
  const failure = assert.rejects(ask("udp"), {
    code: "timeout",
    message: "request to 127.9.9.53 timed out",
  });
  for (const ms of [1000, 2000]) {
    await once(datagrams, "message");
    await clock.advance(ms);
  }
  await once(datagrams, "message");
  await clock.advance(2000);
  await failure;
  assert.equal(ports.length, 3);
  assert.equal(new Set(ports).size, 1);
  assert.equal(clock.pendingCount, 0);
});

test("a port that nobody listens on is known at once", async (t) => {
  const { exchange } = await makeLab(t);
  const { streams, datagrams, port } = await bindBoth();
  streams.close();
  datagrams.close();
  await Promise.all([once(streams, "close"), once(datagrams, "close")]);
  const options = { netns: undefined, mark: undefined, port };
  const other = new ResolverExchange({ native, clock: new FakeClock() }, options);
  t.after(() => other.close());
  for (const transport of ["udp", "tcp"] as const) {
    await assert.rejects(other.ask(query, { resolver: RESOLVER, transport, timeoutMs: 5000 }), {
      code: "unreachable",
      message: /^resolver 127\.9\.9\.53: .*ECONNREFUSED/,
    });
  }
  exchange.close();
});

test("an address that nothing leads to has failed", async (t) => {
  const { exchange } = await makeLab(t);
  // The kernel refuses to connect to it.
  const resolver = ip("255.255.255.255");
  for (const transport of ["udp", "tcp"] as const) {
    await assert.rejects(exchange.ask(query, { resolver, transport, timeoutMs: 5000 }), {
      code: "unreachable",
    });
  }
});

test("a message by TCP is framed, and the connection ends with its reply", async (t) => {
  const { ask, streams, clock } = await makeLab(t);
  const answered = ask("tcp");
  const [socket] = (await once(streams, "connection")) as [Socket];
  const [message] = await once(socket, "data");
  assert.deepEqual(message, framed(query));
  for (const byte of framed(reply)) socket.write(Uint8Array.of(byte));
  assert.deepEqual(Buffer.from(await answered), reply);
  socket.resume();
  await once(socket, "close");
  assert.equal(clock.pendingCount, 0);
});

test("a resolver that closes without a reply, or is silent, has failed", async (t) => {
  const { ask, streams, clock } = await makeLab(t);
  const closed = assert.rejects(ask("tcp"), { code: "unreachable" });
  const [socket] = (await once(streams, "connection")) as [Socket];
  socket.end();
  socket.resume();
  await closed;
  const silent = assert.rejects(ask("tcp"), { code: "timeout" });
  await once(streams, "connection");
  await clock.advance(5000);
  await silent;
});

test("a transfer brings every message until the one who asked leaves", async (t) => {
  const { ask, streams, clock } = await makeLab(t);
  const client = new AbortController();
  const messages: number[] = [];
  const arrived = Promise.withResolvers<void>();
  const answered = ask("tcp", {
    signal: client.signal,
    message(one) {
      messages.push(rcodeOf(one));
      if (messages.length === 3) arrived.resolve();
    },
  });
  const [socket] = (await once(streams, "connection")) as [Socket];
  for (const rcode of [0, 1, 2]) {
    socket.write(framed(encodeDnsError(query, readDnsQuery(query), rcode)));
  }
  await arrived.promise;
  assert.deepEqual(messages, [0, 1, 2]);
  client.abort();
  assert.equal(rcodeOf(await answered), 0);
  socket.resume();
  await once(socket, "close");
  assert.equal(clock.pendingCount, 0);
  await assert.rejects(ask("tcp", { signal: client.signal, message() {} }), { code: "closed" });
});

test("closing ends what is under way, and nothing is asked any more", async (t) => {
  const { ask, exchange } = await makeLab(t);
  const failures = ["udp", "tcp"].map((transport) =>
    assert.rejects(ask(transport as "udp"), { code: "closed" }),
  );
  exchange.close();
  await Promise.all(failures);
  await assert.rejects(ask("udp"), { code: "closed" });
});

function rcodeOf(message: Uint8Array): number {
  return Buffer.from(message).readUInt16BE(2) & 0xf;
}
