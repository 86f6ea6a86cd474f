import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FrameReader } from "../support/http2-frames.ts";
import { converse, Side, type Stream } from "./side.ts";

const MIB = 1024 * 1024;
const WINDOW = 4 * MIB;

/** A client and a server with as many streams open between them. */
function pair(streamCount: number): {
  readonly client: Side;
  readonly server: Side;
  readonly sending: readonly Stream[];
  readonly held: readonly Stream[];
} {
  const [client, server] = [new Side("client"), new Side("server")];
  for (const side of [client, server]) side.connection.start();
  const sending = Array.from({ length: streamCount }, () => {
    const stream = client.connection.open("10.0.0.1:80", [], "");
    assert(stream !== undefined);
    return stream;
  });
  converse(client, server);
  const held = [...server.streams.values()];
  for (const stream of held) server.connection.respond(stream, 200, []);
  converse(client, server);
  return { client, server, sending, held };
}

/** What the server announces, of frames that only it sends. */
function announcedWindows(said: Buffer): number[] {
  return new FrameReader("server")
    .read(said)
    .flatMap((frame) => frame.settings ?? [])
    .map(([, value]) => value);
}

const CHUNK = new Uint8Array(MIB / 8);

function sendAll(client: Side, server: Side, streams: readonly Stream[]): number {
  let sent = 0;
  for (let before = -1; before !== sent; ) {
    before = sent;
    for (const stream of streams) {
      sent += client.send(stream, CHUNK);
      converse(client, server);
    }
  }
  return sent;
}

describe("streams that nobody reads", () => {
  it("hold their own window and leave the connection's to the others", () => {
    const { client, server, sending, held } = pair(8);
    for (const stream of held) server.connection.hold(stream);
    const sent = sendAll(client, server, sending);
    assert(sent >= 8 * MIB && sent <= 16 * MIB, `${sent} bytes are held`);
    const lively = client.connection.open("10.0.0.1:80", [], "");
    assert(lively !== undefined);
    converse(client, server);
    const hearing = server.streams.get(lively.id) as Stream;
    server.connection.respond(hearing, 200, []);
    server.react.data = (stream, payload) => {
      if (stream === hearing) server.connection.taken(stream, payload.length);
    };
    converse(client, server);
    let carried = 0;
    while (carried < 32 * MIB) {
      const sentNow = client.send(lively, CHUNK);
      assert(sentNow > 0, `the lively stream stalls after ${carried} bytes`);
      carried += sentNow;
      converse(client, server);
    }
    assert.equal(client.failure, undefined);
    assert.equal(server.failure, undefined);
  });

  it("shrink the windows while they are many, which grow again when they are few", () => {
    const { client, server, held } = pair(64);
    const announced: number[] = [];
    const settle = (): void => {
      for (;;) {
        const [fromClient, fromServer] = [client.said(), server.said()];
        if (fromClient.length + fromServer.length === 0) return;
        announced.push(...announcedWindows(fromServer));
        server.hear(fromClient);
        client.hear(fromServer);
      }
    };
    for (const stream of held) {
      server.connection.hold(stream);
      settle();
    }
    assert.deepEqual(announced, [WINDOW / 2, WINDOW / 4, WINDOW / 8, WINDOW / 16]);
    announced.length = 0;
    for (const stream of held) {
      server.connection.release(stream);
      settle();
    }
    assert.deepEqual(announced, [WINDOW / 4, WINDOW]);
    assert.equal(server.connection.streamWindowBytes, WINDOW);
  });

  it("do not wait for the credit that a larger window would have held back", () => {
    const { client, server, sending, held } = pair(64);
    const [lively, hearing] = [sending[0] as Stream, held[0] as Stream];
    // Less than half of the window: no credit is due yet.
    for (let sent = 0; sent < MIB; sent += CHUNK.length) {
      assert.equal(client.send(lively, CHUNK), CHUNK.length);
      converse(client, server);
    }
    server.connection.taken(hearing, MIB);
    for (const stream of held.slice(1)) server.connection.hold(stream);
    converse(client, server);
    assert.equal(server.connection.streamWindowBytes, WINDOW / 16);
    assert.equal(client.connection.sendableBytes(lively), WINDOW / 16);
  });

  it("change the windows no oftener than a peer may take for a flood", () => {
    const { client, server, held } = pair(64);
    let changes = 0;
    for (let i = 0; i < 1000; i++) {
      for (const stream of held) {
        if (i % 2 === 0) server.connection.hold(stream);
        else server.connection.release(stream);
      }
      const said = server.said();
      changes += announcedWindows(said).length;
      client.hear(said);
      converse(client, server);
    }
    assert.equal(client.failure, undefined);
    assert(changes > 2 && changes <= 32, `${changes} changes`);
  });

  it("are released when they end", () => {
    const { client, server, held } = pair(64);
    for (const stream of held) server.connection.hold(stream);
    converse(client, server);
    for (const stream of held) server.connection.reset(stream, 8);
    converse(client, server);
    assert.equal(server.connection.streamWindowBytes, WINDOW);
  });
});
