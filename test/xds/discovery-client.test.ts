/** Connecting, taking in, and connecting again; over a transport that a test holds. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from "../../src/wire/delta-discovery.ts";
import { WireError } from "../../src/wire/wire-error.ts";
import { DeltaClient } from "../../src/xds/delta-client.ts";
import { DiscoveryClient, type TerminationReason } from "../../src/xds/discovery-client.ts";
import { DiscoveryError, type DiscoveryStream } from "../../src/xds/discovery-transport.ts";
import { CapturedLog } from "../support/captured-log.ts";
import { FakeClock, settle } from "../support/fake-clock.ts";
import { FakeDiscoveryStream } from "../support/fake-discovery-stream.ts";

function setup(options: { open?: () => Promise<DiscoveryStream>; onDemand?: boolean } = {}) {
  const clock = new FakeClock();
  const log = new CapturedLog();
  const streams: FakeDiscoveryStream[] = [];
  const reasons: TerminationReason[] = [];
  const received: [string, number][] = [];
  const put: string[] = [];
  const kept = new Map<string, string>();
  let opens = 0;
  let connects = 0;
  const sink = {
    put(name: string, version: string) {
      if (name === "bad") throw new WireError("malformed", "made-up error");
      put.push(name);
      kept.set(name, version);
    },
    refused() {},
    remove() {},
    commit() {},
    versionOf: (name: string) => kept.get(name),
    versions: () => kept,
    refusals: () => [],
  };
  const client = new DeltaClient(
    [
      { url: ADDRESS_TYPE, onDemand: options.onDemand ?? false, sink },
      { url: AUTHORIZATION_TYPE, onDemand: false, sink },
    ],
    { node: { id: "id", metadata: {} }, offeredBytesMax: 1000 },
  );
  const discovery = new DiscoveryClient(
    {
      transport: {
        open() {
          opens++;
          if (options.open !== undefined) return options.open();
          const stream = new FakeDiscoveryStream();
          streams.push(stream);
          return Promise.resolve(stream);
        },
      },
      client,
      metrics: {
        received: (url, byteCount) => received.push([url, byteCount]),
        terminated: (reason) => reasons.push(reason),
      },
      connected: () => connects++,
      clock,
      random: { unit: () => 0.5, hex: () => "" },
      log: log.root,
    },
    { address: "https://istiod:15012", firstAnswerMs: 60_000, sliceMs: 5 },
  );
  const abort = new AbortController();
  const ended = discovery.run(abort.signal);
  return {
    clock,
    log,
    streams,
    reasons,
    received,
    put,
    discovery,
    opens: () => opens,
    connects: () => connects,
    stop: async () => {
      abort.abort();
      await ended;
    },
    latest: () => {
      const stream = streams.at(-1);
      assert(stream !== undefined);
      return stream;
    },
  };
}

function resource(name: string) {
  return { name, version: "", aliases: [], resource: { typeUrl: "", value: new Uint8Array(1) } };
}

describe("a conversation", () => {
  test("asks for both types at once, without waiting for an answer", async () => {
    const { latest, stop } = setup();
    await settle();
    assert.deepEqual(
      latest().sent.map(({ typeUrl }) => typeUrl),
      [ADDRESS_TYPE, AUTHORIZATION_TYPE],
    );
    await stop();
  });

  test("acknowledges what was taken in and refuses what was not", async () => {
    const { latest, put, stop } = setup();
    await settle();
    latest().answer({ nonce: "1", resources: [resource("a")] });
    await settle();
    latest().answer({ nonce: "2", resources: [resource("bad"), resource("b")] });
    await settle();
    assert.deepEqual(put, ["a", "b"]);
    assert.deepEqual(
      latest()
        .sent.slice(2)
        .map(({ responseNonce, errorDetail }) => [responseNonce, errorDetail?.message]),
      [
        ["1", undefined],
        ["2", "bad: made-up error"],
      ],
    );
    await stop();
  });

  test("is in step once each type has been accepted", async () => {
    const { latest, discovery, stop } = setup();
    let synced = false;
    void discovery.synced.then(() => {
      synced = true;
    });
    await settle();
    latest().answer({});
    await settle();
    assert.equal(synced, false);
    latest().answer({ typeUrl: AUTHORIZATION_TYPE });
    await settle();
    assert.equal(synced, true);
    await stop();
  });

  test("knows what was refused while it is not in step because of that", async () => {
    const { latest, discovery, stop } = setup();
    await settle();
    latest().answer({ typeUrl: AUTHORIZATION_TYPE, resources: [resource("bad")] });
    latest().answer({});
    await settle();
    assert.equal(discovery.status().refusal, "bad: made-up error");
    latest().answer({ typeUrl: AUTHORIZATION_TYPE });
    await settle();
    assert.equal(discovery.status().refusal, undefined);
    latest().answer({ typeUrl: AUTHORIZATION_TYPE, resources: [resource("bad")] });
    await settle();
    assert.equal(discovery.status().refusal, undefined);
    await stop();
  });

  test("tells once a conversation that it is answered, and since when it is not", async () => {
    const { clock, latest, discovery, connects, stop } = setup();
    const startedAt = clock.monotonic();
    await clock.advance(70);
    assert.deepEqual([connects(), discovery.status().awaySince], [0, startedAt]);
    latest().answer({});
    latest().answer({});
    await settle();
    assert.deepEqual([connects(), discovery.status().awaySince], [1, undefined]);
    await clock.advance(30);
    latest().end();
    await settle();
    assert.equal(discovery.status().awaySince, startedAt + 100);
    await clock.advance(10);
    assert.equal(discovery.status().awaySince, startedAt + 100);
    latest().answer({});
    await settle();
    assert.deepEqual([connects(), discovery.status().awaySince], [2, undefined]);
    await stop();
  });

  test("counts messages and bytes by type, and knows when it last heard", async () => {
    const { clock, latest, received, discovery, stop } = setup();
    await settle();
    assert.deepEqual(discovery.status(), {
      ...{ connected: false, awaySince: clock.monotonic() },
      ...{ lastAnswerAt: undefined, lastError: undefined, refusal: undefined },
    });
    await clock.advance(500);
    latest().answer({});
    await settle();
    assert.deepEqual(received, [[ADDRESS_TYPE, 7]]);
    assert.deepEqual(discovery.status(), {
      ...{ connected: true, awaySince: undefined },
      ...{ lastAnswerAt: clock.now(), lastError: undefined, refusal: undefined },
    });
    await stop();
  });
});

describe("what comes after an ending", () => {
  const cases: readonly {
    readonly what: string;
    readonly fail: (stream: FakeDiscoveryStream) => void;
    readonly reason: TerminationReason;
    readonly delayMs: number;
  }[] = [
    { what: "in peace", fail: (s) => s.end(), reason: "Complete", delayMs: 10 },
    {
      what: "because istiod recycles connections",
      fail: (s) => s.fail(new DiscoveryError("stream", "max_age", { status: "Cancelled" })),
      reason: "Reconnect",
      delayMs: 10,
    },
    {
      what: "because istiod stopped",
      fail: (s) => s.fail(new DiscoveryError("stream", "gone", { status: "Unavailable" })),
      reason: "Reconnect",
      delayMs: 10,
    },
    {
      what: "because of what was said",
      fail: (s) => s.fail(new DiscoveryError("stream", "no", { status: "InvalidArgument" })),
      reason: "Error",
      delayMs: 20,
    },
    {
      what: "because it was refused at once",
      fail: (s) => s.fail(new DiscoveryError("connection", "no", { status: "Unauthenticated" })),
      reason: "ConnectionError",
      delayMs: 20,
    },
  ];
  for (const { what, fail, reason, delayMs } of cases) {
    test(`${what}: ${reason}, and again after ${delayMs} ms`, async () => {
      const { clock, latest, reasons, opens, stop } = setup();
      await settle();
      fail(latest());
      await settle();
      assert.deepEqual(reasons, [reason]);
      await clock.advance(delayMs - 1);
      assert.equal(opens(), 1);
      await clock.advance(1);
      assert.equal(opens(), 2);
      await stop();
    });
  }

  test("connection errors wait longer each time, up to 15 s", async () => {
    const { clock, log, opens, stop } = setup({
      open: () =>
        Promise.reject(new DiscoveryError("connection", "refused", { status: "Unavailable" })),
    });
    await settle();
    await clock.advance(20 + 40 + 80 + 160 + 320 + 640);
    assert.equal(opens(), 7);
    await clock.advance(3_600_000);
    const before = opens();
    await clock.advance(15_000);
    assert.equal(opens(), before + 1);
    assert.match(
      log.lines[0]?.message ?? "",
      /^XDS client connection error: gRPC connection error connecting to https:\/\/istiod:15012: status: Unavailable, message: "refused", retrying in 20ms$/,
    );
    await stop();
  });

  for (const [what, fail] of [
    ["ends", (stream: FakeDiscoveryStream) => stream.end()],
    [
      "loses",
      (stream: FakeDiscoveryStream) =>
        stream.fail(new DiscoveryError("stream", "gone", { status: "Unavailable" })),
    ],
  ] as const) {
    test(`a server that ${what} streams without an answer is called less and less often, until it answers`, async () => {
      const { clock, latest, opens, stop } = setup();
      await settle();
      for (const [index, delayMs] of [10, 20, 40, 80].entries()) {
        fail(latest());
        await settle();
        await clock.advance(delayMs - 1);
        assert.equal(opens(), index + 1);
        await clock.advance(1);
        assert.equal(opens(), index + 2);
      }
      latest().answer({});
      await settle();
      fail(latest());
      await settle();
      await clock.advance(10);
      assert.equal(opens(), 6);
      await stop();
    });
  }

  test("a server that never answers is given up", async () => {
    const { clock, streams, reasons, discovery, opens, stop } = setup();
    await clock.advance(60_000);
    assert.equal(streams[0]?.closed, true);
    assert.deepEqual(reasons, ["ConnectionError"]);
    assert.equal(discovery.status().lastError, "no answer within 60s");
    await clock.advance(20);
    assert.equal(opens(), 2);
    await stop();
  });

  test("one that has answered may be silent for ever", async () => {
    const { clock, latest, opens, stop } = setup();
    await settle();
    latest().answer({});
    await clock.advance(24 * 3_600_000);
    assert.equal(opens(), 1);
    await stop();
  });

  test("a new stream is offered what was accepted, and says so in no time when told to reconnect", async () => {
    const { clock, latest, discovery, opens, reasons, stop } = setup();
    await settle();
    latest().answer({ resources: [{ ...resource("a"), version: "1" }] });
    await settle();
    discovery.reconnect();
    await clock.advance(10);
    assert.equal(opens(), 2);
    assert.deepEqual(reasons, ["Reconnect"]);
    assert.deepEqual(latest().sent[0]?.initialResourceVersions, new Map([["a", "1"]]));
    await stop();
  });

  test("nothing is left when it is stopped, in whatever state", async () => {
    const talking = setup();
    await settle();
    await talking.stop();
    assert.equal(talking.streams[0]?.closed, true);
    assert.equal(talking.clock.pendingCount, 0);
    const waiting = setup({ open: () => Promise.reject(new Error("no roots")) });
    await settle();
    await waiting.stop();
    assert.equal(waiting.clock.pendingCount, 0);
  });
});

describe("on demand", () => {
  test("a key is asked for on the stream and its answer waited for", async () => {
    const { latest, discovery, stop } = setup({ onDemand: true });
    await settle();
    const found = discovery.demand(ADDRESS_TYPE, "/10.0.0.1", 5000);
    assert.deepEqual(latest().sent.at(-1)?.resourceNamesSubscribe, ["/10.0.0.1"]);
    latest().answer({ removedResources: ["/10.0.0.1"] });
    assert.equal(await found, true);
    await stop();
  });

  test("without an answer the wait ends", async () => {
    const { clock, discovery, stop } = setup({ onDemand: true });
    await settle();
    const found = discovery.demand(ADDRESS_TYPE, "/10.0.0.1", 5000);
    await clock.advance(5000);
    assert.equal(await found, false);
    await stop();
  });
});
