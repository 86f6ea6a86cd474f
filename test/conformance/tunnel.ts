/** What every engine must do with HBONE connections, as client and as server, with good and bad peers. */
import assert from "node:assert/strict";
import { connect as netConnect, type Socket } from "node:net";
import { describe, it } from "node:test";
import type { TunnelClosed, TunnelRequest, TunnelSettings } from "../../src/engine/engine.ts";
import type { EngineError } from "../../src/engine/engine-error.ts";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { Deferred, SETTINGS, TunnelLab } from "./engine-lab.ts";
import { RawServer } from "./raw-peer.ts";
import { certificates } from "./tunnel-certificates.ts";
import {
  attach,
  echo,
  exchange,
  type TunnelSuiteOptions,
  type WithLab,
} from "./tunnel-exchange.ts";
import { badClients, badServers } from "./tunnel-peers.ts";

/** What the kernel takes for a reader that does not read. */
const BUFFERED_BYTES = 40_000;

/** After which a peer that says nothing any more has been asked, waited for and left. */
const UNANSWERED_MS = 20_000;

export function tunnelSuite(name: string, options: TunnelSuiteOptions): void {
  const withLab: WithLab = async (run, more, clock) => {
    const leaks = options.leakCheck();
    const engine = options.makeEngine(clock);
    const lab = await TunnelLab.open(engine, more);
    try {
      await run(lab);
    } finally {
      lab.listener.close();
      engine.close();
    }
    await leaks.assertNone();
  };
  describe(`${name}: streams of a tunnel`, () => streams(withLab));
  describe(`${name}: the end of a tunnel`, () => endings(withLab, options));
  describe(`${name}: certificates`, () => certificates(withLab));
  describe(`${name}: clients that misbehave`, () => badClients(withLab, options));
  describe(`${name}: servers that misbehave`, () => badServers(withLab));
}

function streams(withLab: WithLab): void {
  it("carries a hundred streams at once", () =>
    withLab(async (lab) => {
      const application = await RawServer.listen();
      lab.requested = echo(lab, application);
      const tunnel = await lab.dial();
      const running = await Promise.all(
        Array.from({ length: 100 }, async (_, i) => {
          const server = application.accept();
          const { peer, outcome } = await attach(lab, tunnel);
          const digest = await peer.sendPattern(10_000 + i, i);
          peer.end();
          const application_ = await server;
          assert.equal(await application_.seenEnd, "fin");
          application_.end();
          assert.equal((await outcome).error, undefined);
          return [digest, application_.digest()] as const;
        }),
      );
      assert.deepEqual(
        new Set(running.map(([sent]) => sent)),
        new Set(running.map(([, received]) => received)),
      );
      assert.equal(lab.accepted.length, 1);
      assert.equal(tunnel.usable, true);
      application.close();
    }));

  const sizes: Readonly<Record<string, Partial<TunnelSettings>>> = {
    "whose windows are smaller than a frame": { streamWindowBytes: 1000 },
    "whose streams share the smallest window": { connectionWindowBytes: 65_535 },
    "that takes the smallest frames": { frameBytesMax: 16_384 },
    "that takes the largest frames": { frameBytesMax: 2 ** 24 - 1 },
  };
  for (const [title, peer] of Object.entries(sizes)) {
    it(`carries bytes to and from a server ${title}`, () =>
      withLab((lab) => exchange(lab, {}), { settings: { ...SETTINGS, ...peer } }));
    it(`carries bytes to and from a client ${title}`, () => withLab((lab) => exchange(lab, peer)));
  }

  it("hands over method, authority and header fields, and brings the answer's back", () =>
    withLab(async (lab) => {
      const seen = new Deferred<TunnelRequest>();
      lab.requested = (request) => {
        seen.resolve(request);
        request.accept([["baggage", "k=v"]]).close();
      };
      const tunnel = await lab.dial();
      const answer = await tunnel.open("echo.default.svc.cluster.local:80", [
        ["baggage", "k8s.cluster.name=Kubernetes"],
        ["forwarded", 'for="10.0.0.1:40000"'],
        ["baggage", "second=1"],
      ]);
      const request = await seen.promise;
      assert.equal(request.method, "CONNECT");
      assert.equal(request.authority, "echo.default.svc.cluster.local:80");
      assert.deepEqual(
        [...request.headers],
        [
          ["baggage", "k8s.cluster.name=Kubernetes,second=1"],
          ["forwarded", 'for="10.0.0.1:40000"'],
        ],
      );
      assert.equal(answer.status, 200);
      assert.deepEqual([...answer.headers], [["baggage", "k=v"]]);
      answer.end?.close();
    }));

  for (const status of [400, 401, 503]) {
    it(`gives the status ${status} without an end`, () =>
      withLab(async (lab) => {
        lab.requested = (request) => request.refuse(status);
        const tunnel = await lab.dial();
        for (let i = 0; i < 3; i++) {
          const answer = await tunnel.open("10.0.0.1:80", []);
          assert.deepEqual([answer.status, answer.end], [status, undefined]);
          assert.deepEqual([...answer.headers], []);
        }
        assert.equal(tunnel.usable, true);
      }));
  }

  it("tells the server when a client gives up before the answer", () =>
    withLab(async (lab) => {
      const aborted = new Deferred<void>();
      const requested = new Deferred<void>();
      lab.requested = (request) => {
        request.onAborted(aborted.resolve);
        requested.resolve();
      };
      const tunnel = await lab.dial();
      const opening = assert.rejects(tunnel.open("10.0.0.1:80", []), { code: "tunnel-closed" });
      await requested.promise;
      tunnel.destroy();
      await Promise.all([aborted.promise, opening]);
    }));
}

function endings(withLab: WithLab, options: TunnelSuiteOptions): void {
  async function oneStream(lab: TunnelLab, how?: "stalled") {
    const application = await RawServer.listen();
    lab.requested = echo(lab, application);
    const next = lab.next();
    const tunnel = await lab.dial();
    const closed = new Deferred<EngineError | undefined>();
    tunnel.onClosed(closed.resolve);
    const accepting = application.accept();
    const stream = await attach(lab, tunnel, how);
    return { tunnel, closed, accepted: await next, stream, server: await accepting, application };
  }

  it("lets running streams finish when the server drains, and takes no new ones", () =>
    withLab(async (lab) => {
      const { tunnel, closed, accepted, stream, server, application } = await oneStream(lab);
      accepted.tunnel?.drain();
      accepted.tunnel?.drain();
      stream.peer.send("still");
      await server.received(5);
      while (tunnel.usable) await options.delay(1);
      await assert.rejects(tunnel.open("10.0.0.1:80", []), { code: "tunnel-closed" });
      server.send("going");
      await stream.peer.received(5);
      server.end();
      stream.peer.end();
      assert.equal((await stream.outcome).error, undefined);
      assert.equal(await closed.promise, undefined);
      assert.equal(await accepted.closed.promise, undefined);
      application.close();
    }));

  it("lets running streams finish when the client closes", () =>
    withLab(async (lab) => {
      const { tunnel, closed, accepted, stream, server, application } = await oneStream(lab);
      tunnel.close();
      tunnel.close();
      assert.equal(tunnel.usable, false);
      stream.peer.send("still");
      await server.received(5);
      server.end();
      stream.peer.end();
      assert.equal(await closed.promise, undefined);
      assert.equal(await accepted.closed.promise, undefined);
      application.close();
    }));

  for (const side of ["client", "server"] as const) {
    it(`ends both applications in order when the ${side} destroys the tunnel`, () =>
      withLab(async (lab) => {
        const { tunnel, closed, accepted, stream, server, application } = await oneStream(lab);
        if (side === "client") tunnel.destroy();
        else accepted.tunnel?.destroy();
        assert.deepEqual(
          await Promise.all([stream.peer.seenEnd, server.seenEnd]),
          ["fin", "fin"],
          "as a drain whose time is over",
        );
        stream.peer.close();
        server.close();
        await Promise.all([stream.outcome, closed.promise, accepted.closed.promise]);
        assert.equal(tunnel.usable, false);
        application.close();
      }));
  }

  it("delivers what it holds for a slow reader before the end of a lost tunnel (read_buffering)", () =>
    withLab(async (lab) => {
      const { closed, accepted, stream, server, application } = await oneStream(lab, "stalled");
      const sent = await server.sendPattern(BUFFERED_BYTES, 1);
      while (stream.receivedBytes() < BUFFERED_BYTES) await options.delay(1);
      accepted.tunnel?.destroy();
      await closed.promise;
      stream.peer.read();
      assert.equal(await stream.peer.seenEnd, "fin");
      assert.equal(stream.peer.digest(), sent);
      stream.peer.close();
      server.close();
      await Promise.all([stream.outcome, accepted.closed.promise]);
      application.close();
    }));

  it("closes an idle tunnel at once", () =>
    withLab(async (lab) => {
      const next = lab.next();
      const tunnel = await lab.dial();
      const accepted = await next;
      const closed = new Deferred<EngineError | undefined>();
      tunnel.onClosed(closed.resolve);
      tunnel.close();
      assert.deepEqual(await Promise.all([closed.promise, accepted.closed.promise]), [
        undefined,
        undefined,
      ]);
    }));

  it("gives a client tunnel up when its pings are not answered", () => {
    const clock = new FakeClock();
    const run = async (lab: TunnelLab): Promise<void> => {
      const application = await RawServer.listen();
      lab.requested = echo(lab, application);
      const gate = await Gate.open(lab.listener.address);
      const tunnel = await lab.dial({
        address: gate.address,
        settings: { pingIntervalMs: 30, pingTimeoutMs: 60 },
      });
      const closed = new Deferred<Parameters<TunnelClosed>>();
      tunnel.onClosed((...end) => closed.resolve(end));
      const accepting = application.accept();
      const { peer, outcome } = await attach(lab, tunnel);
      const server = await accepting;
      gate.freeze();
      await clock.advance(UNANSWERED_MS);
      const [error, lostStreams] = await closed.promise;
      assert.deepEqual([error?.code, lostStreams], ["ping-timeout", 1]);
      await peer.closed;
      assert.equal(peer.wasReset, true, "bytes may be missing, so the application sees a reset");
      assert.equal((await outcome).error?.message, "HBONE ping timeout");
      gate.close();
      await server.closed;
      assert.equal(server.wasReset, true);
      application.close();
    };
    return withLab(run, undefined, clock);
  });

  it("gives a server tunnel up when its pings are not answered", () => {
    const clock = new FakeClock();
    return withLab(
      async (lab) => {
        const gate = await Gate.open(lab.listener.address);
        lab.requested = (request) => request.refuse(503);
        const next = lab.next();
        const tunnel = await lab.dial({ address: gate.address });
        await tunnel.open("10.0.0.1:80", []);
        gate.freeze();
        await clock.advance(UNANSWERED_MS);
        await (await next).closed.promise;
        gate.close();
      },
      { settings: { ...SETTINGS, pingIntervalMs: 50, pingTimeoutMs: 50 } },
      clock,
    );
  });

  it("keeps a tunnel whose pings are answered", () =>
    withLab(
      async (lab) => {
        const next = lab.next();
        const tunnel = await lab.dial({ settings: { pingIntervalMs: 5, pingTimeoutMs: 30_000 } });
        const accepted = await next;
        const gone = accepted.closed.promise.then(() => "gone");
        const still = options.delay(100).then(() => "still there");
        assert.equal(await Promise.race([gone, still]), "still there");
        assert.equal(tunnel.usable, true);
      },
      { settings: { ...SETTINGS, pingIntervalMs: 5, pingTimeoutMs: 30_000 } },
    ));
}

/** A TCP forwarder that can stop to forward without closing anything. */
class Gate {
  readonly address: SocketAddress;
  readonly #server: RawServer;
  readonly #sockets: Socket[] = [];
  #isFrozen = false;

  private constructor(server: RawServer) {
    this.#server = server;
    this.address = server.address;
  }

  static async open(target: SocketAddress): Promise<Gate> {
    const server = await RawServer.listen();
    const gate = new Gate(server);
    void server.accept("stalled").then((peer) => {
      const inner = netConnect(target.port, target.ip);
      gate.#sockets.push(peer.socket, inner);
      for (const [from, to] of [
        [peer.socket, inner],
        [inner, peer.socket],
      ] as const) {
        from.on("error", () => {});
        from.on("data", (chunk) => {
          if (!gate.#isFrozen) to.write(chunk);
        });
        from.on("end", () => {
          if (!gate.#isFrozen) to.end();
        });
      }
      peer.socket.resume();
    });
    return gate;
  }

  freeze(): void {
    this.#isFrozen = true;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}
