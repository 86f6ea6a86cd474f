import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encode, type Packet } from "dns-packet";
import { encodeDnsAnswer, encodeDnsError } from "../../src/wire/dns-answer.ts";
import {
  isDnsQuery,
  isDnsReply,
  RCODE,
  readDnsOutcome,
  withIdOf,
} from "../../src/wire/dns-message.ts";
import { type DnsQuery, type DnsQuestion, readDnsQuery } from "../../src/wire/dns-query.ts";
import type { WireError } from "../../src/wire/wire-error.ts";
import { ip } from "../support/mesh-fixture.ts";

const RD = 0x0100;

function query(name: string, type: string, more: Partial<Packet> = {}): Buffer {
  const questions = [{ name, type: type as "A", class: "IN" as const }];
  return encode({ type: "query", id: 0x1234, flags: RD, questions, ...more });
}

const edns = (udpPayloadSize: number, flags = 0): Packet["additionals"] => [
  {
    type: "OPT",
    name: ".",
    udpPayloadSize,
    extendedRcode: 0,
    ednsVersion: 0,
    flags,
    flag_do: flags !== 0,
    options: [],
  },
];

/** What both ends of an answer need. */
function read(message: Buffer): DnsQuery & { readonly question: DnsQuestion } {
  const { question, ...rest } = readDnsQuery(message);
  assert.ok(question);
  return { ...rest, question };
}

const names: readonly [name: string, type: string, expected: Partial<DnsQuestion>][] = [
  ["Echo.Default.svc", "A", { name: "echo.default.svc", type: "A" }],
  ["a.b", "AAAA", { name: "a.b", type: "AAAA" }],
  [".", "SOA", { name: "", type: "SOA" }],
  ["x", "UNKNOWN_65", { name: "x", type: "HTTPS" }],
  ["x", "UNKNOWN_64", { name: "x", type: "SVCB" }],
  ["x", "UNKNOWN_4711", { name: "x", type: "UNKNOWN" }],
  ["_sip._tcp.example.com", "SRV", { name: "_sip._tcp.example.com", type: "SRV" }],
];
for (const [name, type, expected] of names) {
  test(`a question for ${name} ${type} is read in lower case`, () => {
    const { question, opcode, edns: extension } = readDnsQuery(query(name, type));
    assert.deepEqual({ ...question, ...expected }, question);
    assert.equal(question?.isInternet, true);
    assert.equal(opcode, 0);
    assert.equal(extension, undefined);
  });
}

test("what the sender can do is read, with at least 512 bytes", () => {
  const { edns: extension } = readDnsQuery(query("x", "A", { additionals: edns(1232, 0x8000) }));
  assert.deepEqual(extension, { version: 0, sizeMax: 1232, isDnssecOk: true });
  const small = readDnsQuery(query("x", "A", { additionals: edns(100) })).edns;
  assert.deepEqual(small, { version: 0, sizeMax: 512, isDnssecOk: false });
});

const hex = (text: string): Buffer => Buffer.from(text, "hex");

test("only the beginning of a query is one", () => {
  assert.equal(isDnsQuery(hex("1234000000000000000000")), false);
  assert.equal(isDnsQuery(hex("123481800001000000000000046563686f0000010001")), false);
  assert.equal(isDnsQuery(hex("123401000001000000000000")), true);
});

const broken: readonly [what: string, message: Buffer][] = [
  ["cut off in its type", hex("123401000001000000000000046563686f0000")],
  ["cut off in its name", hex("123401000001000000000000046563")],
  ["with a name that points into the header", hex("123401000001000000000000c0040000010001")],
  ["with more records than bytes", hex("1234010000010000ffffffff0161000001000100")],
  [
    "with two questions",
    hex("123401000002000000000000016100000100010161000001 0001".replace(" ", "")),
  ],
];
for (const [what, message] of broken) {
  test(`a query ${what} is malformed`, () => {
    assert.throws(() => readDnsQuery(message), /^WireError: /);
    assert.throws(() => readDnsQuery(message), { code: "malformed" } satisfies Partial<WireError>);
    // An update need not be understood.
    const update = Buffer.from(message);
    update.writeUInt16BE(5 << 11, 2);
    assert.deepEqual(readDnsQuery(update), { opcode: 5, question: undefined, edns: undefined });
  });
}

test("a query without a question is read as one", () => {
  assert.equal(readDnsQuery(hex("123401000000000000000000")).question, undefined);
});

test("addresses are answered with authority, owned by the asked name", () => {
  const message = query("echo", "A");
  const addresses = [ip("10.0.0.1"), ip("10.0.0.2")];
  const answer = { alias: undefined, addresses, ttlSeconds: 30 };
  const bytes = encodeDnsAnswer(message, read(message), answer, "udp");
  assert.equal(
    Buffer.from(bytes).toString("hex"),
    "123485800001000200000000046563686f0000010001" +
      "c00c000100010000001e00040a000001c00c000100010000001e00040a000002",
  );
});

test("answers are owned by the lower-case name, the question stays as it was asked", () => {
  const message = query("ECHO.Default", "AAAA");
  const answer = { alias: undefined, addresses: [ip("fd00::1"), ip("fd00::2")], ttlSeconds: 30 };
  const reply = decode(Buffer.from(encodeDnsAnswer(message, read(message), answer, "udp")));
  assert.equal(reply.questions?.[0]?.name, "ECHO.Default");
  assert.deepEqual(
    reply.answers?.map((record) => [record.name, "data" in record && record.data]),
    [
      ["echo.default", "fd00::1"],
      ["echo.default", "fd00::2"],
    ],
  );
});

test("a name with a search domain is an alias of the one without", () => {
  const message = query("www.Example.com.default.svc.cluster.local", "A");
  const answer = { alias: "www.example.com", addresses: [ip("10.0.0.1")], ttlSeconds: 30 };
  const reply = decode(Buffer.from(encodeDnsAnswer(message, read(message), answer, "tcp")));
  assert.deepEqual(
    reply.answers?.map((record) => [record.name, record.type, "data" in record && record.data]),
    [
      ["www.example.com.default.svc.cluster.local", "CNAME", "www.example.com"],
      ["www.example.com", "A", "10.0.0.1"],
    ],
  );
});

test("no address is an empty answer with authority, without an alias", () => {
  const message = query("a.default.svc.cluster.local", "AAAA");
  const answer = { alias: "a", addresses: [], ttlSeconds: 30 };
  const reply = Buffer.from(encodeDnsAnswer(message, read(message), answer, "udp"));
  assert.equal(reply.readUInt16BE(2), 0x8580);
  assert.deepEqual(decode(reply).answers, []);
});

/** As a headless service of many endpoints. */
const many = Array.from({ length: 256 }, (_, index) => ip(`240.0.0.${index}`));
const sizes: readonly [
  what: string,
  additionals: Packet["additionals"],
  transport: "udp" | "tcp",
  count: number,
  isTruncated: boolean,
][] = [
  ["TCP", [], "tcp", 256, false],
  ["UDP with 1232 bytes", edns(1232), "udp", 74, true],
  ["UDP with 4096 bytes", edns(4096), "udp", 253, true],
  ["UDP with 8192 bytes", edns(8192), "udp", 256, false],
  ["plain UDP", [], "udp", 30, true],
];
for (const [what, additionals, transport, count, isTruncated] of sizes) {
  test(`of 256 addresses ${count} fit into ${what}`, () => {
    const message = query("large.io", "A", { additionals });
    const answer = { alias: undefined, addresses: many, ttlSeconds: 30 };
    const bytes = Buffer.from(encodeDnsAnswer(message, read(message), answer, transport));
    const reply = decode(bytes) as Packet & { readonly flag_tc: boolean };
    assert.equal(reply.answers?.length, count);
    assert.equal(reply.flag_tc, isTruncated);
    if (transport === "udp") assert.ok(bytes.length <= (read(message).edns?.sizeMax ?? 512));
    assert.equal(reply.additionals?.length, additionals?.length);
  });
}

test("5000 addresses do not fit into one message of TCP", () => {
  const message = query("large.io", "AAAA");
  const addresses = Array.from({ length: 5000 }, (_, index) => ip(`fd00::${index.toString(16)}`));
  const answer = { alias: undefined, addresses, ttlSeconds: 30 };
  const bytes = encodeDnsAnswer(message, read(message), answer, "tcp");
  assert.ok(bytes.length <= 65_535 && bytes.length > 65_000);
});

test("a refusal repeats the question and what the sender can do", () => {
  const message = query("Echo", "A", { additionals: edns(1400, 0x8000) });
  const bytes = encodeDnsError(message, readDnsQuery(message), RCODE.serverFailure);
  const reply = decode(Buffer.from(bytes)) as Packet as Packet & { readonly rcode: string };
  assert.equal(reply.rcode, "SERVFAIL");
  assert.equal(reply.id, 0x1234);
  assert.equal(reply.flags, 0x0102);
  assert.equal(reply.questions?.[0]?.name, "Echo");
  const [extension] = reply.additionals ?? [];
  assert.ok(extension?.type === "OPT" && "udpPayloadSize" in extension);
  assert.equal(extension.udpPayloadSize, 1400);
  assert.equal(extension.flag_do, true);
});

test("a query that can't be read is refused as the original does", () => {
  const message = hex("123401000001000000000000046563686f0000");
  const bytes = encodeDnsError(message, undefined, RCODE.formatError);
  assert.equal(Buffer.from(bytes).toString("hex"), "123481010000000000000000");
});

const asked = query("Echo.example.com", "A");
const reply = (name: string, type: string, more: Partial<Packet> = {}): Buffer =>
  query(name, type, { type: "response", ...more });
const replies: readonly [what: string, message: Buffer, isReply: boolean][] = [
  ["the same question", reply("Echo.example.com", "A"), true],
  ["the question in other letters", reply("eCHO.EXAMPLE.com", "A"), true],
  ["no question", encode({ type: "response", id: 0x1234 }), true],
  ["another number", reply("Echo.example.com", "A", { id: 0x1235 }), false],
  ["another name", reply("Echo.example.org", "A"), false],
  ["a longer name", reply("Echo.example.com.org", "A"), false],
  ["a shorter name", reply("Echo.example", "A"), false],
  ["another type", reply("Echo.example.com", "AAAA"), false],
  ["the query itself", asked, false],
  ["half a header", asked.subarray(0, 6), false],
];
for (const [what, message, isReply] of replies) {
  test(`a message with ${what} is ${isReply ? "the" : "no"} reply`, () =>
    assert.equal(isDnsReply(message, asked), isReply));
}

test("a reply tells how it went, and goes to others who asked the same", () => {
  const answer = { name: "x", type: "A", data: "10.0.0.1" } as const;
  const message = reply("x", "A", { answers: [answer, answer] });
  assert.deepEqual(readDnsOutcome(message), { rcode: 0, answerCount: 2 });
  const other = query("x", "A", { id: 7 });
  assert.equal(decode(Buffer.from(withIdOf(other, message))).id, 7);
  assert.equal(decode(message).id, 0x1234);
  assert.equal(withIdOf(query("x", "A"), message), message);
});
