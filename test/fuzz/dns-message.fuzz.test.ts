import assert from "node:assert/strict";
import { decode, encode, type Packet } from "dns-packet";
import fc from "fast-check";
import { ipAddressFromBytes } from "../../src/mesh/ip-address.ts";
import { encodeDnsAnswer, encodeDnsError } from "../../src/wire/dns-answer.ts";
import { isDnsQuery, isDnsReply, RCODE, withIdOf } from "../../src/wire/dns-message.ts";
import { readDnsQuery } from "../../src/wire/dns-query.ts";
import { WireError } from "../../src/wire/wire-error.ts";
import { fuzz } from "./fuzz.ts";

const label = fc.stringMatching(/^[A-Za-z0-9_-]{1,20}$/);
const name = fc.array(label, { minLength: 1, maxLength: 6 }).map((labels) => labels.join("."));
const query = fc
  .record({ name, id: fc.nat(65_535), size: fc.option(fc.integer({ min: 0, max: 9000 })) })
  .map(({ name: asked, id, size }) => ({
    asked,
    message: encode({
      type: "query",
      id,
      questions: [{ name: asked, type: "A" }],
      additionals: size === null ? [] : [option(size)],
    }),
  }));

function option(udpPayloadSize: number): NonNullable<Packet["additionals"]>[number] {
  const common = { type: "OPT", name: ".", extendedRcode: 0, ednsVersion: 0 } as const;
  return { ...common, udpPayloadSize, flags: 0, flag_do: false, options: [] };
}

/** A good message with some bytes changed and its end cut off. */
const damaged = fc
  .tuple(query, fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { maxLength: 4 }), fc.nat(80))
  .map(([{ message }, changes, cut]) => {
    const copy = Buffer.from(message);
    for (const [at, value] of changes) if (at < copy.length) copy[at] = value;
    return copy.subarray(0, Math.max(0, copy.length - (cut > 40 ? 0 : cut)));
  });
const anything = fc.oneof(
  fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes)),
  damaged,
);

fuzz(
  "whatever comes is read or refused, and every refusal can be read",
  fc.property(anything, (message) => {
    if (!isDnsQuery(message)) return;
    let read: ReturnType<typeof readDnsQuery> | undefined;
    try {
      read = readDnsQuery(message);
    } catch (error) {
      assert.ok(error instanceof WireError, String(error));
    }
    const refusal = encodeDnsError(message, read, RCODE.serverFailure);
    assert.equal(decode(Buffer.from(refusal)).id, message.readUInt16BE(0));
    assert.equal(isDnsReply(refusal, message), true);
  }),
);

fuzz(
  "an answer is what dns-packet reads of it, and as long as the asker allows",
  fc.property(
    query,
    fc.array(fc.uint8Array({ minLength: 4, maxLength: 4 }), { maxLength: 300 }),
    ({ asked, message }, ips) => {
      const read = readDnsQuery(message);
      const { question } = read;
      assert.ok(question);
      const addresses = ips.map(ipAddressFromBytes).filter((ip) => ip !== undefined);
      const answer = { alias: undefined, addresses, ttlSeconds: 30 };
      const bytes = Buffer.from(encodeDnsAnswer(message, { ...read, question }, answer, "udp"));
      assert.ok(bytes.length <= Math.max(512, read.edns?.sizeMax ?? 0));
      const reply = decode(bytes) as Packet & { readonly flag_tc: boolean };
      const data = reply.answers?.map((record) => "data" in record && record.data) ?? [];
      assert.deepEqual(data, addresses.slice(0, data.length));
      assert.equal(reply.flag_tc, data.length < addresses.length);
      for (const record of reply.answers ?? []) assert.equal(record.name, asked.toLowerCase());
    },
  ),
);

fuzz(
  "no two messages of any kind make the reader of replies throw",
  fc.property(anything, anything, (reply, asked) => {
    if (!isDnsQuery(asked)) return;
    if (isDnsReply(reply, asked)) assert.deepEqual(withIdOf(asked, reply), reply);
  }),
);
