import assert from "node:assert/strict";
import { test } from "node:test";
import { type SocketSample, SocketSampler } from "../../src/inpod/socket-sampler.ts";
import type { EnrolledWorkload } from "../../src/mesh/enrolled-workload.ts";
import type { SocketCensus } from "../../src/net/socket-census.ts";
import type { Datagrams } from "../../src/net/udp-counters.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { capturedLog, RecordedLauncher } from "./recorded-launcher.ts";

const INTERVAL_MS = 30_000;

function pod(uid: string): EnrolledWorkload {
  return { uid, name: uid, namespace: "shop", serviceAccount: "web" };
}

function census(udp: Partial<Datagrams>, closeWait = 0): SocketCensus {
  const nothing = { received: 0, sent: 0, unwanted: 0, errors: 0 };
  return {
    tcp: [{ owner: "application", state: "close_wait", count: closeWait }],
    udp: { ipv4: { ...nothing, ...udp }, ipv6: nothing },
    connected: { count: 0, peers: [] },
  };
}

/** A sampler over namespaces whose descriptors are their numbers. */
class Bench {
  readonly clock: FakeClock = new FakeClock();
  readonly lines: string[];
  readonly sampler: SocketSampler;
  readonly launcher: RecordedLauncher = new RecordedLauncher();
  /** Namespaces in the order of the looks. */
  readonly looks: (number | undefined)[] = [];
  /** What the next looks find. */
  found: SocketCensus | Error = census({});
  dns: Datagrams = { received: 0, sent: 0 };
  /** CPU time of each look. */
  lookMs = 0;
  #lookedMs = 0;

  constructor(intervalMs: number = INTERVAL_MS) {
    const { log, lines } = capturedLog();
    this.lines = lines;
    const look = (netnsFd: number | undefined): Generator<undefined, SocketCensus> =>
      this.#look(netnsFd);
    this.sampler = new SocketSampler(
      {
        takeCensus: look,
        dnsDatagrams: async () => this.dns,
        workloadName: ({ name }) => `${name}-deployment`,
        cpuMs: () => this.#lookedMs,
        clock: this.clock,
        log,
      },
      { intervalMs },
    );
  }

  get samples(): readonly SocketSample[] {
    return this.sampler.samples();
  }

  *#look(netnsFd: number | undefined): Generator<undefined, SocketCensus> {
    this.looks.push(netnsFd);
    this.#lookedMs += this.lookMs;
    yield;
    if (this.found instanceof Error) throw this.found;
    return this.found;
  }
}

test("a pod is looked at when it starts and then at intervals, until it stops", async () => {
  const bench = new Bench();
  const launcher = bench.sampler.watching(bench.launcher);
  bench.found = census({}, 3);
  await launcher.startWorkload(pod("a"), 7);
  await bench.clock.advance(0);
  assert.deepEqual(
    bench.samples.map(({ workload, workloadName, census: { tcp } }) => [
      workload.name,
      workloadName,
      tcp[0]?.count,
    ]),
    [["a", "a-deployment", 3]],
  );
  bench.found = census({}, 4);
  await bench.clock.advance(INTERVAL_MS - 1);
  assert.deepEqual(bench.looks, [7]);
  await bench.clock.advance(1);
  assert.deepEqual(bench.looks, [7, 7]);
  assert.equal(bench.samples[0]?.census.tcp[0]?.count, 4);

  await launcher.stopWorkload("a", 0).ended;
  assert.deepEqual(bench.samples, []);
  await bench.clock.advance(2 * INTERVAL_MS);
  assert.deepEqual(bench.looks, [7, 7]);
  assert.deepEqual(bench.launcher.calls, ["start a", "stop a"]);
});

test("a pod that can't be started is not looked at", async () => {
  const bench = new Bench();
  bench.launcher.failures.set("a", ["failed to bind"]);
  await assert.rejects(bench.sampler.watching(bench.launcher).startWorkload(pod("a"), 7));
  await bench.clock.advance(INTERVAL_MS);
  assert.deepEqual(bench.looks, []);
});

test("with an interval of 0 nobody is looked at", async () => {
  const bench = new Bench(0);
  bench.sampler.add(pod("a"), 7);
  await bench.clock.advance(INTERVAL_MS);
  assert.deepEqual([bench.looks, bench.samples], [[], []]);
});

test("looks take a fiftieth of the time at most, however many pods there are", async () => {
  const bench = new Bench();
  bench.lookMs = 8;
  for (let at = 0; at < 200; at++) bench.sampler.add(pod(`pod-${at}`), at);
  const restMs = 49 * bench.lookMs;
  await bench.clock.advance(99 * restMs);
  const looked = Array.from({ length: 100 }, (_, at) => at);
  assert.deepEqual(bench.looks, looked);
  // Whoever was looked at is not due before all others have been.
  await bench.clock.advance(101 * restMs);
  assert.deepEqual(bench.looks.slice(-3), [198, 199, 0]);
});

test("what passes by is counted from the first look on, without DNS, and never backwards", async () => {
  const bench = new Bench();
  const after = async (udp: Datagrams, dns: Datagrams): Promise<Datagrams | undefined> => {
    bench.found = census(udp);
    bench.dns = dns;
    await bench.clock.advance(INTERVAL_MS);
    return bench.samples[0]?.bypassing;
  };
  bench.found = census({ received: 100, sent: 50 });
  bench.dns = { received: 90, sent: 20 };
  bench.sampler.add(pod("a"), 7);
  await bench.clock.advance(0);
  assert.deepEqual(bench.samples[0]?.bypassing, { received: 0, sent: 0 });
  const dns = { received: 95, sent: 25 };
  assert.deepEqual(await after({ received: 108, sent: 56 }, dns), { received: 3, sent: 1 });
  // More DNS by now than the kernel had counted a moment before.
  const later = { received: 100, sent: 30 };
  assert.deepEqual(await after({ received: 109, sent: 58 }, later), { received: 3, sent: 1 });
  assert.deepEqual(await after({ received: 115, sent: 66 }, later), { received: 5, sent: 6 });
});

test("a failure is said once, until a look succeeds, and takes the pod from the samples", async () => {
  const bench = new Bench();
  bench.sampler.add(pod("a"), 7);
  bench.sampler.add(pod("b"), undefined);
  await bench.clock.advance(0);
  assert.equal(bench.samples.length, 2);
  bench.found = new Error("EPERM: not permitted");
  await bench.clock.advance(3 * INTERVAL_MS);
  assert.deepEqual(bench.samples, []);
  const line = (name: string): string =>
    `inpod::sockets warn failed to look at the sockets of shop/${name}: EPERM: not permitted`;
  assert.deepEqual(bench.lines, [line("a"), line("b")]);
  bench.found = census({});
  await bench.clock.advance(INTERVAL_MS);
  assert.equal(bench.samples.length, 2);
  bench.found = new Error("EPERM: not permitted");
  await bench.clock.advance(INTERVAL_MS);
  assert.equal(bench.lines.length, 4);
});

test("a pod that stops while it is looked at leaves no sample and no line", async () => {
  for (const found of [census({}), new Error("EBADF: bad file descriptor")]) {
    const bench = new Bench();
    const launcher = bench.sampler.watching(bench.launcher);
    bench.found = found;
    bench.lookMs = 10;
    await launcher.startWorkload(pod("a"), 7);
    const looking = bench.clock.advance(0);
    await launcher.stopWorkload("a", 0).ended;
    await looking;
    await bench.clock.advance(INTERVAL_MS);
    assert.deepEqual([bench.samples, bench.lines], [[], []]);
  }
});

test("once closed nobody is looked at, and the last samples stay", async () => {
  const bench = new Bench();
  bench.sampler.add(pod("a"), 7);
  await bench.clock.advance(0);
  bench.sampler.close();
  await bench.clock.advance(2 * INTERVAL_MS);
  assert.deepEqual([bench.looks.length, bench.samples.length], [1, 1]);
  assert.equal(bench.clock.pendingCount, 0);
});
