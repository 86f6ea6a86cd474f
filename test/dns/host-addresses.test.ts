import assert from "node:assert/strict";
import { test } from "node:test";
import { HostAddresses } from "../../src/dns/host-addresses.ts";
import type { HostAnswer } from "../../src/dns/system-resolver.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { ip } from "../support/mesh-fixture.ts";

interface Question {
  readonly name: string;
  readonly signal: AbortSignal;
  readonly answer: (answer: HostAnswer) => void;
  readonly fail: (error: Error) => void;
}

function open(namesMax = 4): { hosts: HostAddresses; asked: Question[]; clock: FakeClock } {
  const clock = new FakeClock();
  const asked: Question[] = [];
  const hosts = new HostAddresses(
    {
      ask: (name, signal) =>
        new Promise((answer, fail) => asked.push({ name, signal, answer, fail })),
      clock,
    },
    { namesMax, timeoutMs: 10_000 },
  );
  return { hosts, asked, clock };
}

const ONE = [ip("10.0.0.1")];

test("those who ask for the same name meanwhile share one question", async () => {
  const { hosts, asked } = open();
  const answers = [hosts.find("db.example"), hosts.find("DB.example"), hosts.find("other")];
  assert.deepEqual(
    asked.map(({ name }) => name),
    ["db.example", "other"],
  );
  for (const one of asked) one.answer({ ips: ONE, ttlMs: 0 });
  assert.deepEqual(await Promise.all(answers), [ONE, ONE, ONE]);
});

test("an answer is kept as long as it may be", async () => {
  const { hosts, asked, clock } = open();
  const first = hosts.find("db");
  asked[0]?.answer({ ips: ONE, ttlMs: 30_000 });
  await first;
  await clock.advance(29_999);
  assert.deepEqual(await hosts.find("db"), ONE);
  assert.equal(asked.length, 1);
  await clock.advance(1);
  const second = hosts.find("db");
  asked[1]?.answer({ ips: [], ttlMs: 0 });
  assert.deepEqual(await second, []);
  void hosts.find("db");
  assert.equal(asked.length, 3);
});

test("a failure is everybody's who waits and nobody's after", async () => {
  const { hosts, asked } = open();
  const answers = [hosts.find("db"), hosts.find("db")];
  asked[0]?.fail(new Error("queryA ENOTFOUND db"));
  for (const answer of answers) await assert.rejects(answer, /ENOTFOUND/);
  void hosts.find("db");
  assert.equal(asked.length, 2);
});

test("a question that takes too long ends", async () => {
  const { hosts, asked, clock } = open();
  const late = assert.rejects(hosts.find("db"), { message: "no answer for db within 10000 ms" });
  await clock.advance(10_000);
  await late;
  assert.equal(asked[0]?.signal.aborted, true);
  const again = hosts.find("db");
  asked[1]?.answer({ ips: ONE, ttlMs: 1000 });
  assert.deepEqual(await again, ONE);
  assert.equal(clock.pendingCount, 0);
});

test("of too many names the one not used for longest goes", async () => {
  const { hosts, asked } = open(2);
  const find = async (name: string): Promise<number> => {
    const before = asked.length;
    const found = hosts.find(name);
    asked.at(before)?.answer({ ips: ONE, ttlMs: 60_000 });
    await found;
    return asked.length - before;
  };
  assert.equal(await find("a"), 1);
  assert.equal(await find("b"), 1);
  assert.equal(await find("a"), 0);
  assert.equal(await find("c"), 1);
  assert.equal(await find("a"), 0);
  assert.equal(await find("b"), 1);
});
