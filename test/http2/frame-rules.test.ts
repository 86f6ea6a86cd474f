/** Every way to break a frame, and what RFC 9113 has us answer: the connection's end, or the stream's. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encodeFrame, FLAG, type Frame, FrameReader, PREFACE } from "../support/http2-frames.ts";
import { Side } from "./side.ts";

const SETTINGS_FRAME: Frame = { type: "SETTINGS", flags: 0, stream: 0, settings: [] };
const CONNECT: Frame = {
  type: "HEADERS",
  flags: FLAG.endHeaders,
  stream: 1,
  headers: [
    [":method", "CONNECT"],
    [":authority", "10.0.0.1:80"],
  ],
};
const ANSWER: Frame = {
  type: "HEADERS",
  flags: FLAG.endHeaders,
  stream: 1,
  headers: [[":status", "200"]],
};

/** What the server answers to frames behind a greeting, an open stream 1 and a closed stream 3. */
function answerOfServer(frames: readonly (Frame | string)[]): string {
  const side = new Side("server", { frameBytesMax: 16_384 });
  side.hear(PREFACE);
  side.hear(encodeFrame(SETTINGS_FRAME));
  for (const stream of [1, 3]) side.hear(encodeFrame({ ...CONNECT, stream }));
  for (const stream of side.streams.values()) side.connection.respond(stream, 200, []);
  side.hear(encodeFrame({ type: "DATA", flags: FLAG.endStream, stream: 3, hex: "" }));
  const [, third] = [...side.streams.values()];
  if (third !== undefined) side.connection.end(third);
  return answer(side, frames);
}

/** The same of a client with stream 1 open and answered. */
function answerOfClient(frames: readonly (Frame | string)[]): string {
  const side = new Side("client", { frameBytesMax: 16_384 });
  side.connection.open("10.0.0.1:80", [], "");
  side.hear(encodeFrame(SETTINGS_FRAME));
  side.hear(encodeFrame(ANSWER));
  return answer(side, frames);
}

function answer(side: Side, frames: readonly (Frame | string)[]): string {
  side.said();
  for (const frame of frames) {
    side.hear(
      typeof frame === "string"
        ? Buffer.from(frame.replaceAll(" ", ""), "hex")
        : encodeFrame(frame),
    );
  }
  const last = new FrameReader("server").read(side.said()).at(-1);
  return last === undefined ? "nothing" : `${last.type} ${last.stream} ${last.error ?? ""}`.trim();
}

const data = (stream: number, bytes: number, flags = 0): Frame => ({
  type: "DATA",
  flags,
  stream,
  hex: "00".repeat(bytes),
});
const setting = (name: string, value: number): Frame => ({
  ...SETTINGS_FRAME,
  settings: [[name, value]],
});

type Case = readonly [name: string, frames: readonly (Frame | string)[], answer: string];

const COMMON: readonly Case[] = [
  ["a frame above our limit", ["004001 00 00 00000001"], "GOAWAY 0 FRAME_SIZE_ERROR"],
  ["a frame of an unknown type", ["000003 21 ff 00000001 616263"], "nothing"],
  ["an unknown setting", ["000006 04 00 00000000 00ff 00000001"], "SETTINGS 0"],
  ["the reserved bit of a stream", ["000000 00 01 80000001"], "nothing"],

  ["DATA on the connection", [data(0, 1)], "GOAWAY 0 PROTOCOL_ERROR"],
  ["DATA on a stream that is not open", [data(11, 1)], "GOAWAY 0 PROTOCOL_ERROR"],
  ["DATA on a stream of a server", [data(2, 1)], "GOAWAY 0 PROTOCOL_ERROR"],
  ["DATA behind its end", [data(1, 1, 1), data(1, 1)], "RST_STREAM 1 STREAM_CLOSED"],
  ["DATA with padding of its length", ["000002 00 08 00000001 0200"], "GOAWAY 0 PROTOCOL_ERROR"],
  ["DATA of padding alone", ["000002 00 08 00000001 0100"], "nothing"],
  ["padded DATA of no bytes", ["000000 00 08 00000001"], "GOAWAY 0 FRAME_SIZE_ERROR"],

  ["HEADERS on the connection", [{ ...CONNECT, stream: 0 }], "GOAWAY 0 PROTOCOL_ERROR"],
  ["HEADERS on an open stream", [CONNECT], "RST_STREAM 1 PROTOCOL_ERROR"],
  ["HEADERS behind the end", [data(1, 0, 1), CONNECT], "RST_STREAM 1 STREAM_CLOSED"],
  ["HEADERS with too much padding", ["000002 01 0c 00000005 0282"], "GOAWAY 0 PROTOCOL_ERROR"],
  ["HEADERS with half a priority", ["000004 01 24 00000005 00000000"], "GOAWAY 0 PROTOCOL_ERROR"],
  [
    "a header block that can't be decoded",
    ["000001 01 04 00000005 80"],
    "GOAWAY 0 COMPRESSION_ERROR",
  ],
  [
    "another frame within a header block",
    ["000001 01 00 00000005 82", data(1, 1)],
    "GOAWAY 0 PROTOCOL_ERROR",
  ],
  [
    "an unknown frame within a header block",
    ["000001 01 00 00000005 82", "000000 21 00 00000005"],
    "GOAWAY 0 PROTOCOL_ERROR",
  ],
  [
    "CONTINUATION of another stream",
    ["000001 01 00 00000005 82", "000000 09 04 00000007"],
    "GOAWAY 0 PROTOCOL_ERROR",
  ],
  ["CONTINUATION without HEADERS", ["000000 09 04 00000001"], "GOAWAY 0 PROTOCOL_ERROR"],

  ["PRIORITY", ["000005 02 00 00000001 0000000000"], "nothing"],
  ["PRIORITY on a stream that is not open", ["000005 02 00 00000063 0000000000"], "nothing"],
  ["PRIORITY on the connection", ["000005 02 00 00000000 0000000000"], "GOAWAY 0 PROTOCOL_ERROR"],
  ["PRIORITY of four bytes", ["000004 02 00 00000001 00000000"], "GOAWAY 0 FRAME_SIZE_ERROR"],

  ["RST_STREAM on the connection", ["000004 03 00 00000000 00000000"], "GOAWAY 0 PROTOCOL_ERROR"],
  [
    "RST_STREAM on a stream that is not open",
    ["000004 03 00 0000000b 00000000"],
    "GOAWAY 0 PROTOCOL_ERROR",
  ],
  ["RST_STREAM of three bytes", ["000003 03 00 00000001 000000"], "GOAWAY 0 FRAME_SIZE_ERROR"],

  ["SETTINGS on a stream", [{ ...SETTINGS_FRAME, stream: 1 }], "GOAWAY 0 PROTOCOL_ERROR"],
  ["SETTINGS of five bytes", ["000005 04 00 00000000 0000000000"], "GOAWAY 0 FRAME_SIZE_ERROR"],
  [
    "an acknowledgement with settings",
    ["000006 04 01 00000000 000300000001"],
    "GOAWAY 0 FRAME_SIZE_ERROR",
  ],
  ["ENABLE_PUSH of 2", [setting("ENABLE_PUSH", 2)], "GOAWAY 0 PROTOCOL_ERROR"],
  [
    "INITIAL_WINDOW_SIZE of 2^31",
    [setting("INITIAL_WINDOW_SIZE", 2 ** 31)],
    "GOAWAY 0 FLOW_CONTROL_ERROR",
  ],
  ["MAX_FRAME_SIZE of 16383", [setting("MAX_FRAME_SIZE", 16_383)], "GOAWAY 0 PROTOCOL_ERROR"],
  ["MAX_FRAME_SIZE of 2^24", [setting("MAX_FRAME_SIZE", 2 ** 24)], "GOAWAY 0 PROTOCOL_ERROR"],
  [
    "INITIAL_WINDOW_SIZE that takes a stream beyond 2^31-1",
    [
      { type: "WINDOW_UPDATE", stream: 1, increment: 2 ** 31 - 1 - 65_535 },
      setting("INITIAL_WINDOW_SIZE", 65_536),
    ],
    "GOAWAY 0 FLOW_CONTROL_ERROR",
  ],

  ["PUSH_PROMISE", ["000005 05 04 00000001 0000000282"], "GOAWAY 0 PROTOCOL_ERROR"],

  [
    "PING on a stream",
    [{ type: "PING", stream: 1, hex: "0000000000000000" }],
    "GOAWAY 0 PROTOCOL_ERROR",
  ],
  [
    "PING of six bytes",
    [{ type: "PING", stream: 0, hex: "000000000000" }],
    "GOAWAY 0 FRAME_SIZE_ERROR",
  ],

  ["GOAWAY on a stream", ["000008 07 00 00000001 0000000000000000"], "GOAWAY 0 PROTOCOL_ERROR"],
  ["GOAWAY of seven bytes", ["000007 07 00 00000000 00000000000000"], "GOAWAY 0 FRAME_SIZE_ERROR"],

  ["WINDOW_UPDATE of three bytes", ["000003 08 00 00000001 000001"], "GOAWAY 0 FRAME_SIZE_ERROR"],
  [
    "WINDOW_UPDATE of 0 on a stream",
    [{ type: "WINDOW_UPDATE", stream: 1, increment: 0 }],
    "RST_STREAM 1 PROTOCOL_ERROR",
  ],
  [
    "WINDOW_UPDATE of 0 on the connection",
    [{ type: "WINDOW_UPDATE", stream: 0, increment: 0 }],
    "GOAWAY 0 PROTOCOL_ERROR",
  ],
  [
    "a stream's window beyond 2^31-1",
    [{ type: "WINDOW_UPDATE", stream: 1, increment: 2 ** 31 - 1 }],
    "RST_STREAM 1 FLOW_CONTROL_ERROR",
  ],
  [
    "the connection's window beyond 2^31-1",
    [{ type: "WINDOW_UPDATE", stream: 0, increment: 2 ** 31 - 1 }],
    "GOAWAY 0 FLOW_CONTROL_ERROR",
  ],
  [
    "WINDOW_UPDATE on a stream that is not open",
    [{ type: "WINDOW_UPDATE", stream: 11, increment: 1 }],
    "GOAWAY 0 PROTOCOL_ERROR",
  ],
];

describe("a server answers", () => {
  const cases: readonly Case[] = [
    ...COMMON,
    ["HEADERS on a stream of a server", [{ ...CONNECT, stream: 4 }], "GOAWAY 0 PROTOCOL_ERROR"],
    ["HEADERS on a closed stream", [{ ...CONNECT, stream: 3 }], "GOAWAY 0 STREAM_CLOSED"],
    [
      "HEADERS on a stream below the last",
      [
        { ...CONNECT, stream: 9 },
        { ...CONNECT, stream: 7 },
      ],
      "GOAWAY 0 STREAM_CLOSED",
    ],
    ["DATA on a closed stream", [data(3, 1)], "RST_STREAM 3 STREAM_CLOSED"],
    ["RST_STREAM on a closed stream", ["000004 03 00 00000003 00000000"], "nothing"],
    [
      "WINDOW_UPDATE on a closed stream",
      [{ type: "WINDOW_UPDATE", stream: 3, increment: 1 }],
      "nothing",
    ],
    ["ENABLE_PUSH of 1", [setting("ENABLE_PUSH", 1)], "SETTINGS 0"],
  ];
  for (const [name, frames, expected] of cases) {
    it(`${name} with ${expected}`, () => assert.equal(answerOfServer(frames), expected));
  }

  it("a greeting of HTTP/1.1 with GOAWAY(PROTOCOL_ERROR)", () => {
    const side = new Side("server");
    side.hear(Buffer.from("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert.equal(side.failure?.code, 1);
  });

  it("a first frame other than SETTINGS with GOAWAY(PROTOCOL_ERROR)", () => {
    for (const frame of [
      CONNECT,
      { ...SETTINGS_FRAME, flags: FLAG.ack },
      data(1, 1),
      { type: "PING", stream: 0, hex: "0000000000000000" },
    ]) {
      const side = new Side("server");
      side.hear(PREFACE);
      side.hear(encodeFrame(frame));
      assert.equal(side.failure?.code, 1);
    }
  });
});

describe("a client answers", () => {
  const cases: readonly Case[] = [
    ...COMMON.filter(([name]) => name !== "HEADERS behind the end"),
    [
      "HEADERS on a stream that it did not open",
      [{ ...ANSWER, stream: 11 }],
      "GOAWAY 0 PROTOCOL_ERROR",
    ],
    ["ENABLE_PUSH of 1", [setting("ENABLE_PUSH", 1)], "GOAWAY 0 PROTOCOL_ERROR"],
    ["ENABLE_PUSH of 0", [setting("ENABLE_PUSH", 0)], "SETTINGS 0"],
  ];
  for (const [name, frames, expected] of cases) {
    it(`${name} with ${expected}`, () => assert.equal(answerOfClient(frames), expected));
  }
});

describe("windows that the peer exceeds", () => {
  it("of a stream reset it", () => {
    const side = new Side("server", { streamWindowBytes: 70_000 });
    greet(side);
    side.hear(encodeFrame({ ...SETTINGS_FRAME, flags: FLAG.ack }));
    for (let i = 0; i < 7; i++) side.hear(encodeFrame(data(1, 10_000)));
    assert.deepEqual(side.events.slice(-1), [`data 1 ${"\0".repeat(70_000)}`]);
    side.hear(encodeFrame(data(1, 1)));
    assert.equal(side.events.at(-1), "reset 1 3 by us");
  });

  it("of the connection end it, before a byte of the frame has come", () => {
    const side = new Side("server", { connectionWindowBytes: 70_000 });
    greet(side);
    for (let i = 0; i < 7; i++) side.hear(encodeFrame(data(1, 10_000)));
    side.hear(encodeFrame(data(1, 1)).subarray(0, 9));
    assert.equal(side.failure?.code, 3);
  });
});

function greet(side: Side): void {
  side.hear(PREFACE);
  side.hear(encodeFrame(SETTINGS_FRAME));
  side.hear(encodeFrame(CONNECT));
}
