import assert from "node:assert/strict";
import { test } from "node:test";
import { DnsError } from "../../src/dns/dns-error.ts";
import { type Ask, Forwarder } from "../../src/dns/forwarder.ts";
import { encodeDnsError } from "../../src/wire/dns-answer.ts";
import { RCODE, readDnsOutcome } from "../../src/wire/dns-message.ts";
import { readDnsQuery } from "../../src/wire/dns-query.ts";
import { dnsQuery } from "../support/dns-client.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { ip } from "../support/mesh-fixture.ts";

const [FIRST, SECOND] = [ip("192.0.2.1"), ip("192.0.2.2")];
const query = dnsQuery("x.example", "A");

const answer =
  (rcode: number): Ask =>
  async (message) =>
    encodeDnsError(message, readDnsQuery(message), rcode);
const failing: Ask = async (_message, { resolver }) => {
  throw new DnsError("timeout", `request to ${resolver} timed out`);
};

interface Lab {
  readonly forwarder: Forwarder;
  readonly clock: FakeClock;
  /** Who was asked. */
  readonly asked: string[];
  /** How they did. */
  readonly outcomes: string[];
}

/** @param behaviour of each resolver, looked up for each question. */
function makeLab(behaviour: Record<string, Ask>, attempts = 2): Lab {
  const clock = new FakeClock();
  const asked: string[] = [];
  const outcomes: string[] = [];
  const told = (resolver: string, outcome: string): unknown =>
    outcomes.push(`${resolver} ${outcome}`);
  const ask: Ask = (message, how) => {
    asked.push(how.resolver);
    return (behaviour[how.resolver] ?? failing)(message, how);
  };
  const options = { resolvers: [FIRST, SECOND], attempts, timeoutMs: 5000 };
  return { forwarder: new Forwarder({ ask, asked: told, clock }, options), clock, asked, outcomes };
}

test("the first resolver answers alone", async () => {
  const { forwarder, asked } = makeLab({ [FIRST]: answer(0), [SECOND]: answer(0) });
  await forwarder.forward(query, "udp");
  assert.deepEqual(asked, [FIRST]);
});

test("a name that does not exist is an answer", async () => {
  const { forwarder, asked } = makeLab({ [FIRST]: answer(3), [SECOND]: answer(0) });
  assert.equal(readDnsOutcome(await forwarder.forward(query, "udp")).rcode, 3);
  assert.deepEqual(asked, [FIRST]);
});

for (const rcode of [RCODE.serverFailure, RCODE.notImplemented, RCODE.refused]) {
  test(`who answers ${rcode} has another asked, and is passed on when nobody does better`, async () => {
    const better = makeLab({ [FIRST]: answer(rcode), [SECOND]: answer(0) });
    assert.equal(readDnsOutcome(await better.forwarder.forward(query, "udp")).rcode, 0);
    assert.deepEqual(better.asked, [FIRST, SECOND]);
    const worse = makeLab({ [FIRST]: answer(rcode), [SECOND]: failing });
    assert.equal(readDnsOutcome(await worse.forwarder.forward(query, "udp")).rcode, rcode);
    assert.deepEqual(worse.asked, [FIRST, SECOND]);
    assert.deepEqual(better.outcomes, [`${FIRST} refused`, `${SECOND} answered`]);
    assert.deepEqual(worse.outcomes, [`${FIRST} refused`, `${SECOND} timeout`]);
  });
}

test("a resolver that fails is asked last for half a minute", async () => {
  const { forwarder, clock, asked } = makeLab({ [FIRST]: failing, [SECOND]: answer(0) });
  await forwarder.forward(query, "udp");
  await forwarder.forward(query, "udp");
  assert.deepEqual(asked, [FIRST, SECOND, SECOND]);
  await clock.advance(30_000);
  await forwarder.forward(query, "udp");
  assert.deepEqual(asked, [FIRST, SECOND, SECOND, FIRST, SECOND]);
});

test("a resolver that answers again is in its place again", async () => {
  let works = false;
  const first: Ask = (message, how) => (works ? answer(0) : failing)(message, how);
  const { forwarder, asked } = makeLab({ [FIRST]: first, [SECOND]: failing }, 3);
  await assert.rejects(forwarder.forward(query, "udp"), { code: "timeout" });
  works = true;
  asked.length = 0;
  await forwarder.forward(query, "udp");
  await forwarder.forward(query, "udp");
  assert.deepEqual(asked, [FIRST, FIRST]);
});

test("all are asked as often as the file says, then the last failure counts", async () => {
  const { forwarder, asked } = makeLab({}, 3);
  await assert.rejects(forwarder.forward(query, "udp"), {
    code: "timeout",
    message: `request to ${SECOND} timed out`,
  });
  assert.deepEqual(asked, [FIRST, SECOND, FIRST, SECOND, FIRST, SECOND]);
});

test("a server that is closed asks nobody else", async () => {
  const closed: Ask = async () => {
    throw new DnsError("closed", "the server is closed");
  };
  const { forwarder, asked } = makeLab({ [FIRST]: closed });
  await assert.rejects(forwarder.forward(query, "udp"), { code: "closed" });
  assert.deepEqual(asked, [FIRST]);
});

test("who asks the same at the same time gets the same reply under his own number", async () => {
  const { forwarder, asked } = makeLab({ [FIRST]: answer(3) });
  const ids = [1, 2, 2, 3];
  const replies = await Promise.all(
    ids.map((id) => forwarder.forward(dnsQuery("x.example", "A", { id }), "udp")),
  );
  assert.deepEqual(
    replies.map((reply) => Buffer.from(reply).readUInt16BE(0)),
    ids,
  );
  assert.equal(asked.length, 1);
  await forwarder.forward(query, "udp");
  assert.equal(asked.length, 2);
});

test("different questions, flags and transports are asked each", async () => {
  const { forwarder, asked } = makeLab({ [FIRST]: answer(0) });
  await Promise.all([
    forwarder.forward(query, "udp"),
    forwarder.forward(query, "tcp"),
    forwarder.forward(dnsQuery("x.example", "AAAA"), "udp"),
    forwarder.forward(dnsQuery("X.example", "A"), "udp"),
    forwarder.forward(dnsQuery("x.example", "A", { flags: 0 }), "udp"),
  ]);
  assert.equal(asked.length, 5);
});
