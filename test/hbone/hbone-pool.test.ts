import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { EngineError } from "../../src/engine/engine-error.ts";
import { HbonePool, type HbonePoolOptions, type PooledStream } from "../../src/hbone/hbone-pool.ts";
import type { HboneTarget } from "../../src/hbone/shared-tunnel.ts";
import type { Identity } from "../../src/mesh/identity.ts";
import type { IpAddress } from "../../src/mesh/ip-address.ts";
import { FakeClock, settle } from "../support/fake-clock.ts";
import { FakeTunnel } from "./fake-tunnel.ts";

const identity = (serviceAccount: string): Identity => ({
  trustDomain: "cluster.local",
  namespace: "default",
  serviceAccount,
});

const target = (change: Partial<HboneTarget> = {}): HboneTarget => ({
  source: identity("client"),
  sourceIp: "10.0.0.1" as IpAddress,
  expected: [identity("server")],
  destinationUid: "server-1",
  remote: { ip: "10.0.1.1" as IpAddress, port: 15008 },
  ...change,
});

/** A pool with its dialler in the test's hands. */
class PoolBench {
  readonly clock = new FakeClock();
  readonly tunnels: FakeTunnel[] = [];
  readonly dialled: HboneTarget[] = [];
  readonly lost: string[] = [];
  /** The peer's limit of streams for tunnels dialled from now on. */
  peerStreamsMax = 1000;
  /** Fails the next dials. */
  dialError: EngineError | undefined;
  /** Milliseconds that a dial takes. */
  dialMs = 0;
  onDialled: ((tunnel: FakeTunnel) => void) | undefined;
  dialsRunning = 0;
  dialsRunningMax = 0;
  readonly pool: HbonePool;

  constructor(options: Partial<HbonePoolOptions> = {}) {
    this.pool = new HbonePool(
      {
        clock: this.clock,
        dial: (to) => this.#dial(to),
        lost: (to, { message }, streamCount) =>
          this.lost.push(`${to.destinationUid}: ${message}, ${streamCount} streams`),
      },
      {
        streamsPerConnectionMax: 100,
        unusedReleaseMs: 300_000,
        dialBackoffMaxMs: 1000,
        connectionsMax: 500,
        ...options,
      },
    );
  }

  async #dial(to: HboneTarget): Promise<FakeTunnel> {
    this.dialled.push(to);
    this.dialsRunning++;
    this.dialsRunningMax = Math.max(this.dialsRunningMax, this.dialsRunning);
    if (this.dialMs > 0) {
      await new Promise<void>((resolve) => this.clock.after(this.dialMs, resolve));
    }
    this.dialsRunning--;
    if (this.dialError !== undefined) throw this.dialError;
    const tunnel = new FakeTunnel(this.peerStreamsMax);
    this.tunnels.push(tunnel);
    this.onDialled?.(tunnel);
    return tunnel;
  }

  open(to = target(), authority = "10.0.1.1:80"): Promise<PooledStream> {
    return this.pool.open(to, authority, []);
  }

  openAll(count: number): Promise<readonly PooledStream[]> {
    return Promise.all(Array.from({ length: count }, () => this.open()));
  }

  get liveTunnelCount(): number {
    return this.tunnels.filter((tunnel) => !tunnel.isGone).length;
  }
}

function end(stream: PooledStream): void {
  stream.answer.end?.close();
  stream.lease.release();
}

describe("tunnel reuse", () => {
  // Recorded from the original: streams → tunnels → those left when all streams have ended.
  for (const [streams, tunnels, left] of [
    [1, 1, 1],
    [2, 1, 1],
    [99, 1, 1],
    [100, 1, 0],
    [101, 2, 1],
    [150, 2, 1],
    [200, 2, 0],
    [201, 3, 1],
    [250, 3, 1],
  ] as const) {
    test(`${streams} streams one after the other make ${tunnels} tunnels, ${left} left`, async () => {
      const bench = new PoolBench();
      const open: PooledStream[] = [];
      for (let i = 0; i < streams; i++) open.push(await bench.open());
      assert.equal(bench.tunnels.length, tunnels);
      for (const stream of open) end(stream);
      assert.equal(bench.liveTunnelCount, left);
    });

    test(`${streams} streams at once make ${tunnels} tunnels, ${left} left`, async () => {
      const bench = new PoolBench();
      bench.dialMs = 5;
      const opening = bench.openAll(streams);
      await bench.clock.advance(20);
      const open = await opening;
      assert.equal(bench.tunnels.length, tunnels);
      assert.equal(bench.dialsRunningMax, 1);
      assert(bench.tunnels.every((tunnel) => tunnel.liveCountMax <= 100));
      for (const stream of open) end(stream);
      assert.equal(bench.liveTunnelCount, left);
    });
  }

  test("connections_reused: two at once share a tunnel with the two after them, and it ends with the pool", async () => {
    const bench = new PoolBench({ streamsPerConnectionMax: 3 });
    for (let i = 0; i < 2; i++) {
      for (const stream of await bench.openAll(2)) end(stream);
      assert.deepEqual([bench.tunnels.length, bench.liveTunnelCount], [1, 1]);
    }
    bench.pool.close();
    assert.equal(bench.liveTunnelCount, 0);
  });

  test("100 streams on one: a tunnel for 101 carries them at once and stays", async () => {
    const bench = new PoolBench({ streamsPerConnectionMax: 101 });
    for (const stream of await bench.openAll(100)) end(stream);
    assert.deepEqual([bench.tunnels.length, bench.liveTunnelCount], [1, 1]);
  });

  test("300 streams of which one lives at a time share one tunnel", async () => {
    const bench = new PoolBench();
    for (let i = 0; i < 300; i++) end(await bench.open());
    assert.equal(bench.tunnels.length, 1);
    assert.equal(bench.liveTunnelCount, 1);
  });

  test("different authorities share a tunnel and keep their headers", async () => {
    const { pool, tunnels } = new PoolBench();
    await pool.open(target(), "a:1", [["traceparent", "t1"]]);
    await pool.open(target(), "b:2", [["traceparent", "t2"]]);
    assert.deepEqual(tunnels[0]?.requests, [
      ["a:1", [["traceparent", "t1"]]],
      ["b:2", [["traceparent", "t2"]]],
    ]);
  });

  test("connection_limits: of limit 2, four streams fill two tunnels that end, five more make three", async () => {
    const bench = new PoolBench({ streamsPerConnectionMax: 2 });
    for (const stream of await bench.openAll(4)) end(stream);
    assert.equal(bench.tunnels.length, 2);
    assert.equal(bench.liveTunnelCount, 0);
    for (const stream of await bench.openAll(5)) end(stream);
    assert.equal(bench.tunnels.length, 5);
    assert.equal(bench.liveTunnelCount, 1);
  });

  test("single_pool: of limit 1, every stream has a tunnel of its own", async () => {
    const bench = new PoolBench({ streamsPerConnectionMax: 1 });
    for (const stream of await bench.openAll(3)) end(stream);
    assert.equal(bench.tunnels.length, 3);
    assert.equal(bench.liveTunnelCount, 0);
  });

  test("a full tunnel takes no more streams after some have ended", async () => {
    const bench = new PoolBench({ streamsPerConnectionMax: 2 });
    const [first, second] = await bench.openAll(2);
    assert(first !== undefined && second !== undefined);
    end(first);
    await bench.open();
    assert.equal(bench.tunnels.length, 2);
    assert.equal(bench.tunnels[0]?.isGone, false);
    end(second);
    assert.equal(bench.tunnels[0]?.isGone, true);
  });

  test("the peer's limit counts when it is the lower one", async () => {
    const bench = new PoolBench();
    bench.peerStreamsMax = 3;
    await bench.openAll(7);
    assert.deepEqual(
      bench.tunnels.map((tunnel) => tunnel.liveCountMax),
      [3, 3, 1],
    );
  });

  test("a peer that lowers its limit later gets no stream beyond it", async () => {
    const bench = new PoolBench();
    await bench.openAll(5);
    const [tunnel] = bench.tunnels;
    assert(tunnel !== undefined);
    tunnel.streamsMax = 5;
    await bench.open();
    assert.equal(tunnel.liveCountMax, 5);
    assert.equal(bench.tunnels.length, 2);
  });

  test("a peer that allows no stream is still asked", async () => {
    const bench = new PoolBench();
    bench.peerStreamsMax = 0;
    await bench.openAll(2);
    assert.equal(bench.tunnels.length, 2);
  });
});

describe("unique keys", () => {
  for (const [what, change] of [
    ["source identity", { source: identity("other") }],
    ["source trust domain", { source: { ...identity("client"), trustDomain: "td2" } }],
    ["client address", { sourceIp: "10.0.0.2" as IpAddress }],
    ["expected identity", { expected: [identity("other")] }],
    ["number of expected identities", { expected: [identity("server"), identity("other")] }],
    ["no expected identity", { expected: [] }],
    ["address", { remote: { ip: "10.0.1.2" as IpAddress, port: 15008 } }],
    ["port", { remote: { ip: "10.0.1.1" as IpAddress, port: 15009 } }],
  ] as const) {
    test(`another ${what} has a tunnel of its own`, async () => {
      const bench = new PoolBench();
      await bench.open();
      await bench.open(target(change));
      await bench.open();
      await bench.open(target(change));
      assert.equal(bench.tunnels.length, 2);
    });
  }

  test("a tunnel to an address is left for another owner of the address", async () => {
    const bench = new PoolBench();
    const stream = await bench.open();
    const other = await bench.open(target({ destinationUid: "server-2" }));
    assert.equal(bench.tunnels.length, 2);
    assert.deepEqual(
      bench.tunnels.map(({ requests }) => requests.length),
      [1, 1],
    );
    // The stream to the former owner goes on; its tunnel goes with it.
    assert.equal(bench.liveTunnelCount, 2);
    end(stream);
    end(other);
    assert.deepEqual(
      bench.tunnels.map(({ isGone }) => isGone),
      [true, false],
    );
    end(await bench.open(target({ destinationUid: "server-2" })));
    assert.equal(bench.tunnels.length, 2);
  });

  test("an idle tunnel is closed as soon as its address has another owner", async () => {
    const bench = new PoolBench();
    end(await bench.open());
    const elsewhere = { ip: "10.0.1.2" as IpAddress, port: 15008 };
    end(await bench.open(target({ destinationUid: "neighbour", remote: elsewhere })));
    assert.equal(bench.liveTunnelCount, 2);
    await bench.open(target({ destinationUid: "server-2" }));
    assert.deepEqual(
      bench.tunnels.map(({ isGone }) => isGone),
      [true, false, false],
    );
  });

  test("the order of the expected identities is part of the key", async () => {
    const bench = new PoolBench();
    const [a, b] = [identity("a"), identity("b")];
    await bench.open(target({ expected: [a, b] }));
    await bench.open(target({ expected: [b, a] }));
    assert.equal(bench.tunnels.length, 2);
  });

  test("100 sources at once have 100 tunnels that are dialled side by side", async () => {
    const bench = new PoolBench();
    bench.dialMs = 5;
    const opening = Promise.all(
      Array.from({ length: 100 }, (_, i) =>
        bench.open(target({ sourceIp: `10.0.2.${i}` as IpAddress })),
      ),
    );
    await bench.clock.advance(5);
    await opening;
    assert.equal(bench.tunnels.length, 100);
    assert.equal(bench.dialsRunningMax, 100);
  });
});

describe("tunnels that end", () => {
  test("server_goaway: a tunnel that got GOAWAY is replaced and its streams go on", async () => {
    const bench = new PoolBench();
    const first = await bench.open();
    bench.tunnels[0]?.goAway();
    await bench.open();
    assert.equal(bench.tunnels.length, 2);
    assert.equal(bench.tunnels[0]?.requests.length, 1);
    assert.equal(bench.tunnels[0]?.isGone, false);
    end(first);
    assert.equal(bench.tunnels[0]?.isGone, true);
  });

  test("a lost tunnel is replaced and leaves no timer behind", async () => {
    const bench = new PoolBench();
    end(await bench.open());
    bench.tunnels[0]?.fail();
    assert.equal(bench.clock.pendingCount, 0);
    await bench.open();
    assert.equal(bench.tunnels.length, 2);
  });

  test("the loss of a tunnel that was left out does not touch its successor", async () => {
    const bench = new PoolBench();
    await bench.open();
    bench.tunnels[0]?.goAway();
    await bench.open();
    bench.tunnels[0]?.fail();
    await bench.open();
    assert.equal(bench.tunnels.length, 2);
  });

  test("a request that was sent and failed is not repeated", async () => {
    const bench = new PoolBench();
    await bench.open();
    const [tunnel] = bench.tunnels;
    assert(tunnel !== undefined);
    tunnel.answer = new EngineError("stream-reset", "stream reset", { http2Code: 7 });
    await assert.rejects(bench.open(), { code: "stream-reset", http2Code: 7 });
    assert.equal(bench.tunnels.length, 1);
    assert.equal(tunnel.requests.length, 2);
  });

  test("a failed request counts no longer", async () => {
    const bench = new PoolBench({ streamsPerConnectionMax: 2 });
    end(await bench.open());
    const [tunnel] = bench.tunnels;
    assert(tunnel !== undefined);
    tunnel.answer = new EngineError("stream-reset", "stream reset");
    await assert.rejects(bench.open());
    tunnel.answer = 200;
    await bench.open();
    assert.equal(bench.tunnels.length, 1);
  });

  test("an answer other than 200 is passed on and counts no longer", async () => {
    const bench = new PoolBench({ streamsPerConnectionMax: 2 });
    end(await bench.open());
    const [tunnel] = bench.tunnels;
    assert(tunnel !== undefined);
    tunnel.answer = 503;
    const refused = await bench.open();
    assert.equal(refused.answer.status, 503);
    assert.equal(refused.answer.end, undefined);
    refused.lease.release();
    tunnel.answer = 200;
    await bench.open();
    assert.equal(bench.tunnels.length, 1);
  });

  test("releasing twice counts once", async () => {
    const bench = new PoolBench({ streamsPerConnectionMax: 2 });
    const [first, second] = await bench.openAll(2);
    assert(first !== undefined && second !== undefined);
    end(first);
    first.lease.release();
    first.lease.release();
    assert.equal(bench.tunnels[0]?.closeCount, 0);
  });

  test("a peer that goes away at once is dialled once for each request, not for ever", async () => {
    const bench = new PoolBench();
    bench.onDialled = (tunnel) => tunnel.goAway();
    const results = await Promise.allSettled(Array.from({ length: 3 }, () => bench.open()));
    assert(results.every(({ status }) => status === "rejected"));
    assert.equal(bench.dialled.length, 3);
  });

  const refusedStream = new EngineError("stream-reset", "refused", { http2Code: 7 });

  test("a request that met GOAWAY on its way is sent again on another tunnel", async () => {
    const bench = new PoolBench();
    bench.onDialled = (tunnel) => {
      if (bench.tunnels.length > 1) return;
      tunnel.answer = refusedStream;
      tunnel.goesAwayWithRequest = true;
    };
    const stream = bench.open();
    // The first tunnel ended without an answer, after which the pool waits a moment.
    await bench.clock.advance(10);
    assert.equal((await stream).answer.status, 200);
    assert.deepEqual(
      bench.tunnels.map(({ requests }) => requests.length),
      [1, 1],
    );
  });

  test("a request that a peer refuses for no such reason is not sent again", async () => {
    const bench = new PoolBench();
    bench.onDialled = (tunnel) => {
      tunnel.answer = refusedStream;
    };
    await assert.rejects(bench.open(), refusedStream);
    assert.deepEqual(
      bench.tunnels.map(({ requests }) => requests.length),
      [1],
    );
  });

  test("a peer that refuses on every tunnel is asked a few times, not for ever", async () => {
    const bench = new PoolBench();
    bench.onDialled = (tunnel) => {
      tunnel.answer = refusedStream;
      tunnel.goesAwayWithRequest = true;
    };
    const failure = assert.rejects(bench.open(), refusedStream);
    await bench.clock.advance(1000);
    await failure;
    assert.equal(bench.tunnels.length, 4);
  });

  test("of a lost tunnel is told which, of one that ended in order is not", async () => {
    const bench = new PoolBench();
    end(await bench.open());
    const { lease } = await bench.open();
    bench.tunnels[0]?.fail();
    lease.release();
    end(await bench.open());
    bench.pool.close();
    assert.deepEqual(bench.lost, ["server-1: connection is lost, 1 streams"]);
  });
});

describe("a dial that fails", () => {
  const refused = new EngineError("system", "connection refused", { errno: "ECONNREFUSED" });

  test("fails everybody who waited for it, at the same moment", async () => {
    const bench = new PoolBench();
    bench.dialMs = 10_000;
    bench.dialError = refused;
    const results = Promise.allSettled(Array.from({ length: 50 }, () => bench.open()));
    await bench.clock.advance(10_000);
    for (const result of await results) {
      assert(result.status === "rejected" && result.reason === refused);
    }
    assert.equal(bench.dialled.length, 1);
  });

  test("lets the next request wait for a moment, then dial", async () => {
    const bench = new PoolBench();
    bench.dialError = refused;
    await assert.rejects(bench.open());
    bench.dialError = undefined;
    const next = bench.open();
    await bench.clock.advance(9);
    assert.equal(bench.dialled.length, 1);
    await bench.clock.advance(1);
    assert.equal((await next).answer.status, 200);
  });

  test("is repeated once a second at most, however many want to go there", async () => {
    const bench = new PoolBench();
    bench.dialError = refused;
    const waiting: Promise<unknown>[] = [];
    for (let ms = 0; ms < 5000; ms += 5) {
      waiting.push(bench.open().catch((error: unknown) => assert.equal(error, refused)));
      await bench.clock.advance(5);
    }
    // After 10, 20, … 640 ms and then every second.
    assert.equal(bench.dialled.length, 11);
    bench.dialError = undefined;
    const last = bench.open();
    await bench.clock.advance(1000);
    assert.equal((await last).answer.status, 200);
    await Promise.all(waiting);
    // Forgotten with the first answer.
    end(await last);
    bench.tunnels[0]?.fail();
    end(await bench.open());
    assert.equal(bench.tunnels.length, 2);
    bench.pool.close();
    assert.equal(bench.clock.pendingCount, 0);
  });

  test("is forgotten when nobody asks for a while", async () => {
    const bench = new PoolBench({ dialBackoffMaxMs: 20 });
    bench.dialError = refused;
    for (let i = 0; i < 3; i++) {
      const failure = assert.rejects(bench.open(), refused);
      await bench.clock.advance(20);
      await failure;
    }
    await bench.clock.advance(40);
    assert.equal(bench.clock.pendingCount, 0);
    await assert.rejects(bench.open(), refused);
    assert.equal(bench.dialled.length, 4);
  });

  test("is as bad as a tunnel that ends without an answer", async () => {
    const bench = new PoolBench();
    bench.onDialled = (tunnel) => {
      tunnel.answer = new EngineError("tunnel-closed", "connection is lost");
    };
    for (let i = 0; i < 3; i++) {
      const failure = assert.rejects(bench.open());
      await bench.clock.advance(40);
      await failure;
      bench.tunnels[i]?.fail();
    }
    const fourth = assert.rejects(bench.open());
    await bench.clock.advance(39);
    assert.equal(bench.tunnels.length, 3);
    bench.pool.close();
    await fourth;
    assert.equal(bench.clock.pendingCount, 0);
  });

  test("fails those that the first tunnel could not take", async () => {
    const bench = new PoolBench({ streamsPerConnectionMax: 2 });
    bench.dialMs = 10;
    const results = Promise.allSettled(Array.from({ length: 5 }, () => bench.open()));
    await bench.clock.advance(10);
    bench.dialError = refused;
    await bench.clock.advance(10);
    assert.deepEqual(
      (await results).map((result) => result.status),
      ["fulfilled", "fulfilled", "rejected", "rejected", "rejected"],
    );
    assert.equal(bench.dialled.length, 2);
  });

  test("is no matter to other keys", async () => {
    const bench = new PoolBench();
    bench.dialMs = 10;
    const other = bench.open(target({ sourceIp: "10.0.0.2" as IpAddress }));
    await bench.clock.advance(9);
    const failing = assert.rejects(bench.open(), refused);
    await bench.clock.advance(1);
    bench.dialError = refused;
    assert.equal((await other).answer.status, 200);
    await bench.clock.advance(9);
    await failing;
  });
});

describe("idle release", () => {
  test("idle_eviction: an unused tunnel closes when its time is over, and no earlier", async () => {
    const bench = new PoolBench({ unusedReleaseMs: 2000 });
    end(await bench.open());
    await bench.clock.advance(1999);
    assert.equal(bench.liveTunnelCount, 1);
    await bench.clock.advance(1);
    assert.equal(bench.liveTunnelCount, 0);
    assert.equal(bench.clock.pendingCount, 0);
  });

  test("every request starts the time anew", async () => {
    const bench = new PoolBench({ unusedReleaseMs: 2000 });
    for (let i = 0; i < 3; i++) {
      end(await bench.open());
      await bench.clock.advance(1500);
    }
    assert.equal(bench.tunnels.length, 1);
    assert.equal(bench.clock.pendingCount, 1);
  });

  test("idle eviction with a persistent stream: the tunnel is forgotten but goes on until that ends", async () => {
    const bench = new PoolBench({ unusedReleaseMs: 2000 });
    const persistent = await bench.open();
    await bench.clock.advance(2000);
    assert.equal(bench.liveTunnelCount, 1);
    end(await bench.open());
    assert.equal(bench.tunnels.length, 2);
    assert.equal(bench.tunnels[0]?.isGone, false);
    end(persistent);
    assert.equal(bench.tunnels[0]?.isGone, true);
    assert.equal(bench.tunnels[1]?.isGone, false);
  });

  test("idle eviction with a persistent stream: what spills over into another tunnel goes first", async () => {
    const bench = new PoolBench({ streamsPerConnectionMax: 4, unusedReleaseMs: 2000 });
    const persistent = await bench.open();
    for (const stream of await bench.openAll(2)) end(stream);
    assert.equal(bench.tunnels.length, 1);
    for (const stream of await bench.openAll(4)) end(stream);
    assert.equal(bench.tunnels.length, 2);
    await bench.clock.advance(2000);
    assert.deepEqual(
      bench.tunnels.map(({ isGone }) => isGone),
      [false, true],
    );
    end(persistent);
    assert.equal(bench.liveTunnelCount, 0);
  });

  test("beyond the limit of tunnels the least recently used one is forgotten", async () => {
    const bench = new PoolBench({ connectionsMax: 2 });
    const [a, b, c] = [1, 2, 3].map((i) => target({ sourceIp: `10.0.0.${i}` as IpAddress }));
    end(await bench.open(a));
    end(await bench.open(b));
    end(await bench.open(a));
    end(await bench.open(c));
    assert.deepEqual(
      bench.tunnels.map((tunnel) => tunnel.isGone),
      [false, true, false],
    );
    assert.equal(bench.clock.pendingCount, 2);
  });
});

describe("draining the pool", () => {
  test("ends idle tunnels now, used ones with their last stream", async () => {
    const bench = new PoolBench();
    end(await bench.open());
    const used = await bench.open(target({ sourceIp: "10.0.0.2" as IpAddress }));
    bench.pool.drain();
    bench.pool.drain();
    assert.deepEqual(
      bench.tunnels.map((tunnel) => tunnel.isGone),
      [true, false],
    );
    assert.equal(bench.clock.pendingCount, 0);
    end(used);
    assert.equal(bench.liveTunnelCount, 0);
  });

  test("serves what still comes, each with a tunnel of its own", async () => {
    const bench = new PoolBench();
    bench.pool.drain();
    for (const stream of await bench.openAll(2)) end(stream);
    assert.equal(bench.tunnels.length, 2);
    assert.equal(bench.liveTunnelCount, 0);
    assert.equal(bench.clock.pendingCount, 0);
  });
});

describe("closing the pool", () => {
  test("closes idle tunnels in order, ends used ones and leaves no timer", async () => {
    const bench = new PoolBench();
    end(await bench.open());
    await bench.open(target({ sourceIp: "10.0.0.2" as IpAddress }));
    bench.pool.close();
    assert.equal(bench.liveTunnelCount, 0);
    assert.deepEqual(
      bench.tunnels.map((tunnel) => tunnel.closeCount > 0),
      [true, false],
    );
    assert.equal(bench.clock.pendingCount, 0);
    bench.pool.close();
  });

  test("fails requests that wait and destroys the tunnel that comes too late", async () => {
    const bench = new PoolBench();
    bench.dialMs = 10;
    const waiting = assert.rejects(bench.open(), { code: "tunnel-closed" });
    await settle();
    bench.pool.close();
    await waiting;
    await bench.clock.advance(10);
    assert.equal(bench.tunnels.length, 1);
    assert.equal(bench.liveTunnelCount, 0);
  });

  test("leaves no timer to a dial that fails too late", async () => {
    const bench = new PoolBench();
    bench.dialMs = 10;
    bench.dialError = new EngineError("connect-timeout", "no answer");
    const waiting = assert.rejects(bench.open(), { code: "tunnel-closed" });
    await settle();
    bench.pool.close();
    await waiting;
    await bench.clock.advance(10);
    assert.equal(bench.clock.pendingCount, 0);
  });

  test("refuses later requests without a dial", async () => {
    const bench = new PoolBench();
    bench.pool.close();
    await assert.rejects(bench.open(), {
      name: "EngineError",
      code: "tunnel-closed",
      message: "connection pool is closed",
    });
    assert.equal(bench.dialled.length, 0);
  });
});
