import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect } from "node:net";
import { type TestContext, test } from "node:test";
import { decode, encode } from "dns-packet";
import fc from "fast-check";
import { DnsError } from "../../src/dns/dns-error.ts";
import type { Ask } from "../../src/dns/forwarder.ts";
import { framed, MessageStream } from "../../src/dns/message-stream.ts";
import { encodeDnsError } from "../../src/wire/dns-answer.ts";
import { readDnsQuery } from "../../src/wire/dns-query.ts";
import { answersOf, askDns, dnsQuery, dnsReply, ednsOf } from "../support/dns-client.ts";
import { type DnsStage, type DnsStageOptions, startDnsServer } from "../support/dns-stage.ts";
import { mesh } from "../support/mesh-fixture.ts";
import { afterTurn } from "../support/turn.ts";

const turn = (): Promise<void> => new Promise((done) => afterTurn(done));

const client = mesh.workload("client").in("ns1");
const state = mesh.state(client, mesh.service("echo").in("ns1").at("10.96.0.1"));
const ECHO = "echo.ns1.svc.cluster.local";

async function start(t: TestContext, more: Partial<DnsStageOptions> = {}): Promise<DnsStage> {
  const stage = await startDnsServer({ state, source: client.value, ...more });
  t.after(() => stage.close());
  return stage;
}

/** Answers everything with the message that was asked, as a reply. */
const mirror: Ask = async (query) => {
  const reply = Buffer.from(query);
  reply.writeUInt16BE(reply.readUInt16BE(2) | 0x8000, 2);
  return reply;
};

/** Nothing that decoders have to agree on: all sections, unknown types and options. */
const strange = encode({
  type: "query",
  id: 0xbeef,
  flags: 0x0130,
  questions: [{ name: "ext.Example.com", type: "UNKNOWN_65" as "A" }],
  additionals: [ednsOf(4096), { name: "key.example", type: "TXT", data: "signature" }],
});
const passedOn: readonly [what: string, message: Buffer][] = [
  ["a type that the mesh does not serve", dnsQuery(ECHO, "TXT")],
  ["a name that the mesh does not know", dnsQuery("ext.example.com", "A")],
  ["another class", encode({ id: 7, questions: [{ name: ECHO, type: "A", class: "CH" }] })],
  ["options and records of all kinds", strange],
  ["an update", Buffer.from(`00072800000100000001${"0000"}0161000006000100`, "hex")],
  ["a notification", Buffer.from("000720000001000000000000016100000600ff", "hex")],
  ["the status opcode", encode({ id: 7, flags: 0x1000, questions: [{ name: ECHO, type: "A" }] })],
  ["no question at all", Buffer.from("000701000000000000000000", "hex")],
  [
    "another version of EDNS",
    dnsQuery(ECHO, "A", { additionals: [{ ...ednsOf(1232), ednsVersion: 1 } as never] }),
  ],
];
for (const [what, message] of passedOn) {
  for (const transport of ["udp", "tcp"] as const) {
    test(`a query with ${what} is passed on byte by byte, and so is its reply, by ${transport}`, async (t) => {
      const { server, forwarded } = await start(t, { ask: mirror });
      const reply = await askDns(server, transport, message);
      assert.deepEqual(
        forwarded.map((one) => Buffer.from(one)),
        [message],
      );
      assert.deepEqual(reply, Buffer.from(await mirror(message, undefined as never)));
    });
  }
}

test("datagrams are counted at both ends, with those of the resolvers", async (t) => {
  const { server, dns } = await start(t, { asked: { received: 3, sent: 4 } });
  await askDns(server, "udp", dnsQuery(ECHO, "A"));
  await askDns(server, "tcp", dnsQuery(ECHO, "A"));
  await askDns(server, "udp", dnsQuery(ECHO, "AAAA"));
  assert.deepEqual(dns.datagrams, { received: 3 + 4, sent: 4 + 4 });
});

test("a query that can't be read is refused, what is no query is not answered", async (t) => {
  const { server, forwarded } = await start(t);
  const socket = createSocket("udp4");
  t.after(() => socket.close());
  const send = (hex: string): void => socket.send(Buffer.from(hex, "hex"), server.port, server.ip);
  send("1234000000000000000000");
  send("123481800001000000000000046563686f0000010001");
  send("123501000001000000000000046563686f0000");
  const [reply] = await once(socket, "message");
  assert.equal(reply.toString("hex"), "123581010000000000000000");
  assert.equal(forwarded.length, 0);
});

test("no bytes whatsoever bring the server down", async (t) => {
  const { server, log } = await start(t, { ask: mirror });
  const socket = createSocket("udp4");
  const stream = connect({ host: server.ip, port: server.port });
  stream.on("error", () => {});
  t.after(() => socket.close());
  t.after(() => stream.destroy());
  const good = dnsQuery(ECHO, "A");
  const damaged = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255))).map((changes) => {
    const copy = Buffer.from(good);
    for (const [at, byte] of changes) copy[at] = byte;
    return copy;
  });
  for (const message of fc.sample(fc.oneof(fc.uint8Array({ maxLength: 600 }), damaged), 1000)) {
    socket.send(message, server.port, server.ip);
    stream.write(framed(message));
  }
  stream.resume();
  const reply = await askDns(server, "tcp", good);
  assert.deepEqual(answersOf(dnsReply(reply)), ["A 10.96.0.1"]);
  assert.deepEqual(
    log.lines.filter(({ level }) => level === "error"),
    [],
  );
});

test("a workload that the mesh does not know in time gets a failure, counted without a source", async (t) => {
  const source = { find: () => undefined, wait: async () => undefined };
  const { server, metrics } = await start(t, { source });
  const reply = dnsReply(await askDns(server, "udp", dnsQuery(ECHO, "A")));
  assert.equal(reply.rcode, "SERVFAIL");
  const [series] = metrics();
  assert.deepEqual(series?.labels, ["a", "udp", "unknown", "unknown"]);
  assert.deepEqual([series?.requests, series?.upstreamRequests], [1, 0]);
});

test("a query waits for the workload to appear", async (t) => {
  const appears = Promise.withResolvers<typeof client.value>();
  const source = { find: () => undefined, wait: () => appears.promise };
  const { server } = await start(t, { source });
  const asked = askDns(server, "udp", dnsQuery(ECHO, "A"));
  appears.resolve(client.value);
  assert.deepEqual(answersOf(dnsReply(await asked)), ["A 10.96.0.1"]);
});

test("what becomes of a query is logged and counted as the original does", async (t) => {
  const answer: Ask = async (query) => {
    const asked = decode(Buffer.from(query));
    const record = { name: "x", type: "A", data: "10.0.0.1" } as const;
    const isKnown = asked.questions?.[0]?.name === "ext.example.com";
    const answers = isKnown ? [record, record] : [];
    return encode({ ...asked, type: "response", answers, additionals: [] });
  };
  const { server, lines, metrics } = await start(t, { ask: answer });
  await askDns(server, "udp", dnsQuery(ECHO, "A"));
  await askDns(server, "udp", dnsQuery(`${ECHO}.cluster.local`, "A"));
  await askDns(server, "udp", dnsQuery("Echo", "AAAA"));
  await askDns(server, "tcp", dnsQuery("ext.example.com", "A"));
  await askDns(server, "tcp", dnsQuery("nx.example.com", "TXT"));
  const head = 'src.workload="client" src.namespace="ns1"';
  assert.deepEqual(lines(), [
    `${head} query="A" domain="${ECHO}." result="success" endpoints=0`,
    `${head} query="A" domain="${ECHO}.cluster.local." result="success" endpoints=1`,
    `${head} query="AAAA" domain="echo." result="no records" endpoints=0`,
    `${head} query="A" domain="ext.example.com." result="forwarded" endpoints=2`,
    `${head} query="TXT" domain="nx.example.com." result=${JSON.stringify('forwarding failed (net error: DNS error: no records found for Query { name: Name("nx.example.com."), query_type: TXT, query_class: IN })')} endpoints=0`,
  ]);
  const counts = Object.fromEntries(
    metrics().map(({ labels, requests, upstreamRequests, upstreamFailures, upstreamBuckets }) => [
      labels.join(),
      [requests, upstreamRequests, upstreamFailures, upstreamBuckets.reduce((a, b) => a + b)],
    ]),
  );
  assert.deepEqual(counts, {
    "a,udp,client,v1": [2, 0, 0, 0],
    "aaaa,udp,client,v1": [1, 0, 0, 0],
    "a,tcp,client,v1": [1, 1, 0, 1],
    "txt,tcp,client,v1": [1, 1, 1, 1],
  });
});

test("a resolver that fails is a failure for the one who asked", async (t) => {
  const ask: Ask = async () => {
    throw new DnsError("timeout", "request to 192.0.2.53 timed out");
  };
  const { server, lines } = await start(t, { ask });
  const reply = dnsReply(await askDns(server, "udp", dnsQuery("ext.example.com", "A")));
  assert.equal(reply.rcode, "SERVFAIL");
  assert.equal(reply.questions?.[0]?.name, "ext.example.com");
  assert.match(
    lines()[0] ?? "",
    /result="forwarding failed \(net error: request to 192\.0\.2\.53 timed out\)"/,
  );
});

test("a query of our own that comes back ends there, and the log says why once", async (t) => {
  const { server, forwarded, log } = await start(t, { isOwn: () => true, ask: mirror });
  for (const name of ["a.example.com", "b.example.com"]) {
    const reply = dnsReply(await askDns(server, "udp", dnsQuery(name, "A")));
    assert.equal(reply.rcode, "SERVFAIL");
  }
  assert.equal(forwarded.length, 0);
  const warnings = log.lines.filter(({ level }) => level === "warn");
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]?.message ?? "", /redirected to the proxy itself/);
});

test("more queries than may wait fail at once; those that the mesh answers do not", async (t) => {
  const waiting: (() => void)[] = [];
  const slow: Ask = (query, how) =>
    new Promise((resolve) => waiting.push(() => resolve(mirror(query, how))));
  const stage = await start(t, { ask: slow, options: { queriesMax: 2 } });
  const first = [1, 2].map((n) => askDns(stage.server, "udp", dnsQuery(`${n}.example`, "A")));
  while (waiting.length < 2) await turn();
  const third = dnsReply(await askDns(stage.server, "udp", dnsQuery("3.example", "A")));
  assert.equal(third.rcode, "SERVFAIL");
  assert.match(stage.lines()[0] ?? "", /too many queries are waiting/);
  const local = dnsReply(await askDns(stage.server, "udp", dnsQuery(ECHO, "A")));
  assert.deepEqual(answersOf(local), ["A 10.96.0.1"]);
  for (const answer of waiting) answer();
  for (const reply of await Promise.all(first)) assert.equal(dnsReply(reply).rcode, "NOERROR");
});

test("queries on one connection are answered as they are ready, also after its half-close", async (t) => {
  const late = Promise.withResolvers<void>();
  const ask: Ask = async (query, how) => {
    await late.promise;
    return mirror(query, how);
  };
  const { server } = await start(t, { ask });
  const socket = connect({ host: server.ip, port: server.port });
  const messages: number[] = [];
  const stream = new MessageStream();
  socket.on("data", (chunk: Buffer) => {
    for (const message of stream.take(chunk)) messages.push(message.readUInt16BE(0));
    late.resolve();
  });
  socket.end(
    Buffer.concat([
      framed(dnsQuery("ext.example.com", "A", { id: 1 })),
      framed(dnsQuery(ECHO, "A", { id: 2 })),
    ]),
  );
  await once(socket, "end");
  assert.deepEqual(messages, [2, 1]);
});

test("connections beyond the limit are closed, idle ones after their time", async (t) => {
  const { server } = await start(t, { options: { connectionsMax: 1, idleMs: 100 } });
  const first = connect({ host: server.ip, port: server.port });
  await once(first, "connect");
  const second = connect({ host: server.ip, port: server.port });
  second.on("error", () => {});
  first.resume();
  second.resume();
  await Promise.all([once(first, "close"), once(second, "close")]);
  // Where the machine is slow, this one counts as idle, too, before its query has been read.
  let reply: Buffer | undefined;
  while (reply === undefined) {
    reply = await askDns(server, "tcp", dnsQuery(ECHO, "A"), 1000).catch(() => undefined);
  }
  assert.deepEqual(answersOf(dnsReply(reply)), ["A 10.96.0.1"]);
});

test("a zone comes in many messages, also to whoever has ended its own direction", async (t) => {
  const halfClosed = Promise.withResolvers<void>();
  const ask: Ask = async (query, { transfer, transport }) => {
    assert.equal(transport, "tcp");
    const answers = [0, 1, 2].map((rcode) => encodeDnsError(query, readDnsQuery(query), rcode));
    const [first] = answers;
    assert.ok(first);
    transfer?.message(first);
    await halfClosed.promise;
    for (const answer of answers.slice(1)) transfer?.message(answer);
    return first;
  };
  const { server } = await start(t, { ask });
  const socket = connect({ host: server.ip, port: server.port, allowHalfOpen: true });
  t.after(() => socket.destroy());
  const stream = new MessageStream();
  const rcodes: number[] = [];
  socket.on("data", (chunk: Buffer) => {
    for (const message of stream.take(chunk)) rcodes.push(message.readUInt16BE(2) & 0xf);
  });
  socket.end(framed(dnsQuery("example.com", "AXFR")));
  await once(socket, "finish");
  // The server has seen the end by the time that it has answered somebody who came later.
  await askDns(server, "tcp", dnsQuery(ECHO, "A"));
  halfClosed.resolve();
  await once(socket, "end");
  assert.deepEqual(rcodes, [0, 1, 2]);
});

test("draining answers what waits, then nobody listens", async (t) => {
  const late = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  const ask: Ask = async (query, how) => {
    arrived.resolve();
    await late.promise;
    return mirror(query, how);
  };
  const stage = await start(t, { ask });
  const asked = askDns(stage.server, "udp", dnsQuery("ext.example.com", "A"));
  await arrived.promise;
  const drained = stage.dns.drain(60_000);
  assert.deepEqual(answersOf(dnsReply(await askDns(stage.server, "udp", dnsQuery(ECHO, "A")))), [
    "A 10.96.0.1",
  ]);
  const refused = connect({ host: stage.server.ip, port: stage.server.port });
  await assert.rejects(once(refused, "connect"), { code: "ECONNREFUSED" });
  late.resolve();
  await asked;
  await drained;
  // Nothing is left to drain.
  await stage.dns.drain(60_000);
  assert.deepEqual(
    stage.log.of("ztunnel::dns::server").map(({ message, spans }) => [message, ...spans]),
    [
      ["starting local DNS server"],
      ["shutting down the DNS server", "dns_proxy{wl=ns1/client}"],
      ["dns server drained", "dns_proxy{wl=ns1/client}"],
    ],
  );
  const socket = createSocket("udp4");
  t.after(() => socket.close());
  socket.connect(stage.server.port, stage.server.ip);
  await once(socket, "connect");
  socket.send(dnsQuery(ECHO, "A"));
  const [error] = await once(socket, "error");
  assert.equal(error.code, "ECONNREFUSED");
});

test("a port that is taken is named, and leaves nothing bound", async (t) => {
  const { server } = await start(t);
  const again = startDnsServer({ state, source: client.value, options: { listen: server } });
  await assert.rejects(again, { name: "DnsBindError", message: `127.0.0.1:${server.port}` });
});

test("localhost is both loopback addresses", async (t) => {
  const stage = await start(t, { onLocalhost: true });
  const { port } = stage.server;
  for (const text of ["127.0.0.1", "::1"]) {
    const server = { ip: text as typeof stage.server.ip, port };
    const reply = dnsReply(await askDns(server, "udp", dnsQuery(ECHO, "A")));
    assert.deepEqual(answersOf(reply), ["A 10.96.0.1"]);
  }
  const [line] = stage.log.of("ztunnel::dns::server");
  assert.deepEqual(line?.fields, [
    ["address", { bare: `localhost:${port}` }],
    ["component", "dns"],
  ]);
});
