/**
 * What every engine must do with the bytes and the endings of a relayed connection, directly and
 * through a tunnel.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import type { Listener, RelayOutcome, SocketEnd } from "../../src/engine/engine.ts";
import type { LeakCheck } from "../support/leak-check.ts";
import { seededRandom } from "../support/mesh-fixture.ts";
import {
  type ClosableEngine,
  connectOptions,
  Deferred,
  type Joined,
  LISTEN,
  plainRoute,
  type Route,
  type Surroundings,
  tunnelRoute,
} from "./engine-lab.ts";
import { type Peer, pattern, realApplications } from "./raw-peer.ts";

const BULK_BYTES = 8 * 1024 * 1024;

const STALLED_CONNECTIONS = 40;
const STALLED_CHUNKS = 64;

/**
 * The connection window, and what is under way while the peer learns of it: how much depends on the
 * machine. Unbounded it would be a window of 4 MiB for each connection, 160 MiB.
 */
const HELD_BYTES_MAX = 112 * 1024 * 1024;

/** Sizes of buffers, frames and records. */
const EDGES = [2, 1024, 16_384, 20_000, 65_536, 131_072, 262_144, 1_048_576] as const;

const SHORT_WRITES = 1000;
const SHORT_BYTES_MAX = 1500;

/** Longest silence after which a blocked writer counts as stopped. */
const STILL_MS = 150;

export interface ByteStreamSuiteOptions {
  readonly makeEngine: () => ClosableEngine;
  /** Made before a test opens anything. */
  readonly leakCheck: () => LeakCheck;
  /** Waits in real time. */
  readonly delay: (ms: number) => Promise<void>;
  /** What is around an engine; default the machine's own network. */
  readonly surroundings?: (engine: ClosableEngine) => Surroundings;
  /** False: the network takes whatever is written. Default true. */
  readonly hasBackPressure?: boolean;
}

export function byteStreamSuite(name: string, options: ByteStreamSuiteOptions): void {
  describe(`${name}: bytes between two sockets`, () => cases(options, plainRoute, "plain"));
  describe(`${name}: bytes through a tunnel`, () => cases(options, tunnelRoute, "tunnel"));
  describe(`${name}: ends that are never relayed`, () => unusedEnds(options));
}

type MakeRoute = (engine: ClosableEngine, surroundings: Surroundings) => Promise<Route>;

function surroundingsOf(options: ByteStreamSuiteOptions, engine: ClosableEngine): Surroundings {
  return options.surroundings?.(engine) ?? { applications: realApplications };
}

function cases(options: ByteStreamSuiteOptions, makeRoute: MakeRoute, kind: "plain" | "tunnel") {
  const { hasBackPressure = true } = options;

  async function withRoute(run: (route: Route) => Promise<void>): Promise<void> {
    const leaks = options.leakCheck();
    const engine = options.makeEngine();
    const route = await makeRoute(engine, surroundingsOf(options, engine));
    try {
      await run(route);
    } finally {
      route.close();
    }
    await leaks.assertNone();
  }

  it("carries megabytes both ways at once, unchanged and counted", () =>
    withRoute(async (route) => {
      const { client, server, relays } = await route.join();
      const [sent, received] = await Promise.all([
        client.sendPattern(BULK_BYTES, 1),
        server.sendPattern(BULK_BYTES, 2),
      ]);
      client.end();
      server.end();
      assert.deepEqual(await Promise.all([client.seenEnd, server.seenEnd]), ["fin", "fin"]);
      assert.equal(server.digest(), sent);
      assert.equal(client.digest(), received);
      for (const { relay, outcome } of relays) {
        assert.deepEqual(await outcome, { sent: "fin", received: "fin", error: undefined });
        assert.deepEqual([relay.bytesSent, relay.bytesReceived], [BULK_BYTES, BULK_BYTES]);
        assert(relay.firstByteAt > 0 && relay.lastActivityAt >= relay.firstByteAt);
      }
    }));

  const exactly: Readonly<Record<string, (send: Peer["send"], receiver: Peer) => Promise<void>>> = {
    // Each length travels alone.
    "lengths around which buffers, frames and records end": async (send, receiver) => {
      for (const length of EDGES.flatMap((edge) => [edge - 1, edge, edge + 1])) {
        const before = receiver.receivedBytes;
        send(pattern(length, length));
        await receiver.received(before + length);
      }
    },
    "random short writes": async (send) => {
      const random = seededRandom(13);
      for (let i = 0; i < SHORT_WRITES; i++) {
        send(pattern(1 + Math.floor(random.unit() * SHORT_BYTES_MAX), i));
        if (random.unit() < 0.1) await options.delay(0);
      }
    },
  };
  for (const [what, play] of Object.entries(exactly)) {
    it(`copies ${what} byte by byte, both ways`, () =>
      withRoute(async (route) => {
        const { client, server, relays } = await route.join();
        const sent = await Promise.all(
          [[client, server] as const, [server, client] as const].map(async ([sender, receiver]) => {
            const hash = createHash("sha256");
            await play((bytes) => {
              hash.update(bytes);
              sender.send(bytes);
            }, receiver);
            return hash.digest("hex");
          }),
        );
        client.end();
        server.end();
        assert.deepEqual(await Promise.all([client.seenEnd, server.seenEnd]), ["fin", "fin"]);
        assert.deepEqual([server.digest(), client.digest()], sent);
        for (const { outcome } of relays) assert.equal((await outcome).error, undefined);
      }));
  }

  it("counts bytes while the connection lives", () =>
    withRoute(async (route) => {
      const { client, server, relays } = await route.join();
      assert.equal(relays[0]?.relay.firstByteAt, 0);
      client.send("hello");
      await server.received(5);
      server.send("hello world");
      await client.received(11);
      await options.delay(1);
      for (const { relay } of relays) {
        assert.deepEqual([relay.bytesSent, relay.bytesReceived], [5, 11]);
      }
      client.close();
      server.close();
    }));

  for (const first of ["client", "server"] as const) {
    const second = first === "client" ? "server" : "client";

    it(`passes on the half-close of the ${first} and then megabytes the other way`, () =>
      withRoute(async (route) => {
        const joined = await route.join();
        joined[first].send("x");
        joined[first].end();
        assert.equal(await joined[second].seenEnd, "fin");
        const digest = await joined[second].sendPattern(BULK_BYTES, 3);
        joined[second].end();
        assert.equal(await joined[first].seenEnd, "fin");
        assert.equal(joined[first].digest(), digest);
        for (const { outcome } of joined.relays) {
          assert.deepEqual(await outcome, { sent: "fin", received: "fin", error: undefined });
        }
      }));

    const resets: Readonly<Record<string, (joined: Joined) => Promise<void>>> = {
      "before the first byte": async () => {},
      "after some bytes": async (joined) => {
        joined[first].send("hello");
        await joined[second].received(5);
        joined[second].send("hello");
        await joined[first].received(5);
      },
      "in the middle of its sending": async (joined) => {
        void joined[first].sendPattern(BULK_BYTES, 4).catch(() => {});
        await joined[second].received(BULK_BYTES / 4);
      },
      "in the middle of its receiving": async (joined) => {
        void joined[second].sendPattern(BULK_BYTES, 5).catch(() => {});
        await joined[first].received(BULK_BYTES / 4);
      },
      "after the half-close of the other": async (joined) => {
        joined[second].end();
        await joined[first].seenEnd;
      },
    };
    for (const [stage, prepare] of Object.entries(resets)) {
      it(`passes on a reset of the ${first} ${stage}`, () =>
        withRoute(async (route) => {
          const joined = await route.join();
          await prepare(joined);
          joined[first].reset();
          await joined[second].closed;
          assert.equal(joined[second].wasReset, true);
          const half = first === "client" ? "sent" : "received";
          for (const { outcome } of joined.relays) {
            const { error, ...halves } = await outcome;
            assert.equal(halves[half], "reset");
            assert.equal(error, undefined, "a peer that gave up is no error of ours");
          }
        }));
    }

    it(`delivers all that the ${first} said before it left, though it refused the rest`, () =>
      withRoute(async (route) => {
        const joined = await route.join();
        const digest = await joined[first].sendPattern(BULK_BYTES, 6);
        joined[first].end();
        await joined[second].received(BULK_BYTES);
        assert.equal(await joined[second].seenEnd, "fin");
        joined[first].close();
        const keepsSending = setIntervalOf(options, () => joined[second].send("more"));
        await joined[second].closed;
        keepsSending.stop();
        assert.equal(joined[second].digest(), digest);
        for (const { outcome } of joined.relays) await outcome;
      }));

    if (hasBackPressure) {
      it(`stops a writer whose reader, the ${second}, stalls, and goes on later`, () =>
        withRoute(async (route) => {
          const joined = await route.join({ [second]: "stalled" });
          const { relays } = joined;
          const half = first === "client" ? "bytesSent" : "bytesReceived";
          const sending = joined[first].sendPattern(8 * BULK_BYTES, 7);
          let carried = -1;
          while (carried !== relays.at(0)?.relay[half]) {
            carried = relays.at(0)?.relay[half] ?? 0;
            await options.delay(STILL_MS);
          }
          assert(carried < 4 * BULK_BYTES, `${carried} bytes went into a stalled reader`);
          joined[second].read();
          const digest = await sending;
          joined[first].end();
          assert.equal(await joined[second].seenEnd, "fin");
          assert.equal(joined[second].digest(), digest);
          joined[second].end();
          for (const { outcome } of relays) await outcome;
        }));
    }
  }

  it("ends both sides in order when stopped by closing", () =>
    withRoute(async (route) => {
      const { client, server, relays } = await route.join();
      client.send("hello");
      await server.received(5);
      relays[0]?.relay.stop("close");
      relays[0]?.relay.stop("close");
      assert.deepEqual(await relays[0]?.outcome, {
        sent: "stopped",
        received: "stopped",
        error: undefined,
      });
      assert.deepEqual(await Promise.all([client.seenEnd, server.seenEnd]), ["fin", "fin"]);
      client.close();
      server.close();
    }));

  it("resets both sides when stopped by a reset", () =>
    withRoute(async (route) => {
      const { client, server, relays } = await route.join();
      client.send("hello");
      await server.received(5);
      relays[0]?.relay.stop("reset");
      await Promise.all([client.closed, server.closed]);
      assert.deepEqual([client.wasReset, server.wasReset], [true, true]);
      for (const { outcome } of relays) assert.equal((await outcome).error, undefined);
    }));

  it("ends relays when the engine is closed", () =>
    withRoute(async (route) => {
      const { client, server, relays } = await route.join();
      route.close();
      await Promise.all([client.closed, ...relays.map(({ outcome }) => outcome)]);
      await server.seenEnd;
      server.close();
    }));

  if (kind === "tunnel" && hasBackPressure) {
    it("holds about one connection window for all stalled connections together", () =>
      withRoute(async (route) => {
        const joined: Joined[] = [];
        for (let i = 0; i < STALLED_CONNECTIONS; i++) {
          joined.push(await route.join({ server: "stalled" }));
        }
        const chunk = Buffer.alloc(256 * 1024);
        for (const { client } of joined) {
          for (let i = 0; i < STALLED_CHUNKS; i++) client.send(chunk);
        }
        const carried = (at: 0 | 1): number =>
          joined.reduce((sum, { relays }) => sum + (relays[at]?.relay.bytesSent ?? 0), 0);
        // A busy machine may stand still before anything stalls.
        let heldBytes = 0;
        for (let before = 0; heldBytes === 0 || before !== carried(0); ) {
          before = carried(0);
          await options.delay(2 * STILL_MS);
          heldBytes = carried(0) - carried(1);
        }
        assert(heldBytes < HELD_BYTES_MAX, `${heldBytes} bytes are held`);
        for (const { client, server } of joined) {
          client.reset();
          server.reset();
        }
      }));

    it("keeps a stalled connection from stalling its neighbour in the tunnel", () =>
      withRoute(async (route) => {
        const stalled = await route.join({ server: "stalled" });
        const lively = await route.join();
        void stalled.client.sendPattern(8 * BULK_BYTES, 8).catch(() => {});
        await options.delay(STILL_MS);
        const digest = await lively.client.sendPattern(BULK_BYTES, 9);
        lively.client.end();
        assert.equal(await lively.server.seenEnd, "fin");
        assert.equal(lively.server.digest(), digest);
        lively.server.close();
        stalled.client.reset();
        stalled.server.reset();
      }));
  }
}

function unusedEnds(options: ByteStreamSuiteOptions): void {
  const endings = {
    "with unread bytes resets the peer": { send: true, how: "close", reset: true },
    "with nothing unread sends FIN": { send: false, how: "close", reset: false },
    "by a reset resets the peer": { send: false, how: "reset", reset: true },
  } as const;
  for (const [title, ending] of Object.entries(endings)) {
    for (const origin of ["accepted", "connected"] as const) {
      it(`closing an ${origin} end ${title}`, async () => {
        const leaks = options.leakCheck();
        const engine = options.makeEngine();
        const { peer, end, close } = await single(options, engine, origin);
        if (ending.send) peer.send("unread");
        await peer.delivered();
        end[ending.how]();
        end.close();
        assert.equal(await peer.seenEnd, ending.reset ? "reset" : "fin");
        peer.close();
        close();
        engine.close();
        await leaks.assertNone();
      });
    }
  }

  it("hears and says what comes before the relay, and not a byte beyond", async () => {
    const leaks = options.leakCheck();
    const engine = options.makeEngine();
    const client = await single(options, engine, "accepted");
    const server = await single(options, engine, "connected");
    server.end.writeFirst(Buffer.from("who calls, "));
    const hello = client.end.readFirst(5);
    client.peer.send("he");
    await options.delay(20);
    client.peer.send("llo, world");
    assert.equal(Buffer.from(await hello).toString(), "hello");
    client.end.writeFirst(Buffer.from("welcome"));
    assert.equal((await client.end.readFirst(0)).length, 0);
    assert.equal(Buffer.from(await client.end.readFirst(2)).toString(), ", ");
    const outcome = new Deferred<RelayOutcome>();
    const relay = engine.relay(client.end, server.end, outcome.resolve);
    await server.peer.received(16);
    server.peer.send("!");
    await client.peer.received(8);
    for (const { peer } of [client, server]) peer.end();
    await outcome.promise;
    assert.equal(server.peer.digest(), sha256("who calls, world"));
    assert.equal(client.peer.digest(), sha256("welcome!"));
    assert.deepEqual([relay.bytesSent, relay.bytesReceived], [5, 1]);
    for (const { peer, close } of [client, server]) {
      peer.close();
      close();
    }
    engine.close();
    await leaks.assertNone();
  });

  for (const how of ["end", "reset", "closed by us"] as const) {
    it(`tells whoever waits for first bytes that there are too few: ${how}`, async () => {
      const leaks = options.leakCheck();
      const engine = options.makeEngine();
      const { peer, end, close } = await single(options, engine, "accepted");
      peer.send("ab");
      const hello = end.readFirst(3);
      const refusal = assert.rejects(hello, { name: "EngineError", message: "early eof" });
      await options.delay(20);
      if (how === "closed by us") end.close();
      else peer[how]();
      await refusal;
      end.close();
      peer.close();
      close();
      engine.close();
      await leaks.assertNone();
    });
  }

  for (const how of ["close", "reset"] as const) {
    it(`finishes a relay that is stopped by a ${how} in the turn that began it`, async () => {
      const leaks = options.leakCheck();
      const engine = options.makeEngine();
      const a = await single(options, engine, "accepted");
      const b = await single(options, engine, "connected");
      const outcome = new Deferred<RelayOutcome>();
      engine.relay(a.end, b.end, outcome.resolve).stop(how);
      assert.deepEqual(await outcome.promise, {
        sent: "stopped",
        received: "stopped",
        error: undefined,
      });
      const seen = how === "close" ? "fin" : "reset";
      assert.deepEqual(await Promise.all([a.peer.seenEnd, b.peer.seenEnd]), [seen, seen]);
      for (const { peer, close } of [a, b]) {
        peer.close();
        close();
      }
      engine.close();
      await leaks.assertNone();
    });
  }

  it("fails a connect to nobody with the kernel's word", async () => {
    const engine = options.makeEngine();
    const { listener } = engineListener(engine);
    const { address } = listener;
    listener.close();
    await assert.rejects(engine.connect(connectOptions(address)), {
      name: "EngineError",
      code: "system",
      errno: "ECONNREFUSED",
      message: "Connection refused (os error 111)",
    });
    engine.close();
  });

  it("refuses to listen where somebody else does", () => {
    const engine = options.makeEngine();
    const { listener } = engineListener(engine);
    assert.throws(() => engine.listen({ ...LISTEN, address: listener.address }), {
      name: "EngineError",
      code: "system",
      errno: "EADDRINUSE",
    });
    engine.close();
  });

  it("frees the port of a closed listener at once, with connections open", async () => {
    const engine = options.makeEngine();
    const { listener, accepted } = engineListener(engine);
    const peer = await surroundingsOf(options, engine).applications.connect(listener.address);
    const end = await accepted.promise;
    assert.equal(end.peer.port, peer.localPort);
    assert.deepEqual([end.local, end.originalDestination], [listener.address, listener.address]);
    listener.close();
    engine.listen({ ...LISTEN, address: listener.address }).close();
    end.close();
    assert.equal(await peer.seenEnd, "fin");
    peer.close();
    engine.close();
  });

  it("leaves connections in the kernel's queue until the listener is started", async () => {
    const engine = options.makeEngine();
    const listener = engine.listen(LISTEN);
    const peer = await surroundingsOf(options, engine).applications.connect(listener.address);
    const accepted = new Deferred<SocketEnd>();
    listener.start(accepted.resolve, (error) => assert.fail(error));
    (await accepted.promise).close();
    assert.equal(await peer.seenEnd, "fin");
    peer.close();
    engine.close();
  });
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function engineListener(engine: ClosableEngine): {
  readonly listener: Listener;
  readonly accepted: Deferred<SocketEnd>;
} {
  const accepted = new Deferred<SocketEnd>();
  const listener = engine.listen(LISTEN);
  listener.start(accepted.resolve, (error) => assert.fail(error));
  return { listener, accepted };
}

async function single(
  options: ByteStreamSuiteOptions,
  engine: ClosableEngine,
  origin: "accepted" | "connected",
): Promise<{ readonly peer: Peer; readonly end: SocketEnd; close(): void }> {
  if (origin === "accepted") {
    const { listener, accepted } = engineListener(engine);
    const peer = await surroundingsOf(options, engine).applications.connect(listener.address);
    return { peer, end: await accepted.promise, close: () => listener.close() };
  }
  const server = await surroundingsOf(options, engine).applications.serve();
  const accepting = server.accept();
  const end = await engine.connect(connectOptions(server.address));
  return { peer: await accepting, end, close: () => server.close() };
}

function setIntervalOf(options: ByteStreamSuiteOptions, act: () => void): { stop(): void } {
  let isRunning = true;
  void (async () => {
    while (isRunning) {
      act();
      await options.delay(5);
    }
  })();
  return {
    stop: () => {
      isRunning = false;
    },
  };
}
