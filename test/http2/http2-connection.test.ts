import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode } from "../../src/http2/error-code.ts";
import { encodeFrame, FLAG, type Frame, FrameReader, PREFACE } from "../support/http2-frames.ts";
import { recordedConversations } from "./recorded-frames.ts";
import { converse, Side, type Stream } from "./side.ts";

const CONNECT: Frame["headers"] = [
  [":method", "CONNECT"],
  [":authority", "10.0.0.1:80"],
];

/** A connection whose greetings have been exchanged, with a hand-written peer. */
class Talk {
  readonly side: Side;
  readonly #reader: FrameReader;

  constructor(role: "client" | "server", settings?: ConstructorParameters<typeof Side>[1]) {
    this.side = new Side(role, settings);
    this.#reader = new FrameReader(role);
    this.side.connection.start();
    this.side.hear(Buffer.concat([role === "server" ? PREFACE : Buffer.alloc(0)]));
    this.hear(
      { type: "SETTINGS", flags: 0, stream: 0, settings: [] },
      { type: "SETTINGS", flags: FLAG.ack, stream: 0, settings: [] },
    );
    this.said();
    this.side.events.length = 0;
  }

  hear(...frames: readonly Frame[]): void {
    for (const frame of frames) this.side.hear(encodeFrame(frame));
  }

  /** As lines: `HEADERS 1 flags 5 :status=400`. */
  said(): string[] {
    return this.#reader.read(this.side.said()).map(line);
  }

  /** What was told since the last call. */
  told(): string[] {
    return this.side.events.splice(0);
  }

  request(id = 1, flags: number = FLAG.endHeaders): Stream {
    this.hear({ type: "HEADERS", flags, stream: id, headers: CONNECT ?? [] });
    return this.stream(id);
  }

  stream(id: number): Stream {
    const stream = this.side.streams.get(id);
    assert(stream !== undefined, `stream ${id} was not requested`);
    return stream;
  }

  accept(id = 1): Stream {
    const stream = this.request(id);
    this.side.connection.respond(stream, 200, []);
    this.said();
    this.told();
    return stream;
  }

  open(): Stream {
    const stream = this.side.connection.open("10.0.0.1:80", [], "owner");
    assert(stream !== undefined);
    return stream;
  }
}

function line(frame: Frame): string {
  const {
    type,
    flags = 0,
    stream = 0,
    settings,
    headers,
    increment,
    last,
    error,
    debug,
    hex,
  } = frame;
  const content = [
    settings?.map(([name, value]) => `${name}=${value}`).join(" "),
    headers?.map(([name, value]) => `${name}=${value}`).join(" "),
    increment,
    last,
    error,
    debug,
    hex,
  ].filter((part) => part !== undefined && part !== "");
  return [type, stream, ...(flags === 0 ? [] : ["flags", flags]), ...content].join(" ");
}

function data(stream: number, text: string, flags = 0): Frame {
  return { type: "DATA", flags, stream, hex: Buffer.from(text, "latin1").toString("hex") };
}

describe("the greeting", () => {
  for (const [name, role] of [
    ["serve", "client"],
    ["call", "server"],
  ] as const) {
    it(`of a ${role} is that of the original`, () => {
      const conversation = recordedConversations(name).find(({ frames }) =>
        frames.some(({ from, type }) => from === "proxy" && type === "WINDOW_UPDATE"),
      );
      const recorded = conversation?.frames.filter(
        ({ from, type, flags, stream }) =>
          from === "proxy" &&
          (type === "preface" || (stream === 0 && flags === 0 && type !== "PING")),
      );
      const headerListBytesMax = role === "client" ? 16_384 : 65_536;
      const side = new Side(role, { headerListBytesMax });
      side.connection.start();
      assert.deepEqual(new FrameReader(role).read(side.said()).map(line), recorded?.map(line));
    });
  }

  it("tells when the peer's settings have come, once", () => {
    const side = new Side("server");
    side.hear(PREFACE);
    assert.deepEqual(side.events, []);
    const settings = encodeFrame({ type: "SETTINGS", flags: 0, stream: 0, settings: [] });
    side.hear(settings);
    side.hear(settings);
    assert.deepEqual(side.events, ["settled"]);
  });
});

describe("a tunnel stream", () => {
  it("goes from request to answer, carries both ways and ends on both sides", () => {
    const [client, server] = [new Side("client"), new Side("server")];
    client.connection.start();
    server.connection.start();
    const outgoing = client.connection.open("10.0.0.1:80", [["baggage", "k=v"]], "mine");
    assert(outgoing !== undefined);
    assert.equal(outgoing.owner, "mine");
    converse(client, server);
    const incoming = server.streams.get(1);
    assert(incoming !== undefined);
    server.connection.respond(incoming, 200, [["baggage", "a=b"]]);
    converse(client, server);
    assert.equal(client.send(outgoing, Buffer.from("question")), 8);
    client.connection.end(outgoing);
    converse(client, server);
    assert.equal(server.send(incoming, Buffer.from("answer")), 6);
    server.connection.end(incoming);
    converse(client, server);
    assert.deepEqual(server.events, [
      "settled",
      "windows",
      "windows",
      'requested 1 CONNECT 10.0.0.1:80 {"baggage":"k=v"}',
      "data 1 question",
      "ended 1",
    ]);
    assert.deepEqual(client.events, [
      "settled",
      "windows",
      "windows",
      'responded 1 200 {"baggage":"a=b"}',
      "data 1 answer",
      "ended 1",
    ]);
    for (const stream of [outgoing, incoming]) assert.equal(stream.isClosed, true);
    assert.deepEqual([client.connection.streamCount, server.connection.streamCount], [0, 0]);
  });

  it("may be opened before the server has said a word", () => {
    const side = new Side("client");
    side.connection.start();
    assert(side.connection.open("10.0.0.1:80", [], "x") !== undefined);
    assert.deepEqual(
      new FrameReader("client").read(side.said()).map(({ type }) => type),
      ["preface", "SETTINGS", "WINDOW_UPDATE", "HEADERS"],
    );
  });

  it("joins repeated fields with a comma", () => {
    const talk = new Talk("server");
    talk.hear({
      type: "HEADERS",
      flags: FLAG.endHeaders,
      stream: 1,
      headers: [...(CONNECT ?? []), ["baggage", "a=1"], ["x", ""], ["baggage", "b=2"]],
    });
    assert.deepEqual(talk.told(), ['requested 1 CONNECT 10.0.0.1:80 {"baggage":"a=1,b=2","x":""}']);
  });

  it("is read from HEADERS with padding, priority and CONTINUATION", () => {
    const talk = new Talk("server");
    const block = encodeFrame({ type: "HEADERS", flags: 0, stream: 1, headers: CONNECT ?? [] })
      .subarray(9)
      .toString("hex");
    talk.hear(
      {
        type: "HEADERS",
        flags: 0x28,
        stream: 1,
        hex: `03 80000000ff ${block.slice(0, 20)} 000000`.replaceAll(" ", ""),
      },
      { type: "CONTINUATION", flags: 0, stream: 1, hex: block.slice(20, 30) },
      { type: "CONTINUATION", flags: FLAG.endHeaders, stream: 1, hex: block.slice(30) },
    );
    assert.deepEqual(talk.told(), ["requested 1 CONNECT 10.0.0.1:80 {}"]);
  });

  it("delivers padded payload without its padding and counts all of it", () => {
    const talk = new Talk("server", { streamWindowBytes: 100_000 });
    const stream = talk.accept();
    const padded = `ff${"61".repeat(1000)}${"00".repeat(255)}`;
    for (let i = 0; i < 60; i++) {
      talk.hear({ type: "DATA", flags: 0x8, stream: 1, hex: padded });
      talk.side.connection.taken(stream, 1000);
    }
    assert.deepEqual(talk.told(), [`data 1 ${"a".repeat(60_000)}`]);
    assert.deepEqual(talk.said(), ["WINDOW_UPDATE 1 50240"]);
  });

  it("that ends with its request can still be answered", () => {
    const talk = new Talk("server");
    const stream = talk.request(1, FLAG.endHeaders | FLAG.endStream);
    assert.deepEqual(talk.told(), ["requested 1 CONNECT 10.0.0.1:80 {}", "ended 1"]);
    talk.side.connection.respond(stream, 200, []);
    talk.side.connection.end(stream);
    assert.deepEqual(talk.said(), ["HEADERS 1 flags 4 :status=200", "DATA 1 flags 1"]);
    assert.equal(stream.isClosed, true);
  });

  it("is answered in several frames when the fields are long", () => {
    const [client, server] = [new Side("client"), new Side("server")];
    client.connection.start();
    server.connection.start();
    const value = "\xfe".repeat(15_000);
    client.connection.open(
      "10.0.0.1:80",
      [
        ["x", value],
        ["y", value],
      ],
      "",
    );
    converse(client, server);
    const headers = JSON.stringify({ x: value, y: value });
    assert.equal(server.events.at(-1), `requested 1 CONNECT 10.0.0.1:80 ${headers}`);
  });
});

describe("refusing", () => {
  for (const status of [400, 401, 503]) {
    it(`with ${status} is HEADERS with END_STREAM, then RST_STREAM(NO_ERROR)`, () => {
      const talk = new Talk("server");
      const stream = talk.request();
      talk.side.connection.refuse(stream, status);
      assert.deepEqual(talk.said(), [
        `HEADERS 1 flags 5 :status=${status}`,
        "RST_STREAM 1 NO_ERROR",
      ]);
      assert.equal(stream.isClosed, true);
      talk.told();
      talk.hear(data(1, "under way"), data(1, "", FLAG.endStream));
      assert.deepEqual([...talk.told(), ...talk.said()], []);
    });
  }

  it("needs no reset when the client has ended", () => {
    const talk = new Talk("server");
    talk.side.react.requested = (stream) => talk.side.connection.refuse(stream, 503);
    talk.request(1, FLAG.endHeaders | FLAG.endStream);
    assert.deepEqual(talk.said(), ["HEADERS 1 flags 5 :status=503"]);
    assert.deepEqual(talk.told(), ["requested 1 CONNECT 10.0.0.1:80 {}"]);
  });

  it("the client that is refused says CANCEL when it drops the stream", () => {
    const talk = new Talk("client");
    const stream = talk.open();
    talk.said();
    talk.hear({
      type: "HEADERS",
      flags: FLAG.endHeaders | FLAG.endStream,
      stream: 1,
      headers: [[":status", "503"]],
    });
    assert.deepEqual(talk.told(), ["responded 1 503 {}", "ended 1"]);
    talk.side.connection.drop(stream);
    assert.deepEqual(talk.said(), ["RST_STREAM 1 CANCEL"]);
  });
});

describe("malformed requests", () => {
  const BAD_FIELD = "a field that must not be, or stands in a wrong place";
  const cases: readonly (readonly [
    name: string,
    reason: string,
    headers: NonNullable<Frame["headers"]>,
  ])[] = [
    [
      "an empty :authority",
      "empty :authority",
      [
        [":method", "CONNECT"],
        [":authority", ""],
      ],
    ],
    [
      "CONNECT with :scheme and :path",
      "CONNECT with :scheme",
      [...(CONNECT ?? []), [":scheme", "https"], [":path", "/"]],
    ],
    [
      "extended CONNECT",
      "CONNECT with :protocol",
      [...(CONNECT ?? []), [":protocol", "websocket"], [":scheme", "https"], [":path", "/"]],
    ],
    ["no :method", "no :method", [[":authority", "10.0.0.1:80"]]],
    [
      "GET without :path",
      "GET without :path",
      [
        [":method", "GET"],
        [":scheme", "https"],
      ],
    ],
    ["two :authority", BAD_FIELD, [...(CONNECT ?? []), [":authority", "10.0.0.2:80"]]],
    ["a pseudo-header of answers", BAD_FIELD, [...(CONNECT ?? []), [":status", "200"]]],
    [
      "a pseudo-header behind a field",
      BAD_FIELD,
      [
        [":method", "CONNECT"],
        ["a", "b"],
        [":authority", "a:1"],
      ],
    ],
    ["an upper-case name", BAD_FIELD, [...(CONNECT ?? []), ["Baggage", "k=v"]]],
    ["an empty name", BAD_FIELD, [...(CONNECT ?? []), ["", "v"]]],
    ["a name with a space", BAD_FIELD, [...(CONNECT ?? []), ["a b", BAD_FIELD, "v"]]],
    ["a value with a line feed", BAD_FIELD, [...(CONNECT ?? []), ["a", "b\nc"]]],
    ["a value that begins with a space", BAD_FIELD, [...(CONNECT ?? []), ["a", " b"]]],
    ["connection: close", BAD_FIELD, [...(CONNECT ?? []), ["connection", "close"]]],
    ["te other than trailers", BAD_FIELD, [...(CONNECT ?? []), ["te", "gzip"]]],
  ];
  for (const [name, reason, headers] of cases) {
    it(`${name} is reset as PROTOCOL_ERROR`, () => {
      const talk = new Talk("server");
      talk.hear({ type: "HEADERS", flags: FLAG.endHeaders, stream: 1, headers });
      assert.deepEqual(talk.told(), [`malformed: ${reason}`]);
      assert.deepEqual(talk.said(), ["RST_STREAM 1 PROTOCOL_ERROR"]);
      talk.request(3);
      assert.deepEqual(talk.told(), ["requested 3 CONNECT 10.0.0.1:80 {}"]);
    });
  }

  it("CONNECT without :authority and other methods are for the proxy to judge", () => {
    const talk = new Talk("server");
    talk.hear(
      { type: "HEADERS", flags: FLAG.endHeaders, stream: 1, headers: [[":method", "CONNECT"]] },
      {
        type: "HEADERS",
        flags: FLAG.endHeaders,
        stream: 3,
        headers: [
          [":method", "GET"],
          [":scheme", "https"],
          [":path", "/"],
        ],
      },
    );
    assert.deepEqual(talk.told(), [
      "requested 1 CONNECT undefined {}",
      "requested 3 GET undefined {}",
    ]);
  });

  it("a header list above the limit is answered 431 and reset", () => {
    const talk = new Talk("server");
    const long = Array.from({ length: 18 }, (_, i) => [`x-${i}`, "v".repeat(4000)] as const);
    talk.hear({
      type: "HEADERS",
      flags: FLAG.endHeaders,
      stream: 1,
      headers: [...(CONNECT ?? []), ...long],
    });
    assert.deepEqual(
      [...talk.told(), ...talk.said()],
      [
        "malformed: header list above 65536 bytes",
        "HEADERS 1 flags 5 :status=431",
        "RST_STREAM 1 PROTOCOL_ERROR",
      ],
    );
    talk.request(3);
    assert.deepEqual(talk.told(), ["requested 3 CONNECT 10.0.0.1:80 {}"]);
  });

  it("streams beyond the limit are refused", () => {
    const talk = new Talk("server", { streamsMax: 1 });
    talk.accept();
    talk.hear({ type: "HEADERS", flags: FLAG.endHeaders, stream: 3, headers: CONNECT ?? [] });
    assert.deepEqual([...talk.told(), ...talk.said()], ["RST_STREAM 3 REFUSED_STREAM"]);
  });
});

describe("answers of a server", () => {
  it("interim ones are skipped", () => {
    const talk = new Talk("client");
    talk.open();
    for (const status of ["103", "200"]) {
      talk.hear({
        type: "HEADERS",
        flags: FLAG.endHeaders,
        stream: 1,
        headers: [[":status", status]],
      });
    }
    assert.deepEqual(talk.told(), ["responded 1 200 {}"]);
  });

  const bad: readonly (readonly [name: string, ...frames: Frame[]])[] = [
    ["no status", { type: "HEADERS", flags: 4, stream: 1, headers: [["a", "b"]] }],
    [
      "a status of two digits",
      { type: "HEADERS", flags: 4, stream: 1, headers: [[":status", "20"]] },
    ],
    [
      "an interim answer that ends",
      { type: "HEADERS", flags: 5, stream: 1, headers: [[":status", "103"]] },
    ],
    ["data before the answer", data(1, "x")],
    [
      "trailers of a tunnel",
      { type: "HEADERS", flags: 4, stream: 1, headers: [[":status", "200"]] },
      { type: "HEADERS", flags: 5, stream: 1, headers: [["a", "b"]] },
    ],
  ];
  for (const [name, ...frames] of bad) {
    it(`${name} is reset as PROTOCOL_ERROR`, () => {
      const talk = new Talk("client");
      talk.open();
      talk.said();
      talk.hear(...frames);
      assert.equal(talk.told().at(-1), "reset 1 1 by us");
      assert.deepEqual(talk.said(), ["RST_STREAM 1 PROTOCOL_ERROR"]);
    });
  }
});

describe("windows", () => {
  it("hold what is sent, for the stream and for the connection", () => {
    const talk = new Talk("client");
    const [one, two] = [talk.open(), talk.open()];
    const payload = new Uint8Array(100_000);
    assert.equal(talk.side.send(one, payload), 65_535);
    assert.equal(talk.side.send(two, payload), 0);
    talk.hear({ type: "WINDOW_UPDATE", stream: 0, increment: 10 });
    assert.equal(talk.side.connection.sendableBytes(one), 0);
    assert.equal(talk.side.connection.sendableBytes(two), 10);
    talk.hear({ type: "WINDOW_UPDATE", stream: 1, increment: 4 });
    assert.equal(talk.side.connection.sendableBytes(one), 4);
    assert.deepEqual(talk.told(), ["windows", "window 1"]);
  });

  it("of streams follow INITIAL_WINDOW_SIZE, also below zero", () => {
    const talk = new Talk("client");
    const stream = talk.open();
    talk.side.send(stream, new Uint8Array(1000));
    const resize = (size: number): void =>
      talk.hear({ type: "SETTINGS", stream: 0, settings: [["INITIAL_WINDOW_SIZE", size]] });
    resize(400);
    assert.equal(talk.side.connection.sendableBytes(stream), 0);
    talk.hear({ type: "WINDOW_UPDATE", stream: 1, increment: 600 });
    assert.equal(talk.side.connection.sendableBytes(stream), 0);
    talk.hear({ type: "WINDOW_UPDATE", stream: 1, increment: 1 });
    assert.equal(talk.side.connection.sendableBytes(stream), 1);
    resize(1000);
    assert.equal(talk.side.connection.sendableBytes(stream), 601);
    assert.deepEqual(talk.told(), ["windows", "window 1", "window 1", "windows"]);
  });

  it("cut payload into frames of the size that the peer takes", () => {
    const talk = new Talk("client");
    const stream = talk.open();
    talk.said();
    talk.side.send(stream, new Uint8Array(20_000));
    assert.deepEqual(
      talk.said().map((text) => (text.split(" ")[2] ?? "").length / 2),
      [16_384, 3616],
    );
    talk.hear({ type: "SETTINGS", stream: 0, settings: [["MAX_FRAME_SIZE", 1_000_000]] });
    talk.said();
    talk.side.send(stream, new Uint8Array(20_000));
    assert.equal(talk.said().length, 1);
  });

  it("a frame beyond them is a broken contract", () => {
    const talk = new Talk("client");
    const stream = talk.open();
    assert.throws(() => talk.side.connection.writeDataHeader(stream, 0, 16_385), {
      name: "InvariantError",
    });
  });

  it("give credit back in halves of the stream's and quarters of the connection's", () => {
    const talk = new Talk("server", { streamWindowBytes: 100_000, connectionWindowBytes: 160_000 });
    const stream = talk.accept();
    for (let i = 0; i < 8; i++) talk.hear(data(1, "x".repeat(10_000)));
    assert.deepEqual(talk.said(), []);
    talk.side.connection.taken(stream, 39_999);
    assert.deepEqual(talk.said(), []);
    talk.side.connection.taken(stream, 1);
    assert.deepEqual(talk.said(), ["WINDOW_UPDATE 0 40000"]);
    talk.side.connection.taken(stream, 10_000);
    assert.deepEqual(talk.said(), ["WINDOW_UPDATE 1 50000"]);
    talk.side.connection.taken(stream, 30_000);
    assert.deepEqual(talk.said(), ["WINDOW_UPDATE 0 40000"]);
  });

  it("no credit is given to a stream that has ended, but to its connection", () => {
    const talk = new Talk("server", { streamWindowBytes: 100_000, connectionWindowBytes: 100_000 });
    const stream = talk.accept();
    talk.hear(data(1, "x".repeat(60_000), FLAG.endStream));
    talk.side.connection.end(stream);
    talk.said();
    assert.equal(stream.isClosed, true);
    talk.side.connection.taken(stream, 60_000);
    assert.deepEqual(talk.said(), ["WINDOW_UPDATE 0 60000"]);
  });

  for (const how of ["drop", "peer"] as const) {
    it(`what was not taken of a stream is given back when it is gone (${how})`, () => {
      const talk = new Talk("server", { connectionWindowBytes: 100_000 });
      const stream = talk.accept();
      talk.hear(data(1, "x".repeat(60_000)));
      if (how === "drop") talk.side.connection.drop(stream);
      else talk.hear({ type: "RST_STREAM", stream: 1, error: "CANCEL" });
      assert.deepEqual(
        talk.said().filter((text) => text.startsWith("WINDOW")),
        ["WINDOW_UPDATE 0 60000"],
      );
      talk.side.connection.taken(stream, 60_000);
      talk.side.connection.drop(stream);
      assert.deepEqual(talk.said(), []);
    });
  }

  it("count what comes on a stream that we have reset", () => {
    const talk = new Talk("server", { connectionWindowBytes: 100_000 });
    talk.side.connection.reset(talk.accept(), ErrorCode.connectError);
    assert.deepEqual(talk.said(), ["RST_STREAM 1 CONNECT_ERROR"]);
    for (let i = 0; i < 20; i++) talk.hear(data(1, "x".repeat(10_000)));
    assert.equal(talk.side.failure, undefined);
    assert.deepEqual(talk.said(), Array(6).fill("WINDOW_UPDATE 0 30000"));
  });

  it("smaller than the default apply once the peer has agreed", () => {
    const side = new Side("server", { streamWindowBytes: 10 });
    side.hear(PREFACE);
    for (const frame of [
      { type: "SETTINGS", flags: 0, stream: 0, settings: [] },
      { type: "HEADERS", flags: 4, stream: 1, headers: CONNECT ?? [] },
      data(1, "x".repeat(100)),
      { type: "SETTINGS", flags: FLAG.ack, stream: 0, settings: [] },
      { type: "HEADERS", flags: 4, stream: 3, headers: CONNECT ?? [] },
      data(3, "x".repeat(11)),
      data(1, "", FLAG.endStream),
    ]) {
      side.hear(encodeFrame(frame));
    }
    assert.deepEqual(side.events.slice(1), [
      "requested 1 CONNECT 10.0.0.1:80 {}",
      `data 1 ${"x".repeat(100)}`,
      "requested 3 CONNECT 10.0.0.1:80 {}",
      "reset 3 3 by us",
      "ended 1",
    ]);
  });
});

describe("leaving a stream", () => {
  it("that is open says CANCEL", () => {
    const talk = new Talk("server");
    talk.side.connection.drop(talk.accept());
    assert.deepEqual(talk.said(), ["RST_STREAM 1 CANCEL"]);
  });

  it("says NO_ERROR where a server has said all", () => {
    const talk = new Talk("server");
    const stream = talk.accept();
    talk.side.connection.end(stream);
    talk.side.connection.drop(stream);
    talk.side.connection.drop(stream);
    assert.deepEqual(talk.said(), ["DATA 1 flags 1", "RST_STREAM 1 NO_ERROR"]);
  });

  it("tells the owner of the peer's reset, once, with its code", () => {
    const talk = new Talk("server");
    const stream = talk.accept();
    talk.hear({ type: "RST_STREAM", stream: 1, error: "CONNECT_ERROR" });
    talk.hear({ type: "RST_STREAM", stream: 1, error: "CONNECT_ERROR" });
    assert.deepEqual(talk.told(), ["reset 1 10 by peer"]);
    talk.side.connection.end(stream);
    talk.side.connection.reset(stream, 8);
    assert.equal(talk.side.connection.sendableBytes(stream), 0);
    assert.deepEqual(talk.said(), []);
  });

  it("within its own data gets none of the rest", () => {
    const talk = new Talk("server");
    const stream = talk.accept();
    talk.side.react.data = () => talk.side.connection.drop(stream);
    talk.side.hear(
      Buffer.concat([encodeFrame(data(1, "first")), encodeFrame(data(1, "second", 1))]),
    );
    assert.deepEqual(talk.told(), ["data 1 first"]);
  });
});

describe("going away", () => {
  it("a draining server serves what comes before the answer, then no more", () => {
    const talk = new Talk("server");
    const stream = talk.accept();
    talk.side.connection.drain();
    talk.side.connection.drain();
    assert.deepEqual(talk.said(), ["GOAWAY 0 2147483647 NO_ERROR", "PING 0 0b7ba2f08b9bfe54"]);
    const late = talk.accept(3);
    talk.hear({ type: "PING", flags: FLAG.ack, stream: 0, hex: "0b7ba2f08b9bfe54" });
    assert.deepEqual(talk.said(), ["GOAWAY 0 3 NO_ERROR"]);
    talk.hear(
      { type: "HEADERS", flags: FLAG.endHeaders, stream: 5, headers: CONNECT ?? [] },
      data(5, "lost"),
    );
    assert.deepEqual(talk.told(), []);
    // Instead of no answer at all: the client may ask somebody else at once.
    assert.deepEqual(talk.said(), ["RST_STREAM 5 REFUSED_STREAM"]);
    for (const one of [stream, late]) {
      talk.hear(data(one.id, "", FLAG.endStream));
      assert.equal(talk.side.failure, undefined);
      talk.side.connection.end(one);
    }
    assert.deepEqual(talk.told(), ["ended 1", "ended 3", "finished"]);
    assert.deepEqual(talk.said(), ["DATA 1 flags 1", "DATA 3 flags 1"]);
  });

  it("a draining server without streams ends with the answer", () => {
    const talk = new Talk("server");
    talk.side.connection.drain();
    talk.said();
    talk.hear({ type: "PING", flags: FLAG.ack, stream: 0, hex: "0b7ba2f08b9bfe54" });
    assert.deepEqual([...talk.said(), ...talk.told()], ["GOAWAY 0 0 NO_ERROR", "finished"]);
  });

  it("a closing client ends with its last stream", () => {
    const talk = new Talk("client");
    const stream = talk.open();
    talk.said();
    talk.side.connection.close();
    assert.equal(talk.side.connection.usable, false);
    assert.equal(talk.side.connection.open("a:1", [], ""), undefined);
    assert.deepEqual([...talk.said(), ...talk.told()], []);
    talk.side.connection.drop(stream);
    assert.deepEqual(talk.said(), ["RST_STREAM 1 CANCEL", "GOAWAY 0 0 NO_ERROR"]);
    assert.deepEqual(talk.told(), ["finished"]);
  });

  it("the peer's GOAWAY lets the streams that it knows go on", () => {
    const talk = new Talk("client");
    const [one] = [talk.open(), talk.open()];
    talk.said();
    talk.hear({ type: "GOAWAY", stream: 0, last: 1, error: "NO_ERROR" });
    assert.deepEqual(talk.told(), ["reset 3 7 by peer", "gone away 1 0"]);
    assert.equal(talk.side.connection.usable, false);
    talk.hear(
      { type: "HEADERS", flags: 4, stream: 1, headers: [[":status", "200"]] },
      data(1, "x", FLAG.endStream),
    );
    talk.side.connection.end(one);
    assert.deepEqual(talk.told(), ["responded 1 200 {}", "data 1 x", "ended 1", "finished"]);
    assert.deepEqual(talk.said(), ["DATA 1 flags 1", "GOAWAY 0 0 NO_ERROR"]);
  });

  it("a client's GOAWAY makes a server end with the last stream, as recorded", () => {
    const talk = new Talk("server");
    const stream = talk.accept();
    talk.hear({ type: "GOAWAY", stream: 0, last: 0, error: "NO_ERROR" }, data(1, "x", 1));
    talk.side.connection.end(stream);
    assert.deepEqual(talk.said(), ["DATA 1 flags 1", "GOAWAY 0 1 NO_ERROR"]);
    assert.deepEqual(talk.told(), ["gone away 0 0", "data 1 x", "ended 1", "finished"]);
  });

  it("the peer's reason is that of the failure", () => {
    const talk = new Talk("client");
    talk.hear({
      type: "GOAWAY",
      stream: 0,
      last: 0,
      error: "ENHANCE_YOUR_CALM",
      debug: "too_many",
    });
    assert.deepEqual(talk.side.failure, { code: 11, message: "too_many", by: "peer" });
  });

  it("nothing is said or told after the end", () => {
    const talk = new Talk("server");
    const stream = talk.accept();
    talk.hear({ type: "PING", stream: 1, hex: "0000000000000000" });
    assert.deepEqual(talk.told(), ["failed 1 by us: frame of type 6 on stream 1"]);
    assert.deepEqual(talk.said(), ["GOAWAY 0 1 PROTOCOL_ERROR frame of type 6 on stream 1"]);
    talk.hear(data(1, "x"));
    const { connection } = talk.side;
    assert.deepEqual([...connection.streams()], [stream]);
    connection.respond(stream, 200, []);
    connection.end(stream);
    connection.drop(stream);
    connection.taken(stream, 1);
    connection.ping();
    connection.drain();
    connection.close();
    connection.terminate(0);
    assert.deepEqual([...talk.told(), ...talk.said()], []);
  });

  it("a terminated connection says its reason and tells nothing", () => {
    const talk = new Talk("server");
    talk.accept();
    talk.side.connection.terminate(ErrorCode.noError);
    assert.deepEqual([...talk.said(), ...talk.told()], ["GOAWAY 0 1 NO_ERROR"]);
  });
});

describe("pings", () => {
  it("are answered with what they carry", () => {
    const talk = new Talk("server");
    talk.hear({ type: "PING", flags: 0, stream: 0, hex: "3132333435363738" });
    assert.deepEqual(talk.said(), ["PING 0 flags 1 3132333435363738"]);
  });

  it("of ours are one at a time, and their answer is told", () => {
    const talk = new Talk("client");
    talk.side.connection.ping();
    talk.side.connection.ping();
    assert.deepEqual(talk.said(), ["PING 0 3b7cdb7a0b8716b4"]);
    talk.hear({ type: "PING", flags: FLAG.ack, stream: 0, hex: "3132333435363738" });
    assert.deepEqual(talk.told(), []);
    talk.hear({ type: "PING", flags: FLAG.ack, stream: 0, hex: "3b7cdb7a0b8716b4" });
    assert.deepEqual(talk.told(), ["ponged"]);
    talk.side.connection.ping();
    assert.deepEqual(talk.said(), ["PING 0 3b7cdb7a0b8716b4"]);
  });
});

describe("limits of a client", () => {
  it("opens at most what it assumes, then what the server says", () => {
    const talk = new Talk("client", { streamsMax: 2 });
    const one = talk.open();
    talk.open();
    assert.equal(talk.side.connection.open("a:1", [], ""), undefined);
    talk.side.connection.drop(one);
    talk.hear({ type: "SETTINGS", stream: 0, settings: [["MAX_CONCURRENT_STREAMS", 1]] });
    assert.equal(talk.side.connection.streamsMax, 1);
    assert.equal(talk.side.connection.open("a:1", [], ""), undefined);
    talk.hear({ type: "SETTINGS", stream: 0, settings: [["MAX_CONCURRENT_STREAMS", 100]] });
    assert.equal(talk.side.connection.streamsMax, 2);
    talk.open();
  });
});
