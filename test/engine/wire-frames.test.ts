/**
 * HTTP/2 frames of the engine against those recorded from the original, seen by a hand-written peer.
 *
 * Known differences that node:http2 leaves: a CONNECT without authority is reset instead of
 * answered 400; a header list that is too long is reset instead of answered 431.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, it } from "node:test";
import { createServer as createTlsServer, type TLSSocket, connect as tlsConnect } from "node:tls";
import { native } from "../../src/net/native.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { Deferred, TunnelLab } from "../conformance/engine-lab.ts";
import { LOOPBACK } from "../conformance/raw-peer.ts";
import { FRAME_TYPES, PREFACE } from "../support/http2-frames.ts";
import { NodeEngine } from "../support/node-engine/node-engine.ts";
import { testIdentity } from "../support/test-ca.ts";

const SETTINGS_FRAME = Buffer.from("000000040000000000", "hex");

/** `:method CONNECT`, `:authority 10.77.0.21:8080`, nothing compressed. */
const CONNECT_BLOCK =
  "00073a6d6574686f6407434f4e4e454354000a3a617574686f726974790f31302e37372e302e32313a38303830";

interface Frame {
  readonly type: string;
  readonly flags: number;
  readonly stream: number;
  readonly payload: string;
}

/** Reads frames, answers SETTINGS and PING as any peer does, and remembers the rest. */
class FramePeer {
  readonly socket: TLSSocket;
  readonly frames: Frame[] = [];
  readonly closed: Promise<void>;
  #rest = Buffer.alloc(0);
  #prefaceBytes: number;
  #watch = (): void => {};

  constructor(socket: TLSSocket, role: "client" | "server") {
    this.socket = socket;
    this.#prefaceBytes = role === "server" ? PREFACE.length : 0;
    socket.write(role === "server" ? SETTINGS_FRAME : Buffer.concat([PREFACE, SETTINGS_FRAME]));
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    this.closed = new Promise((resolve) => socket.on("close", () => resolve()));
  }

  send(type: number, flags: number, stream: number, payloadHex: string): void {
    const payload = Buffer.from(payloadHex, "hex");
    const head = Buffer.alloc(9);
    head.writeUIntBE(payload.length, 0, 3);
    head[3] = type;
    head[4] = flags;
    head.writeUInt32BE(stream, 5);
    this.socket.write(Buffer.concat([head, payload]));
  }

  /** Frames of that type so far, when there are at least `count`. */
  async seen(type: string, count = 1): Promise<readonly Frame[]> {
    for (;;) {
      const found = this.frames.filter((frame) => frame.type === type);
      if (found.length >= count) return found;
      await new Promise<void>((resolve) => {
        this.#watch = resolve;
      });
    }
  }

  #read(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    if (this.#prefaceBytes > 0) {
      if (this.#rest.length < PREFACE.length) return;
      assert.deepEqual(this.#rest.subarray(0, PREFACE.length), PREFACE);
      this.#rest = this.#rest.subarray(PREFACE.length);
      this.#prefaceBytes = 0;
    }
    while (this.#rest.length >= 9) {
      const length = this.#rest.readUIntBE(0, 3);
      if (this.#rest.length < 9 + length) break;
      const [type, flags] = [this.#rest[3] ?? 0, this.#rest[4] ?? 0];
      const stream = this.#rest.readUInt32BE(5);
      const payload = this.#rest.subarray(9, 9 + length).toString("hex");
      this.#rest = this.#rest.subarray(9 + length);
      this.frames.push({ type: FRAME_TYPES[type] ?? String(type), flags, stream, payload });
      if (type === 4 && flags === 0) this.send(4, 1, 0, "");
      if (type === 6 && flags === 0) this.send(6, 1, 0, payload);
    }
    this.#watch();
  }
}

describe("frames of the server", () => {
  let lab: TunnelLab;
  let engine: NodeEngine;
  before(async () => {
    engine = new NodeEngine({ native, clock: systemClock });
    lab = await TunnelLab.open(engine);
  });
  after(() => {
    lab.listener.close();
    engine.close();
  });

  async function call(): Promise<FramePeer> {
    const socket = tlsConnect(await lab.clientOptions("client1"));
    await once(socket, "secureConnect");
    assert.deepEqual(
      [socket.getProtocol(), socket.getCipher().standardName, socket.alpnProtocol],
      ["TLSv1.3", "TLS_AES_256_GCM_SHA384", "h2"],
    );
    return new FramePeer(socket, "client");
  }

  it("begin with the recorded SETTINGS and connection window", async () => {
    const peer = await call();
    await peer.seen("WINDOW_UPDATE");
    assert.deepEqual(peer.frames[0], {
      type: "SETTINGS",
      flags: 0,
      stream: 0,
      // 200 streams, windows of 4 MiB, frames of 1 MiB, header lists of 64 KiB.
      payload: "0003000000c8000400400000000500100000000600010000",
    });
    assert.equal((await peer.seen("WINDOW_UPDATE"))[0]?.payload, "00ff0001");
    peer.socket.destroy();
  });

  const blocks: Readonly<Record<number, string>> = {
    400: "8c",
    401: "48826801",
    503: "4803353033",
  };
  for (const [status, block] of Object.entries(blocks)) {
    it(`refuse with ${status}, END_STREAM and RST_STREAM(NO_ERROR)`, async () => {
      lab.requested = (request) => request.refuse(Number(status));
      const peer = await call();
      peer.send(1, 4, 1, CONNECT_BLOCK);
      await peer.seen("RST_STREAM");
      const answers = peer.frames.filter((frame) => frame.stream === 1);
      assert.deepEqual(answers, [
        { type: "HEADERS", flags: 5, stream: 1, payload: block },
        { type: "RST_STREAM", flags: 0, stream: 1, payload: "00000000" },
      ]);
      peer.socket.destroy();
    });
  }

  it("accept with 200 and the given fields alone", async () => {
    lab.requested = (request) => request.accept([]);
    const peer = await call();
    peer.send(1, 4, 1, CONNECT_BLOCK);
    assert.deepEqual(await peer.seen("HEADERS"), [
      { type: "HEADERS", flags: 4, stream: 1, payload: "88" },
    ]);
    peer.socket.destroy();
  });

  it("say GOAWAY for any stream, ping, then GOAWAY for the last one when drained", async () => {
    lab.requested = (request) => request.accept([]);
    const next = lab.next();
    const peer = await call();
    const accepted = await next;
    peer.send(1, 4, 1, CONNECT_BLOCK);
    await peer.seen("HEADERS");
    peer.frames.length = 0;
    accepted.tunnel?.drain();
    await peer.seen("GOAWAY", 2);
    assert.deepEqual(
      peer.frames.map(({ type, payload }) => (type === "GOAWAY" ? `${type} ${payload}` : type)),
      ["GOAWAY 7fffffff00000000", "PING", "GOAWAY 0000000100000000"],
    );
    peer.socket.destroy();
    await accepted.closed.promise;
  });

  it("say GOAWAY before the tunnel is destroyed", async () => {
    lab.requested = (request) => request.accept([]);
    const next = lab.next();
    const peer = await call();
    const accepted = await next;
    peer.send(1, 4, 1, CONNECT_BLOCK);
    await peer.seen("HEADERS");
    accepted.tunnel?.destroy();
    await peer.closed;
    assert.equal(peer.frames.at(-1)?.type, "GOAWAY");
  });

  it("deliver a request of another method as it is", async () => {
    const seen = new Deferred<string>();
    lab.requested = (request) => {
      seen.resolve(`${request.method} ${request.authority}`);
      request.refuse(400);
    };
    const peer = await call();
    // GET, https, /, and the authority.
    peer.send(1, 4, 1, "828784000a3a617574686f726974790f31302e37372e302e32313a38303830");
    assert.equal(await seen.promise, "GET 10.77.0.21:8080");
    peer.socket.destroy();
  });

  const malformed: Readonly<Record<string, string>> = {
    "with scheme and path": `${CONNECT_BLOCK}8684`,
    "with an empty authority": "00073a6d6574686f6407434f4e4e454354000a3a617574686f7269747900",
    "of the extended kind": `${CONNECT_BLOCK}868400093a70726f746f636f6c09776562736f636b6574`,
  };
  for (const [title, block] of Object.entries(malformed)) {
    it(`reset a CONNECT ${title} with PROTOCOL_ERROR`, async () => {
      lab.requested = () => assert.fail("delivered");
      const peer = await call();
      peer.send(1, 4, 1, block);
      assert.equal((await peer.seen("RST_STREAM"))[0]?.payload, "00000001");
      peer.socket.destroy();
    });
  }
});

describe("frames of the client", () => {
  it("begin with the recorded SETTINGS, the connection window and the CONNECT in one flight", async () => {
    const engine = new NodeEngine({ native, clock: systemClock });
    const lab = await TunnelLab.open(engine);
    const certificate = await lab.ca.certificate(testIdentity("server1"));
    const server = createTlsServer({
      cert: certificate.chainPem.join("\n"),
      key: certificate.privateKeyPem,
      ca: [...certificate.rootsPem],
      requestCert: true,
      ALPNProtocols: ["h2"],
    });
    server.listen(0, LOOPBACK);
    await once(server, "listening");
    const address = server.address();
    assert(address !== null && typeof address === "object");
    const accepting = once(server, "secureConnection") as Promise<[TLSSocket]>;
    const tunnel = await lab.dial({ address: { ip: LOOPBACK, port: address.port } });
    const opening = tunnel.open("10.77.0.34:8080", [["baggage", ""]]);
    const [socket] = await accepting;
    assert.equal(socket.servername, false, "no server name is sent");
    const peer = new FramePeer(socket, "server");
    await peer.seen("HEADERS");
    assert.deepEqual(
      peer.frames.slice(0, 3).map(({ type, flags, stream }) => [type, flags, stream]),
      [
        ["SETTINGS", 0, 0],
        ["WINDOW_UPDATE", 0, 0],
        ["HEADERS", 4, 1],
      ],
    );
    assert.deepEqual(
      settingsOf(peer.frames[0]?.payload ?? ""),
      new Map([
        [2, 0],
        [4, 4_194_304],
        [5, 1_048_576],
        [6, 16_384],
      ]),
    );
    assert.equal(peer.frames[1]?.payload, "00ff0001");
    // 503 with END_STREAM: our half is still open, so that there is something to cancel.
    peer.send(1, 5, 1, "4803353033");
    assert.equal((await opening).status, 503);
    assert.deepEqual(await peer.seen("RST_STREAM"), [
      { type: "RST_STREAM", flags: 0, stream: 1, payload: "00000008" },
    ]);
    tunnel.close();
    await peer.seen("GOAWAY");
    await peer.closed;
    lab.listener.close();
    server.close();
    engine.close();
  });
});

function settingsOf(payloadHex: string): Map<number, number> {
  const payload = Buffer.from(payloadHex, "hex");
  const settings = new Map<number, number>();
  for (let i = 0; i < payload.length; i += 6) {
    settings.set(payload.readUInt16BE(i), payload.readUInt32BE(i + 2));
  }
  return settings;
}
