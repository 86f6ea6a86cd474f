import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { BatchEngine, type BatchEngineOptions } from "../../src/engine/batch-engine.ts";
import type { MakeReactor } from "../../src/engine/batch-loop.ts";
import type { Relay, RelayOutcome, SocketEnd, TunnelRequest } from "../../src/engine/engine.ts";
import type { EngineError } from "../../src/engine/engine-error.ts";
import { formatSocketAddress } from "../../src/mesh/socket-address.ts";
import { native } from "../../src/net/native.ts";
import { createReactor, EVENT } from "../../src/net/reactor.ts";
import { SOCKADDR_BYTES } from "../../src/net/sockaddr.ts";
import { type Clock, systemClock } from "../../src/runtime/clock.ts";
import {
  connectOptions,
  Deferred,
  HALF_CLOSED,
  LISTEN,
  SETTINGS,
  TunnelLab,
  tlsOptions,
} from "../conformance/engine-lab.ts";
import { expectOriginalDestination } from "../conformance/original-destination.ts";
import { type RawPeer, RawServer, rawConnect } from "../conformance/raw-peer.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { address } from "../support/mesh-fixture.ts";
import { testIdentity } from "../support/test-ca.ts";

interface Lab {
  readonly engine: BatchEngine;
  /** What should never have been thrown. */
  readonly unexpected: unknown[];
}

function makeEngine(
  deps: { readonly clock?: Clock; readonly makeReactor?: MakeReactor } = {},
  sizes: Partial<BatchEngineOptions> = {},
): Lab {
  const unexpected: unknown[] = [];
  const engine = new BatchEngine(
    {
      native,
      clock: systemClock,
      makeReactor: createReactor,
      unexpected: (error) => unexpected.push(error),
      ...deps,
    },
    { ...HALF_CLOSED, ...sizes },
  );
  return { engine, unexpected };
}

const BUG = new Error("a bug");

describe("BatchEngine", () => {
  it("leaves no timer and no descriptor behind when it is closed", async () => {
    const leaks = new LeakCheck();
    const clock = new FakeClock();
    const { engine } = makeEngine({ clock });
    const lab = await TunnelLab.open(engine);
    const application = await RawServer.listen();
    const next = lab.next();
    const tunnel = await lab.dial();
    const closed = new Deferred<unknown>();
    tunnel.onClosed(closed.resolve);
    const end = await engine.connect(connectOptions(application.address));
    const other = await engine.connect(connectOptions(application.address));
    const relayed = new Deferred<RelayOutcome>();
    engine.relay(end, other, relayed.resolve);
    assert(clock.pendingCount > 0);
    engine.close();
    engine.close();
    assert.deepEqual(await relayed.promise, {
      sent: "stopped",
      received: "stopped",
      error: undefined,
    });
    await Promise.all([closed.promise, (await next).closed.promise]);
    application.close();
    await leaks.assertNone();
    assert.equal(clock.pendingCount, 0);
  });

  it("fails what is under way when it is closed", async () => {
    const leaks = new LeakCheck();
    const clock = new FakeClock();
    const { engine } = makeEngine({ clock });
    const lab = await TunnelLab.open(engine);
    const silent = await RawServer.listen();
    const accepting = silent.accept();
    const dialling = assert.rejects(lab.dial({ address: silent.address }), { name: "EngineError" });
    const peer = await accepting;
    await peer.received(1);
    const connecting = assert.rejects(engine.connect(connectOptions(silent.address)), {
      code: "system",
      message: "the engine was closed",
    });
    engine.close();
    await Promise.all([dialling, connecting]);
    silent.close();
    await leaks.assertNone();
    assert.equal(clock.pendingCount, 0);
  });

  it("finishes a handshake during which its server is drained, and serves what it is asked", async () => {
    const { engine } = makeEngine();
    const lab = await TunnelLab.open(engine);
    lab.requested = (request) => request.refuse(503);
    const accepting = lab.next();
    const dialling = lab.dial();
    const accepted = await accepting;
    accepted.tunnel?.drain();
    assert.equal(accepted.peer, undefined, "the handshake is under way");
    const tunnel = await dialling;
    const closed = new Deferred<EngineError | undefined>();
    tunnel.onClosed(closed.resolve);
    assert.equal((await tunnel.open("10.0.0.1:80", [])).status, 503);
    assert.equal(await closed.promise, undefined);
    assert.equal(await accepted.closed.promise, undefined);
    engine.close();
  });

  it("waits a while when it can take no more connections, and then accepts what has queued up", async () => {
    const clock = new FakeClock();
    // The listener, and the connection that takes the last place.
    const { engine } = makeEngine({ clock }, { connectionsMax: 2 });
    const listener = engine.listen(LISTEN);
    const accepted: SocketEnd[] = [];
    const failed = new Deferred<EngineError>();
    listener.start((end) => accepted.push(end), failed.resolve);
    const first = await rawConnect(listener.address);
    const second = await rawConnect(listener.address);
    const error = await failed.promise;
    assert.deepEqual(
      [error.code, error.errno, error.message],
      ["system", "EMFILE", "Too many open files (os error 24)"],
    );
    accepted[0]?.close();
    await delay(20);
    assert.deepEqual([accepted.length, clock.pendingCount], [1, 1]);
    await clock.advance(1000);
    while (accepted.length < 2) await delay(1);
    accepted[1]?.close();
    assert.deepEqual(await Promise.all([first.seenEnd, second.seenEnd]), ["fin", "fin"]);
    for (const peer of [first, second]) peer.close();
    engine.close();
  });

  const QUIET_CASES: readonly {
    readonly what: string;
    readonly idleMs?: number;
    /** Before nothing moves any more. */
    readonly play: (ends: { client: RawPeer; server: RawPeer; relay: Relay }) => Promise<unknown>;
    /** `undefined`: it goes on. */
    readonly error?: readonly [code: string, message: string];
    readonly seen?: readonly [client: string, server: string];
  }[] = [
    {
      what: "half-closed is reset",
      play: ({ client, server }) => {
        client.end();
        return server.seenEnd;
      },
      error: ["half-closed", "half-closed and idle for 90s"],
      seen: ["reset", "fin"],
    },
    { what: "that is open goes on", play: async () => {} },
    {
      what: "that is open ends in order when idle connections are not wanted",
      idleMs: 60_000,
      play: ({ client, server }) => {
        client.send("a word");
        return server.received(6);
      },
      error: ["idle", "idle for 60s"],
      seen: ["fin", "fin"],
    },
    {
      what: "half-closed is reset when idle connections are not wanted",
      idleMs: 60_000,
      play: ({ client, server }) => {
        client.end();
        return server.seenEnd;
      },
      error: ["idle", "idle for 60s"],
      seen: ["reset", "fin"],
    },
    {
      what: "whose client does not read is reset, since bytes are lost",
      idleMs: 60_000,
      play: async ({ client, server, relay }) => {
        client.socket.pause();
        void server.sendPattern(64 * 1024 * 1024, 1).catch(() => {});
        await untilStalled(relay);
      },
      error: ["idle", "idle for 60s"],
      seen: ["reset", "reset"],
    },
  ];
  for (const { what, idleMs, play, error, seen } of QUIET_CASES) {
    it(`a relay in which nothing moves, and ${what}`, async () => {
      const clock = new FakeClock();
      const { engine } = makeEngine({ clock }, { idleMs });
      const listener = engine.listen(LISTEN);
      const accepted = new Deferred<SocketEnd>();
      listener.start(accepted.resolve, (failure) => assert.fail(failure));
      const application = await RawServer.listen();
      const accepting = application.accept();
      const client = await rawConnect(listener.address);
      const outcome = new Deferred<RelayOutcome>();
      const upstream = await engine.connect(connectOptions(application.address));
      const relay = engine.relay(await accepted.promise, upstream, outcome.resolve);
      const server = await accepting;
      await play({ client, server, relay });
      await clock.advance(2 * HALF_CLOSED.halfClosedIdleMs);
      if (error === undefined) {
        client.send("both directions are open");
        await server.received(5);
        client.close();
      } else {
        const ended = (await outcome.promise).error;
        assert.deepEqual([ended?.code, ended?.message], error);
        client.read();
        assert.deepEqual(await Promise.all([client.seenEnd, server.seenEnd]), seen);
      }
      client.close();
      server.close();
      listener.close();
      application.close();
      engine.close();
      assert.equal(clock.pendingCount, 0);
    });
  }

  it("gives the destination before redirection when asked to", async () => {
    // What the kernel says of a connection that it redirected: test/netns has real ones.
    const asked: unknown[] = [];
    const makeReactor: MakeReactor = (options, turn) => {
      const reactor = createReactor(options, (eventCount) => {
        const { events, arena } = reactor;
        for (let at = 0; at < eventCount * 4; at += 4) {
          if (events[at] !== EVENT.ACCEPT || asked.at(-1) !== true) continue;
          arena.set([2, 0, 0, 80, 10, 78, 0, 1], (events[at + 3] as number) + SOCKADDR_BYTES);
        }
        turn(eventCount);
      });
      const { listen } = reactor;
      return Object.assign(reactor, {
        listen(fd: number, redirected?: boolean) {
          asked.push(redirected);
          return listen(fd, redirected);
        },
      });
    };
    const { engine } = makeEngine({ makeReactor });
    await expectOriginalDestination(engine, address("10.78.0.1:80"));
    assert.deepEqual(asked, [true, false]);
    engine.close();
  });

  it("takes a connection that is reset before anybody looked as one that was reset", async () => {
    const { engine, unexpected } = makeEngine();
    const application = await RawServer.listen();
    const client = await rawClient(engine);
    for (let i = 0; i < 20; i++) {
      const accepting = application.accept().then((peer) => peer.reset());
      const upstream = await engine.connect(connectOptions(application.address));
      await accepting;
      const relayed = new Deferred<RelayOutcome>();
      const { end, peer } = await client.next();
      engine.relay(end, upstream, relayed.resolve);
      await peer.closed;
      assert.equal(peer.wasReset, true);
      const { received, error } = await relayed.promise;
      assert.deepEqual([received, error], ["reset", undefined]);
    }
    assert.deepEqual(unexpected, []);
    application.close();
    engine.close();
  });
});

/** Connections of a raw client as ends. */
async function rawClient(engine: BatchEngine) {
  const listener = engine.listen(LISTEN);
  const accepted = new Map<number, Deferred<SocketEnd>>();
  const ofPort = (port: number): Deferred<SocketEnd> => {
    const known = accepted.get(port) ?? new Deferred();
    accepted.set(port, known);
    return known;
  };
  listener.start(
    (end) => ofPort(end.peer.port).resolve(end),
    (error) => assert.fail(error),
  );
  return {
    async next(): Promise<{ readonly end: SocketEnd; readonly peer: RawPeer }> {
      const peer = await rawConnect(listener.address);
      return { end: await ofPort(peer.socket.localPort ?? 0).promise, peer };
    },
  };
}

describe("a bug", () => {
  it("in taking a connection costs that connection", async () => {
    const { engine, unexpected } = makeEngine();
    const listener = engine.listen(LISTEN);
    let count = 0;
    const accepted = new Deferred<SocketEnd>();
    listener.start(
      (end) => {
        if (count++ === 0) throw BUG;
        accepted.resolve(end);
      },
      (error) => assert.fail(error),
    );
    const first = await rawConnect(listener.address);
    assert.equal(await first.seenEnd, "fin");
    const second = await rawConnect(listener.address);
    (await accepted.promise).close();
    assert.equal(await second.seenEnd, "fin");
    assert.deepEqual(unexpected, [BUG]);
    for (const peer of [first, second]) peer.close();
    engine.close();
  });

  it("in answering a request costs that stream", async () => {
    const { engine, unexpected } = makeEngine();
    const lab = await TunnelLab.open(engine);
    let count = 0;
    lab.requested = (request) => {
      if (count++ === 0) throw BUG;
      request.refuse(503);
    };
    const tunnel = await lab.dial();
    await assert.rejects(tunnel.open("10.0.0.1:80", []), { code: "stream-reset", http2Code: 2 });
    assert.equal((await tunnel.open("10.0.0.1:80", [])).status, 503);
    assert.deepEqual(unexpected, [BUG]);
    engine.close();
  });

  it("in judging a peer costs that tunnel", async () => {
    const { engine, unexpected } = makeEngine();
    let count = 0;
    const lab = await TunnelLab.open(engine, {
      verifyPeer: () => {
        if (count++ === 0) throw BUG;
        return undefined;
      },
    });
    lab.requested = (request) => request.refuse(503);
    const next = lab.next();
    const first = await lab.dial();
    await assert.rejects(first.open("10.0.0.1:80", []), { code: "tunnel-closed" });
    assert.equal((await (await next).closed.promise)?.message, "Error: a bug");
    const second = await lab.dial();
    assert.equal((await second.open("10.0.0.1:80", [])).status, 503);
    assert.deepEqual(unexpected, [BUG]);
    engine.close();
  });

  it("in hearing of an end costs nobody else", async () => {
    const { engine, unexpected } = makeEngine();
    const application = await RawServer.listen();
    const client = await rawClient(engine);
    const relays: { readonly peer: RawPeer; readonly server: RawPeer }[] = [];
    for (const finished of [() => assert.fail(BUG), () => {}]) {
      const accepting = application.accept();
      const upstream = await engine.connect(connectOptions(application.address));
      const { end, peer } = await client.next();
      engine.relay(end, upstream, finished);
      relays.push({ peer, server: await accepting });
    }
    relays[0]?.peer.reset();
    await relays[0]?.server.closed;
    relays[1]?.peer.send("still here");
    await relays[1]?.server.received(10);
    assert.deepEqual(unexpected, [BUG]);
    application.close();
    engine.close();
  });
});

describe("windows and frames of other peers", () => {
  const SMALL = { ...SETTINGS, frameBytesMax: 16_384, streamWindowBytes: 50_000 };
  const BULK_BYTES = 8 * 1024 * 1024;

  it("are kept to, byte by byte, on both sides at once", async () => {
    const leaks = new LeakCheck();
    const { engine, unexpected } = makeEngine();
    const application = await RawServer.listen();
    const lab = await TunnelLab.open(engine, { settings: SMALL });
    lab.requested = (request) => void serve(request);
    async function serve(request: TunnelRequest): Promise<void> {
      const upstream = await engine.connect(connectOptions(application.address));
      engine.relay(request.accept([]), upstream, () => {});
    }
    const tunnel = await lab.dial({ settings: SMALL });
    const client = await rawClient(engine);
    const joined = [];
    // One after the other, so that it is known who is joined with whom.
    for (const seed of [1, 2, 3]) {
      const accepting = application.accept();
      const answer = await tunnel.open(formatSocketAddress(application.address), []);
      assert(answer.end !== undefined);
      const server = await accepting;
      const { end, peer } = await client.next();
      const relayed = new Deferred<RelayOutcome>();
      engine.relay(end, answer.end, relayed.resolve);
      joined.push({ seed, server, peer, relayed });
    }
    await Promise.all(
      joined.map(async ({ seed, server, peer, relayed }) => {
        const [sent, received] = await Promise.all([
          peer.sendPattern(BULK_BYTES, seed),
          server.sendPattern(BULK_BYTES, seed + 100),
        ]);
        peer.end();
        server.end();
        assert.deepEqual(await Promise.all([peer.seenEnd, server.seenEnd]), ["fin", "fin"]);
        assert.deepEqual([server.digest(), peer.digest()], [sent, received]);
        assert.deepEqual(await relayed.promise, { sent: "fin", received: "fin", error: undefined });
      }),
    );
    assert.deepEqual(unexpected, []);
    application.close();
    engine.close();
    await leaks.assertNone();
  });

  it("let a stream of one tunnel go on in another", async () => {
    const { engine, unexpected } = makeEngine();
    const application = await RawServer.listen();
    const far = await TunnelLab.open(engine, { settings: SMALL });
    far.requested = (request) => {
      void engine
        .connect(connectOptions(application.address))
        .then((upstream) => engine.relay(request.accept([]), upstream, () => {}));
    };
    const near = new TunnelLab(
      engine,
      far.ca,
      tlsOptions(await far.ca.certificate(testIdentity("server"))),
    );
    const onward = await far.dial();
    const outcome = new Deferred<RelayOutcome>();
    near.requested = (request) => {
      void onward.open("10.0.0.1:80", []).then(({ end }) => {
        assert(end !== undefined);
        engine.relay(request.accept([]), end, outcome.resolve);
      });
    };
    const tunnel = await near.dial();
    const accepting = application.accept();
    const { end } = await tunnel.open("10.0.0.1:80", []);
    assert(end !== undefined);
    const { end: downstream, peer } = await (await rawClient(engine)).next();
    engine.relay(downstream, end, () => {});
    const server = await accepting;
    const [sent, received] = await Promise.all([
      peer.sendPattern(BULK_BYTES, 1),
      server.sendPattern(BULK_BYTES, 2),
    ]);
    peer.end();
    server.end();
    assert.deepEqual(await Promise.all([peer.seenEnd, server.seenEnd]), ["fin", "fin"]);
    assert.deepEqual([server.digest(), peer.digest()], [sent, received]);
    assert.deepEqual(await outcome.promise, { sent: "fin", received: "fin", error: undefined });
    assert.deepEqual(unexpected, []);
    application.close();
    engine.close();
  });
});

/** Settles when it has moved bytes, and then none for a while: all buffers on the way are full. */
async function untilStalled(relay: Relay): Promise<void> {
  for (let before = -1; relay.bytesReceived === 0 || relay.bytesReceived !== before; ) {
    before = relay.bytesReceived;
    await delay(300);
  }
}
