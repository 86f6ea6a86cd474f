/** Clients and servers that misbehave, and what becomes of a tunnel to them. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as netConnect, type Socket } from "node:net";
import { it } from "node:test";
import {
  type ConnectionOptions,
  createSecureContext,
  createServer as createTlsServer,
  type TLSSocket,
  connect as tlsConnect,
} from "node:tls";
import type { EngineError } from "../../src/engine/engine-error.ts";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";
import { testIdentity } from "../support/test-ca.ts";
import {
  type AcceptedTunnel,
  connectOptions,
  Deferred,
  LISTEN,
  SETTINGS,
  TunnelLab,
  tlsOptions,
} from "./engine-lab.ts";
import { LOOPBACK, RawServer, rawConnect } from "./raw-peer.ts";
import type { TunnelSuiteOptions, WithLab } from "./tunnel-exchange.ts";

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const EMPTY_SETTINGS = Buffer.from("000000040000000000", "hex");

export function badClients(withLab: WithLab, options: TunnelSuiteOptions): void {
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
    const socket = tlsConnect({ ...(await lab.clientOptions("client")), ...more });
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

export function badServers(withLab: WithLab): void {
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
