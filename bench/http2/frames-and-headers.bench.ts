/**
 * What HTTP/2 costs a tunnel: per DATA frame in and out, per header block in and out. Blocks are the
 * request and the answer of the mesh, as the first of a connection and as a later one.
 */
import assert from "node:assert/strict";
import { HpackDecoder } from "../../src/http2/hpack-decoder.ts";
import { HpackEncoder } from "../../src/http2/hpack-encoder.ts";
import { Http2Connection } from "../../src/http2/http2-connection.ts";
import type { Http2Listener } from "../../src/http2/http2-listener.ts";
import type { Http2Stream } from "../../src/http2/http2-stream.ts";
import { encodeFrame, PREFACE } from "../../test/support/http2-frames.ts";
import { report } from "../measure.ts";
import { timeCases } from "../timed-cases.ts";

const SETTINGS = {
  streamWindowBytes: 4_194_304,
  connectionWindowBytes: 16_777_216,
  frameBytesMax: 1_048_576,
  headerListBytesMax: 65_536,
  streamsMax: 200,
  floodPercent: 100,
};
const INPUT_BYTES = 1_048_576;
const FRAME_COUNT = 64;
const PAYLOAD_BYTES = 1024;
const LARGE_PAYLOAD_BYTES = 524_288;

type Fields = readonly (readonly [name: string, value: string])[];

const request = (i: number): Fields => [
  [":method", "CONNECT"],
  [":authority", "10.77.0.34:8080"],
  [
    "baggage",
    "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=client1," +
      "service.name=client1,service.version=v1",
  ],
  ["forwarded", `for="10.77.0.11:${20_000 + (i % 40_000)}"`],
  [
    "traceparent",
    `00-e441598c6fbfb664baea86fb8f36${String(10_000 + (i % 90_000))}-c781ff0010203040-00`,
  ],
];

// ---- a server with one open stream that takes what comes at once

const arena = new Uint8Array(INPUT_BYTES + 65_536);
let taken = 0;
let stream: Http2Stream<undefined> | undefined;
const nothing = (): void => {
  // Not of interest here.
};
const listener: Http2Listener<undefined> = {
  requested(opened) {
    stream = opened;
    connection.respond(opened, 200, []);
  },
  data(from, _offset, length) {
    taken += length;
    connection.taken(from, length);
  },
  malformed: nothing,
  responded: nothing,
  ended: nothing,
  reset: nothing,
  windowOpened: nothing,
  windowsOpened: nothing,
  settled: nothing,
  ponged: nothing,
  goneAway: nothing,
  finished: (failure) => assert.fail(failure?.message),
};
const connection = new Http2Connection<undefined>(
  { arena, output: { reserve: () => INPUT_BYTES }, listener },
  { role: "server", settings: SETTINGS },
);

/** Puts bytes behind those before. @returns where. */
let placedBytes = 0;
function place(...parts: readonly Uint8Array[]): number {
  const bytes = Buffer.concat(parts);
  arena.set(bytes, placedBytes);
  placedBytes += bytes.length;
  return placedBytes - bytes.length;
}

place(
  PREFACE,
  encodeFrame({
    type: "SETTINGS",
    flags: 0,
    stream: 0,
    settings: [["INITIAL_WINDOW_SIZE", 2 ** 31 - 1]],
  }),
  encodeFrame({ type: "WINDOW_UPDATE", stream: 0, increment: 2 ** 30 }),
  encodeFrame({
    type: "HEADERS",
    flags: 4,
    stream: 1,
    headers: [
      [":method", "CONNECT"],
      [":authority", "a:1"],
    ],
  }),
);
connection.receive(0, placedBytes, 0);
assert(stream !== undefined);
const open = stream;

const payload = Buffer.alloc(PAYLOAD_BYTES);
const frame = encodeFrame({ type: "DATA", stream: 1, hex: payload.toString("hex") });
const frames = Buffer.concat(Array.from({ length: FRAME_COUNT }, () => frame));
const framesAt = place(frames);
connection.receive(framesAt, frames.length, 0);
assert.equal(taken, FRAME_COUNT * PAYLOAD_BYTES);

const large = encodeFrame({
  type: "DATA",
  stream: 1,
  hex: Buffer.alloc(LARGE_PAYLOAD_BYTES).toString("hex"),
});

const largeAt = place(large);

const cases: Record<string, () => void> = {};

cases[`read ${FRAME_COUNT} DATA frames of 1 KiB, take their payload`] = () => {
  taken = 0;
  connection.receive(framesAt, frames.length, 0);
};

cases["read one DATA frame of 512 KiB"] = () => {
  taken = 0;
  connection.receive(largeAt, large.length, 0);
};

// The windows are renewed as a peer would, far less often than once a frame.
let sent = 0;
const renewal = Buffer.concat(
  [0, 1].map((id) => encodeFrame({ type: "WINDOW_UPDATE", stream: id, increment: 1_000_000 })),
);
const renewalAt = place(renewal);
cases[`write ${FRAME_COUNT} DATA headers of 1 KiB`] = () => {
  for (let i = 0; i < FRAME_COUNT; i++)
    connection.writeDataHeader(open, INPUT_BYTES, PAYLOAD_BYTES);
  sent += FRAME_COUNT * PAYLOAD_BYTES;
  if (sent < 1_000_000) return;
  sent -= 1_000_000;
  connection.receive(renewalAt, renewal.length, 0);
};

// ---- header blocks

function encode(encoder: HpackEncoder, fields: Fields): Uint8Array {
  encoder.begin();
  for (const [name, value] of fields) encoder.add(name, value);
  return encoder.end();
}

const first = Buffer.from(encode(new HpackEncoder(), request(0)));
assert.deepEqual(new HpackDecoder().decode(first, 0, first.length, 65_536), request(0).flat());

const encoder = new HpackEncoder();
let requestCount = 0;
const requests = Array.from({ length: 1000 }, (_, i) => request(i));
cases["encode a request like those before it"] = () => {
  encode(encoder, requests[requestCount++ % 1000] as Fields);
};
cases["encode the first request of a connection"] = () => {
  encode(new HpackEncoder(), requests[0] as Fields);
};

const writer = new HpackEncoder();
const blocks = requests.map((fields) => Buffer.from(encode(writer, fields)));
let decoder = new HpackDecoder();
let blockCount = 0;
cases["decode a request like those before it"] = () => {
  if (blockCount === blocks.length) {
    decoder = new HpackDecoder();
    blockCount = 0;
  }
  const block = blocks[blockCount++] as Buffer;
  decoder.decode(block, 0, block.length, 65_536);
};
cases["decode the first request of a connection"] = () => {
  new HpackDecoder().decode(first, 0, first.length, 65_536);
};

const answerer = new HpackEncoder();
const answer: Fields = [[":status", "200"], request(0)[2] as readonly [string, string]];
encode(answerer, answer);
assert.equal(encode(answerer, answer).length, 2);
cases["encode the answer 200 with baggage"] = () => {
  encode(answerer, answer);
};

report(await timeCases(cases));
