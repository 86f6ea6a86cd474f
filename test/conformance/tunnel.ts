/** What every engine must do with HBONE connections, as client and as server, with good and bad peers. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as netConnect, type Socket } from "node:net";
import { describe, it } from "node:test";
import {
  type ConnectionOptions,
  createSecureContext,
  createServer as createTlsServer,
  type TLSSocket,
  connect as tlsConnect,
} from "node:tls";
import type {
  ClientTunnel,
  Relay,
  TlsOptions,
  TunnelClosed,
  TunnelRequest,
  TunnelSettings,
} from "../../src/engine/engine.ts";
import type { EngineError } from "../../src/engine/engine-error.ts";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";
import type { WorkloadCertificate } from "../../src/mesh/workload-certificate.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import { FakeClock } from "../support/fake-clock.ts";
import type { LeakCheck } from "../support/leak-check.ts";
import { expired, notYetValid, type TestCa, testCa, testIdentity } from "../support/test-ca.ts";
import {
  type AcceptedTunnel,
  type ClosableEngine,
  connectOptions,
  Deferred,
  LISTEN,
  SETTINGS,
  TunnelLab,
  tlsOptions,
} from "./engine-lab.ts";
import { LOOPBACK, RawServer, rawConnect } from "./raw-peer.ts";

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS = Buffer.from("000000040000000000", "hex");

/** What the kernel takes for a reader that does not read. */
const BUFFERED_BYTES = 40_000;

/** After which a peer that says nothing any more has been asked, waited for and left. */
const UNANSWERED_MS = 20_000;

export interface TunnelSuiteOptions {
  /** @param clock default: the system's. */
  readonly makeEngine: (clock?: Clock) => ClosableEngine;
  readonly leakCheck: () => LeakCheck;
  readonly delay: (ms: number) => Promise<void>;
}

type WithLab = (
  run: (lab: TunnelLab) => Promise<void>,
  more?: Parameters<typeof TunnelLab.open>[1],
  clock?: Clock,
) => Promise<void>;

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

/** Echoes until the peer has ended. */
function echo(lab: TunnelLab, application: RawServer): (request: TunnelRequest) => void {
  return (request) => {
    void lab.engine.connect(connectOptions(application.address)).then((upstream) => {
      lab.engine.relay(request.accept([]), upstream, () => {});
    });
  };
}

/** 150 kB both ways on each of three streams. */
async function exchange(lab: TunnelLab, client: Partial<TunnelSettings>): Promise<void> {
  const application = await RawServer.listen();
  lab.requested = echo(lab, application);
  const tunnel = await lab.dial({ settings: client });
  await Promise.all(
    [1, 2, 3].map(async (seed) => {
      const server = application.accept();
      const { peer, outcome } = await attach(lab, tunnel);
      const far = await server;
      const [up, down] = await Promise.all([
        peer.sendPattern(150_000, seed),
        far.sendPattern(150_000, -seed),
        peer.received(150_000),
        far.received(150_000),
      ]);
      peer.end();
      far.end();
      assert.equal((await outcome).error, undefined);
      await Promise.all([peer.closed, far.closed]);
      return [up, down, far.digest(), peer.digest()];
    }),
  ).then((all) => {
    const sorted = (pick: readonly number[]): unknown[] =>
      all.flatMap((digests) => pick.map((i) => digests[i])).sort();
    // Streams may reach the application in another order than they were opened in.
    assert.deepEqual(sorted([0]), sorted([2]));
    assert.deepEqual(sorted([1]), sorted([3]));
  });
  tunnel.destroy();
  application.close();
}

/** A stream of the tunnel as a TCP connection of the test. */
async function attach(
  lab: TunnelLab,
  tunnel: ClientTunnel,
  how: "reading" | "stalled" = "reading",
) {
  const answer = await tunnel.open("10.0.0.1:80", []);
  assert(answer.end !== undefined, `answered ${answer.status}`);
  const listener = lab.engine.listen(LISTEN);
  const outcome = new Deferred<{ readonly error: EngineError | undefined }>();
  const { end } = answer;
  let relay: Relay | undefined;
  listener.start(
    (downstream) => {
      listener.close();
      relay = lab.engine.relay(downstream, end, outcome.resolve);
    },
    (error) => assert.fail(error),
  );
  return {
    peer: await rawConnect(listener.address, how),
    outcome: outcome.promise,
    receivedBytes: () => relay?.bytesReceived ?? 0,
  };
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

/** Certificates that a peer must not get through with, and the words for them on our side. */
const BAD_CERTIFICATES: Readonly<
  Record<string, { make(ca: TestCa, other: TestCa): Promise<WorkloadCertificate>; word: string }>
> = {
  expired: {
    make: (ca) => ca.certificate(testIdentity("peer"), expired()),
    word: "Expired",
  },
  "not yet valid": {
    make: (ca) => ca.certificate(testIdentity("peer"), notYetValid()),
    word: "NotValidYet",
  },
  "signed by nobody known": {
    make: (ca) => ca.certificate(testIdentity("peer"), { selfSigned: true }),
    word: "UnknownIssuer",
  },
  "signed by another authority": {
    make: (ca, other) => other.certificate(testIdentity("peer"), { trustedRootPem: ca.rootPem }),
    word: "UnknownIssuer",
  },
};

function certificates(withLab: WithLab): void {
  for (const [title, { make, word }] of Object.entries(BAD_CERTIFICATES)) {
    it(`refuses a client whose certificate is ${title}`, () =>
      withLab(async (lab) => {
        const certificate = await make(lab.ca, await testCa());
        await refusedByServer(lab, certificate, {
          code: "handshake",
          message: `Custom { kind: InvalidData, error: InvalidCertificate(${word}) }`,
        });
      }));

    it(`refuses a server whose certificate is ${title}`, () =>
      withLab(async (lab) => {
        const certificate = await make(lab.ca, await testCa());
        await refusedByClient(lab, tlsOptions(certificate), undefined, {
          code: "handshake",
          message: `invalid peer certificate: ${word}`,
        });
      }));
  }

  it("refuses a client certificate that is for servers only, and the reverse", () =>
    withLab(async (lab) => {
      const serverOnly = await lab.ca.certificate(testIdentity("peer"), { purposes: ["server"] });
      const clientOnly = await lab.ca.certificate(testIdentity("peer"), { purposes: ["client"] });
      await refusedByServer(lab, serverOnly, {
        code: "handshake",
        message: "Custom { kind: InvalidData, error: InvalidCertificate(InvalidPurpose) }",
      });
      await refusedByClient(lab, tlsOptions(clientOnly), undefined, {
        code: "handshake",
        message: "invalid peer certificate: InvalidPurpose",
      });
    }));

  it("takes certificates without a purpose and through an intermediate", () =>
    withLab(async (lab) => {
      lab.requested = (request) => request.refuse(503);
      for (const overrides of [{ purposes: [] }, { intermediate: true }]) {
        const certificate = await lab.ca.certificate(testIdentity("peer"), overrides);
        const tunnel = await lab.dial({ tls: tlsOptions(certificate) });
        assert.equal((await tunnel.open("10.0.0.1:80", [])).status, 503);
      }
    }));

  it("shows each side the leaf of the other", () =>
    withLab(async (lab) => {
      lab.requested = (request) => request.refuse(503);
      const certificate = await lab.ca.certificate(testIdentity("client"));
      let serverLeaf: Uint8Array | undefined;
      const tunnel = await lab.dial({
        tls: tlsOptions(certificate, (chain) => {
          serverLeaf = chain.leafDer;
          return undefined;
        }),
      });
      await tunnel.open("10.0.0.1:80", []);
      assert.deepEqual(pem(lab.accepted[0]?.peer?.leafDer), certificate.chainPem[0]?.trim());
      assert.match(pem(serverLeaf), /BEGIN CERTIFICATE/);
    }));

  it("refuses a client of the wrong identity before any request", () =>
    withLab(
      async (lab) => {
        const certificate = await lab.ca.certificate(testIdentity("client", "default", "foreign"));
        await refusedByServer(lab, certificate, {
          code: "peer-identity",
          message: "not one of us",
        });
      },
      { verifyPeer: () => "not one of us" },
    ));

  it("refuses a server of the wrong identity before any request", () =>
    withLab(async (lab) => {
      const certificate = await lab.ca.certificate(testIdentity("server"));
      await refusedByClient(lab, tlsOptions(certificate), () => "not the one", {
        code: "peer-identity",
        message: "not the one",
      });
    }));

  it("refuses a client whose chain is revoked before it asks who the client is", () => {
    const asked: string[] = [];
    return withLab(
      async (lab) => {
        const certificate = await lab.ca.certificate(testIdentity("client"));
        await refusedByServer(lab, certificate, {
          code: "handshake",
          message: "Custom { kind: InvalidData, error: InvalidCertificate(Revoked) }",
        });
        assert.deepEqual(asked, ["revoked?"]);
      },
      {
        verifyPeer: () => {
          asked.push("who?");
          return undefined;
        },
        isRevoked: () => {
          asked.push("revoked?");
          return true;
        },
      },
    );
  });

  it("refuses a server whose chain is revoked", () =>
    withLab(async (lab) => {
      const certificate = await lab.ca.certificate(testIdentity("server"));
      await refusedByClient(
        lab,
        tlsOptions(certificate),
        undefined,
        { code: "handshake", message: "invalid peer certificate: Revoked" },
        () => true,
      );
    }));

  it("shows each side the chain of the other up to the trusted root", () => {
    const shownToServer: Uint8Array[] = [];
    return withLab(
      async (lab) => {
        lab.requested = (request) => request.refuse(503);
        const certificate = await lab.ca.certificate(testIdentity("client"), {
          intermediate: true,
        });
        let serverChain: Uint8Array = new Uint8Array();
        const tls = tlsOptions(certificate, undefined, (chain) => {
          serverChain = chain;
          return false;
        });
        const tunnel = await lab.dial({ tls });
        assert.equal((await tunnel.open("10.0.0.1:80", [])).status, 503);
        assert.deepEqual(
          Buffer.from(shownToServer[0] ?? []),
          Buffer.concat([...certificate.chainPem, ...certificate.rootsPem].map(derOf)),
        );
        assert.ok(Buffer.from(serverChain).includes(derOf(certificate.rootsPem[0] ?? "")));
      },
      {
        isRevoked: (chain) => {
          shownToServer.push(chain);
          return false;
        },
      },
    );
  });

  it("judges by the roots that come with the certificate and no others", () =>
    withLab(async (lab) => {
      const certificate = { ...(await lab.ca.certificate(testIdentity("client"))), rootsPem: [] };
      await assert.rejects(lab.dial({ tls: tlsOptions(certificate) }), {
        code: "handshake",
        message: "invalid peer certificate: UnknownIssuer",
      });
    }));

  it("agrees on a post-quantum key exchange alone", () =>
    withLab(async (lab) => {
      lab.requested = (request) => request.refuse(503);
      const certificate = await lab.ca.certificate(testIdentity("client"));
      const tunnel = await lab.dial({ tls: { ...tlsOptions(certificate), postQuantumOnly: true } });
      assert.equal((await tunnel.open("10.0.0.1:80", [])).status, 503);
    }));
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replaceAll(/-----[^-]*-----/g, ""), "base64");
}

interface Refusal {
  readonly code: string;
  readonly message: string;
}

/** The server never opens and says why; the client never gets an answer. */
async function refusedByServer(
  lab: TunnelLab,
  certificate: WorkloadCertificate,
  refusal: Refusal,
): Promise<void> {
  lab.requested = () => assert.fail("a refused peer's request was delivered");
  const next = lab.next();
  const dialling = lab
    .dial({ tls: tlsOptions(certificate) })
    .then((tunnel) => tunnel.open("10.0.0.1:80", []));
  await assert.rejects(dialling, { name: "EngineError" });
  const accepted = await next;
  const error = await accepted.closed.promise;
  assert.deepEqual({ code: error?.code, message: error?.message }, refusal);
  assert.equal(accepted.peer, undefined, "never opened");
}

/** The client says why; the server never sees a request and reports a failed handshake. */
async function refusedByClient(
  lab: TunnelLab,
  server: TlsOptions,
  verifyPeer: TlsOptions["verifyPeer"] | undefined,
  refusal: Refusal,
  isRevoked?: TlsOptions["isRevoked"],
): Promise<void> {
  const bad = new TunnelLab(lab.engine, lab.ca, server);
  bad.requested = () => assert.fail("a request was sent to a refused server");
  const next = bad.next();
  const certificate = await lab.ca.certificate(testIdentity("client"));
  await assert.rejects(bad.dial({ tls: tlsOptions(certificate, verifyPeer, isRevoked) }), refusal);
  const accepted = await next;
  assert.equal((await accepted.closed.promise)?.code, "handshake");
  assert.equal(accepted.peer, undefined, "never opened");
  bad.listener.close();
}

function pem(der: Uint8Array | undefined): string {
  const base64 = Buffer.from(der ?? []).toString("base64");
  const lines = base64.match(/.{1,64}/g) ?? [];
  return ["-----BEGIN CERTIFICATE-----", ...lines, "-----END CERTIFICATE-----"].join("\n");
}

function badClients(withLab: WithLab, options: TunnelSuiteOptions): void {
  async function talk(
    lab: TunnelLab,
    act: (socket: Socket) => void | Promise<void>,
  ): Promise<AcceptedTunnel & { readonly error: EngineError | undefined }> {
    const next = lab.next();
    const socket = netConnect(lab.listener.address.port, LOOPBACK);
    socket.on("error", () => {});
    socket.resume();
    await once(socket, "connect");
    const accepted = await next;
    await act(socket);
    const error = await accepted.closed.promise;
    socket.destroy();
    return Object.assign(accepted, { error });
  }

  const INVALID_CONTENT = "Custom { kind: InvalidData, error: InvalidMessage(InvalidContentType) }";
  const EOF = 'Custom { kind: UnexpectedEof, error: "tls handshake eof" }';
  const plain: Readonly<Record<string, { act(socket: Socket): void; message: string }>> = {
    "sends garbage": {
      act: (socket) => void socket.write("hello world hello world"),
      message: INVALID_CONTENT,
    },
    "speaks HTTP without TLS": {
      act: (socket) => void socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
      message: INVALID_CONTENT,
    },
    "speaks HTTP/2 without TLS": {
      act: (socket) => void socket.write(PREFACE),
      message: INVALID_CONTENT,
    },
    "leaves at once": { act: (socket) => void socket.end(), message: EOF },
    "resets at once": {
      act: (socket) => void socket.resetAndDestroy(),
      message: "Connection reset by peer (os error 104)",
    },
    "leaves in the middle of its first message": {
      act: (socket) => void socket.end(Buffer.from("16030100cc010000c803037cb8293a", "hex")),
      message: EOF,
    },
  };
  for (const [title, { act, message }] of Object.entries(plain)) {
    it(`reports a client that ${title}`, () =>
      withLab(async (lab) => {
        const { error, peer } = await talk(lab, act);
        assert.deepEqual([error?.code, error?.message], ["handshake", message]);
        assert.equal(peer, undefined);
      }));
  }

  it("reports a client that says nothing until its time is over", () =>
    withLab(
      async (lab) => {
        const { error } = await talk(lab, () => {});
        assert.deepEqual([error?.code, error?.message], ["handshake", "tls handshake timed out"]);
      },
      { settings: { ...SETTINGS, handshakeTimeoutMs: 50 } },
    ));

  /** A client with a good certificate, up to the end of its handshake. */
  async function secureClient(lab: TunnelLab, more: ConnectionOptions = {}): Promise<TLSSocket> {
    const certificate = await lab.ca.certificate(testIdentity("client"));
    const socket = tlsConnect({
      host: LOOPBACK,
      port: lab.listener.address.port,
      secureContext: createSecureContext({
        cert: certificate.chainPem.join("\n"),
        key: certificate.privateKeyPem,
        ca: [...certificate.rootsPem],
      }),
      servername: "",
      checkServerIdentity: () => undefined,
      ALPNProtocols: ["h2"],
      ...more,
    });
    socket.on("error", () => {});
    socket.resume();
    return socket;
  }

  const refused: Readonly<Record<string, { more: ConnectionOptions; error: string }>> = {
    "without a certificate": {
      more: { secureContext: createSecureContext({ ca: [] }), rejectUnauthorized: false },
      error: "NoCertificatesPresented",
    },
    "that speaks only HTTP/1.1": {
      more: { ALPNProtocols: ["http/1.1"] },
      error: "NoApplicationProtocol",
    },
    "without a suite in common": {
      more: {
        secureContext: createSecureContext({ ciphers: "TLS_CHACHA20_POLY1305_SHA256" }),
        rejectUnauthorized: false,
      },
      error: "PeerIncompatible(NoCipherSuitesInCommon)",
    },
    "of TLS 1.2": {
      more: {
        secureContext: createSecureContext({ maxVersion: "TLSv1.2" }),
        rejectUnauthorized: false,
      },
      error: "PeerIncompatible(SupportedVersionsExtensionRequired)",
    },
  };
  for (const [title, { more, error }] of Object.entries(refused)) {
    it(`refuses a client ${title}`, () =>
      withLab(async (lab) => {
        const next = lab.next();
        const socket = await secureClient(lab, more);
        const reported = await (await next).closed.promise;
        assert.equal(reported?.message, `Custom { kind: InvalidData, error: ${error} }`);
        socket.destroy();
      }));
  }

  it("takes TLS 1.2 where it is allowed", () =>
    withLab(async (lab) => {
      const old = new TunnelLab(lab.engine, lab.ca, {
        ...tlsOptions(await lab.ca.certificate(testIdentity("server"))),
        tls12: true,
      });
      const next = old.next();
      const certificate = await lab.ca.certificate(testIdentity("client"));
      const socket = await secureClient(old, {
        secureContext: createSecureContext({
          cert: certificate.chainPem.join("\n"),
          key: certificate.privateKeyPem,
          ca: [...certificate.rootsPem],
          maxVersion: "TLSv1.2",
        }),
      });
      await once(socket, "secureConnect");
      assert.equal(socket.getProtocol(), "TLSv1.2");
      socket.destroy();
      await (await next).closed.promise;
      old.listener.close();
    }));

  const stages: Readonly<Record<string, (socket: TLSSocket) => void>> = {
    "before its preface": () => {},
    "in the middle of its preface": (socket) => void socket.write(PREFACE.slice(0, 10)),
    "before its settings": (socket) => void socket.write(PREFACE),
    "after its settings": (socket) =>
      void socket.write(Buffer.concat([Buffer.from(PREFACE), EMPTY_SETTINGS])),
    "in the middle of a request": (socket) =>
      void socket.write(
        Buffer.concat([
          Buffer.from(PREFACE),
          EMPTY_SETTINGS,
          Buffer.from("00002d010400000001", "hex"),
          Buffer.from("00073a6d6574", "hex"),
        ]),
      ),
    "after bytes that are no HTTP/2": (socket) => void socket.write("GET / HTTP/1.1\r\n\r\n"),
  };
  for (const [title, act] of Object.entries(stages)) {
    for (const how of ["end", "resetAndDestroy"] as const) {
      const verb = how === "end" ? "leaves" : "resets";
      it(`survives a client that ${verb} ${title}`, () =>
        withLab(async (lab) => {
          const next = lab.next();
          const socket = await secureClient(lab);
          await once(socket, "secureConnect");
          act(socket);
          await options.delay(10);
          if (how === "end") socket.end();
          else socket.destroy();
          const accepted = await next;
          const error = await accepted.closed.promise;
          if (title.includes("settings") && title.includes("after")) return;
          if (title.includes("request")) return;
          assert.equal(accepted.peer, undefined);
          assert.equal(error?.code, "handshake", String(error));
        }));
    }
  }
}

function badServers(withLab: WithLab): void {
  it("fails with the kernel's word when nobody listens", () =>
    withLab(async (lab) => {
      const { address } = lab.listener;
      lab.listener.close();
      await assert.rejects(lab.dial(), { code: "system", errno: "ECONNREFUSED" });
      assert.notEqual(address.port, 0);
    }));

  const answers: Readonly<Record<string, { act(socket: Socket): void; message: string }>> = {
    "leaves at once": { act: (socket) => void socket.end(), message: "tls handshake eof" },
    "resets at once": {
      act: (socket) => void socket.resetAndDestroy(),
      message: "Connection reset by peer (os error 104)",
    },
    "answers in plain text": {
      act: (socket) => void socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"),
      message: "received corrupt message of type InvalidContentType",
    },
    "says nothing": { act: () => {}, message: "tls handshake timed out" },
  };
  for (const [title, { act, message }] of Object.entries(answers)) {
    it(`reports a server that ${title}`, () =>
      withLab(async (lab) => {
        const server = await RawServer.listen();
        void server.accept().then((peer) => {
          peer.socket.once("data", () => act(peer.socket));
        });
        // Short where it is what the test waits for; elsewhere a busy machine has time.
        const settings = title === "says nothing" ? { handshakeTimeoutMs: 100 } : {};
        await assert.rejects(lab.dial({ address: server.address, settings }), {
          code: "handshake",
          message,
        });
        server.close();
      }));
  }

  it("gives up a connect that takes too long", () =>
    withLab(async (lab) => {
      // A full accept queue drops the SYNs of the next ones.
      const full = lab.engine.listen({ ...LISTEN, backlog: 0 });
      const waiting = await Promise.all([rawConnect(full.address)]);
      const connecting = Array.from({ length: 3 }, () =>
        lab.engine.connect({ ...connectOptions(full.address), timeoutMs: 100 }),
      );
      const results = await Promise.allSettled(connecting);
      const failed = results.filter((result) => result.status === "rejected");
      assert(failed.length > 0);
      for (const { reason } of failed as PromiseRejectedResult[]) {
        assert.deepEqual(
          [reason.code, reason.message],
          ["connect-timeout", "deadline has elapsed"],
        );
      }
      for (const result of results) if (result.status === "fulfilled") result.value.close();
      for (const peer of waiting) peer.close();
      full.close();
    }));

  /** A TLS server with a good certificate that then does as it likes. */
  async function secureServer(
    lab: TunnelLab,
    act: (socket: TLSSocket) => void,
  ): Promise<{ readonly address: SocketAddress; close(): void }> {
    const certificate = await lab.ca.certificate(testIdentity("server"));
    const server = createTlsServer({
      cert: certificate.chainPem.join("\n"),
      key: certificate.privateKeyPem,
      ca: [...certificate.rootsPem],
      requestCert: true,
      ALPNProtocols: ["h2"],
    });
    server.on("secureConnection", (socket) => {
      socket.on("error", () => {});
      socket.resume();
      act(socket);
    });
    server.listen(0, LOOPBACK);
    await once(server, "listening");
    const address = server.address();
    assert(address !== null && typeof address === "object");
    return { address: { ip: LOOPBACK, port: address.port }, close: () => void server.close() };
  }

  const GOAWAY = Buffer.from("0000080700000000000000000000000000", "hex");
  const stages: Readonly<Record<string, (socket: TLSSocket) => void>> = {
    "ends after the handshake": (socket) => void socket.end(),
    "vanishes after the handshake": (socket) => void socket.destroy(),
    "ends instead of an answer": (socket) => socket.once("data", () => socket.end()),
    "sends bytes that are no HTTP/2": (socket) => void socket.write("HTTP/1.1 400 Bad\r\n\r\n"),
    "sends GOAWAY instead of an answer": (socket) =>
      socket.once("data", () => socket.end(Buffer.concat([EMPTY_SETTINGS, GOAWAY]))),
  };
  for (const [title, act] of Object.entries(stages)) {
    it(`fails the request and the tunnel of a server that ${title}`, () =>
      withLab(async (lab) => {
        const server = await secureServer(lab, act);
        const tunnel = await lab.dial({ address: server.address });
        const closed = new Deferred<EngineError | undefined>();
        tunnel.onClosed(closed.resolve);
        await assert.rejects(tunnel.open("10.0.0.1:80", []), (error: EngineError) => {
          assert.equal(error.name, "EngineError");
          assert(
            ["tunnel-closed", "protocol", "stream-reset"].includes(error.code),
            `${error.code}: ${error.message}`,
          );
          return true;
        });
        await closed.promise;
        assert.equal(tunnel.usable, false);
        await assert.rejects(tunnel.open("10.0.0.1:80", []), { name: "EngineError" });
        server.close();
      }));
  }

  const resets: Readonly<Record<string, { code: number; message: string }>> = {
    NO_ERROR: { code: 0, message: "not a result of an error" },
    INTERNAL_ERROR: { code: 2, message: "unexpected internal error encountered" },
    STREAM_CLOSED: { code: 5, message: "received frame when stream half-closed" },
    REFUSED_STREAM: {
      code: 7,
      message: "refused stream before processing any application logic",
    },
    CANCEL: { code: 8, message: "stream no longer needed" },
    CONNECT_ERROR: {
      code: 10,
      message:
        "connection established in response to a CONNECT request was reset or abnormally closed",
    },
  };
  for (const [title, { code, message }] of Object.entries(resets)) {
    it(`names a reset with ${title} instead of an answer`, () =>
      withLab(async (lab) => {
        const reset = Buffer.from(`000004030000000001${code.toString(16).padStart(8, "0")}`, "hex");
        const server = await secureServer(lab, (socket) => {
          socket.write(EMPTY_SETTINGS);
          socket.on("data", (chunk: Buffer) => {
            if (chunk.includes("10.0.0.1") || chunk.length > 60) socket.write(reset);
          });
        });
        const tunnel = await lab.dial({ address: server.address });
        await assert.rejects(tunnel.open("10.0.0.1:80", []), {
          name: "EngineError",
          code: "stream-reset",
          errno: undefined,
          http2Code: code,
          message: `stream error received: ${message}`,
        });
        assert.equal(tunnel.usable, true);
        tunnel.destroy();
        server.close();
      }));
  }
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
