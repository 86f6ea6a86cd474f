import assert from "node:assert/strict";
import fc from "fast-check";
import { Side } from "../http2/side.ts";
import { encodeFrame, type Frame, PREFACE } from "../support/http2-frames.ts";
import { fuzz, mutated } from "./fuzz.ts";

const streamId = fc.constantFrom(0, 1, 1, 1, 3, 3, 5, 2, 2 ** 31 - 1);
const flags = fc.constantFrom(0, 1, 4, 4, 4, 5, 8, 0x2d);
const hex = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString("hex"));
const number = fc.oneof(fc.nat(100_000), fc.constantFrom(0, 1, 2 ** 31 - 1));

const frame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record({
    type: fc.constantFrom("DATA", "HEADERS", "CONTINUATION"),
    flags,
    stream: streamId,
    hex,
  }),
  fc.record({
    type: fc.constant("HEADERS"),
    flags: fc.constantFrom(4, 5),
    stream: fc.constantFrom(1, 3, 5, 7),
    headers: fc.constantFrom(
      [[":method", "CONNECT"] as const, [":authority", "10.0.0.1:80"] as const],
      [[":status", "200"] as const],
      [["broken", "block"] as const],
    ),
  }),
  fc.record({ type: fc.constant("WINDOW_UPDATE"), stream: streamId, increment: number }),
  fc.record({
    type: fc.constant("SETTINGS"),
    flags: fc.constantFrom(0, 0, 1),
    stream: fc.constant(0),
    settings: fc.array(
      fc.tuple(
        fc.constantFrom(
          "HEADER_TABLE_SIZE",
          "MAX_CONCURRENT_STREAMS",
          "INITIAL_WINDOW_SIZE",
          "MAX_FRAME_SIZE",
        ),
        number,
      ),
      { maxLength: 3 },
    ),
  }),
  fc.record({
    type: fc.constant("PING"),
    flags: fc.constantFrom(0, 1),
    stream: fc.constant(0),
    hex: fc.constant("0b7ba2f08b9bfe54"),
  }),
  fc.record({
    type: fc.constant("RST_STREAM"),
    stream: streamId,
    error: fc.constantFrom("CANCEL", "NO_ERROR"),
  }),
  fc.record({
    type: fc.constant("GOAWAY"),
    stream: fc.constant(0),
    last: number,
    error: fc.constant("NO_ERROR"),
    debug: fc.constantFrom("", "why"),
  }),
);

const talk = fc
  .array(frame, { maxLength: 25 })
  .map((frames) =>
    Buffer.concat([
      encodeFrame({ type: "SETTINGS", flags: 0, stream: 0, settings: [] }),
      ...frames.map(encodeFrame),
    ]),
  );

/** An owner that answers, echoes the end, takes half of what comes, and is told to go at some time. */
function listen(role: "client" | "server"): Side {
  const side = new Side(role, { frameBytesMax: 16_384 });
  side.connection.start();
  if (role === "client") {
    for (let i = 0; i < 3; i++) side.connection.open("10.0.0.1:80", [], "");
  }
  side.react = {
    requested: (stream) => {
      if (stream.id === 5) side.connection.refuse(stream, 503);
      else side.connection.respond(stream, 200, []);
    },
    data: (stream) => side.connection.taken(stream, 10),
    ended: (stream) => {
      if (stream.id === 3) side.connection.drop(stream);
      else side.connection.end(stream);
    },
  };
  return side;
}

for (const role of ["client", "server"] as const) {
  const greeting = role === "server" ? PREFACE : Buffer.alloc(0);

  fuzz(
    `a ${role} hears the same however the bytes are cut`,
    fc.property(talk, fc.integer({ min: 1, max: 40 }), (bytes, pieceBytes) => {
      const [whole, pieces] = [listen(role), listen(role)];
      const all = Buffer.concat([greeting, bytes]);
      whole.hear(all);
      pieces.hear(all, pieceBytes);
      assert.deepEqual(pieces.events, whole.events);
      assert.deepEqual(pieces.said().toString("hex"), whole.said().toString("hex"));
    }),
  );

  fuzz(
    `a ${role} takes damaged bytes without breaking a contract of its own`,
    fc.property(mutated(talk), fc.nat(3), (bytes, when) => {
      const side = listen(role);
      side.hear(greeting);
      side.hear(bytes.subarray(0, bytes.length / 2));
      if (when === 1) side.connection.drain();
      if (when === 2) side.connection.close();
      side.hear(bytes.subarray(bytes.length / 2));
      const ends = side.events.filter((line) => /^(finished|failed)/.test(line));
      assert(ends.length <= 1);
      if (ends.length === 1) assert.equal(side.events.at(-1), ends[0]);
    }),
  );
}
