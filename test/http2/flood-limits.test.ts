/** Peers that send much of what brings nothing: each published attack ends in ENHANCE_YOUR_CALM. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FLOOD_LIMITS, FloodGauge } from "../../src/http2/flood-gauge.ts";
import { encodeFrame, FLAG, type Frame, PREFACE } from "../support/http2-frames.ts";
import { Side } from "./side.ts";

const SETTINGS_FRAME: Frame = { type: "SETTINGS", flags: 0, stream: 0, settings: [] };
const connect = (stream: number): Frame => ({
  type: "HEADERS",
  flags: FLAG.endHeaders,
  stream,
  headers: [
    [":method", "CONNECT"],
    [":authority", "a:1"],
  ],
});

function server(): Side {
  const side = new Side("server");
  side.hear(PREFACE);
  side.hear(encodeFrame(SETTINGS_FRAME));
  return side;
}

/** How many rounds it takes until the connection ends. */
function roundsUntilEnd(side: Side, round: (i: number) => readonly Frame[], max = 20_000): number {
  for (let i = 0; i < max; i++) {
    for (const frame of round(i)) side.hear(encodeFrame(frame));
    side.said();
    if (side.failure !== undefined) return i + 1;
  }
  return Number.POSITIVE_INFINITY;
}

interface Attack {
  readonly name: string;
  readonly attack: RegExp;
  readonly rounds: number;
  readonly round: (i: number) => readonly Frame[];
}

const ATTACKS: readonly Attack[] = [
  {
    name: "settings",
    attack: /CVE-2019-9515/,
    rounds: FLOOD_LIMITS.settings.burst,
    round: () => [SETTINGS_FRAME],
  },
  {
    name: "acknowledgements of settings",
    attack: /CVE-2019-9515/,
    rounds: FLOOD_LIMITS.settings.burst,
    round: () => [{ ...SETTINGS_FRAME, flags: FLAG.ack }],
  },
  {
    name: "pings",
    attack: /CVE-2019-9512/,
    rounds: FLOOD_LIMITS.ping.burst + 1,
    round: () => [{ type: "PING", stream: 0, hex: "0000000000000000" }],
  },
  {
    name: "requests taken back",
    attack: /CVE-2023-44487/,
    rounds: FLOOD_LIMITS.unansweredReset.burst + 1,
    round: (i) => [connect(2 * i + 1), { type: "RST_STREAM", stream: 2 * i + 1, error: "CANCEL" }],
  },
  {
    name: "requests that we must reset",
    attack: /CVE-2025-8671/,
    rounds: FLOOD_LIMITS.provokedReset.burst + 1,
    round: (i) => [connect(2 * i + 1), { type: "WINDOW_UPDATE", stream: 2 * i + 1, increment: 0 }],
  },
  {
    name: "malformed requests",
    attack: /CVE-2019-9514/,
    rounds: FLOOD_LIMITS.provokedReset.burst + 1,
    round: (i) => [{ ...connect(2 * i + 1), headers: [["", ""]] }],
  },
  {
    name: "empty DATA",
    attack: /CVE-2019-9518/,
    rounds: FLOOD_LIMITS.emptyData.burst + 1,
    round: (i) => [...(i === 0 ? [connect(1)] : []), { type: "DATA", stream: 1, hex: "" }],
  },
  {
    name: "DATA of nothing but padding",
    attack: /CVE-2019-9518/,
    rounds: FLOOD_LIMITS.emptyData.burst + 1,
    round: (i) => [
      ...(i === 0 ? [connect(1)] : []),
      { type: "DATA", flags: 8, stream: 1, hex: "020000" },
    ],
  },
  {
    name: "priorities",
    attack: /CVE-2019-9513/,
    rounds: FLOOD_LIMITS.ignored.burst + 1,
    round: (i) => [{ type: "PRIORITY", stream: 2 * i + 1, hex: "0000000000" }],
  },
  {
    name: "crumbs of window",
    attack: /CVE-2019-9511/,
    rounds: FLOOD_LIMITS.smallWindow.burst + 1,
    round: () => [{ type: "WINDOW_UPDATE", stream: 0, increment: 1 }],
  },
];

describe("a flood of", () => {
  for (const { name, attack, rounds, round } of ATTACKS) {
    it(`${name} ends the connection after ${rounds} (${attack.source})`, () => {
      const side = server();
      assert.equal(roundsUntilEnd(side, round), rounds);
      assert.equal(side.failure?.code, 11);
      assert.match(side.failure.message, attack);
    });
  }

  it("CONTINUATION frames ends the connection, however short they are (CVE-2024-27316)", () => {
    const side = server();
    side.hear(encodeFrame({ ...connect(1), flags: 0 }));
    const rounds = roundsUntilEnd(side, () => [{ type: "CONTINUATION", stream: 1, hex: "" }]);
    assert.equal(rounds, 65);
    assert.equal(side.failure?.code, 11);
  });

  it("header bytes ends the connection before they are kept (CVE-2024-27316)", () => {
    const side = server();
    const part = "00".repeat(16_384);
    side.hear(encodeFrame({ type: "HEADERS", flags: 0, stream: 1, hex: part }));
    const rounds = roundsUntilEnd(side, () => [{ type: "CONTINUATION", stream: 1, hex: part }]);
    assert.equal(rounds, 8);
    assert.match(side.failure?.message ?? "", /header block above 131072 bytes/);
  });

  it("header blocks that never end do not keep a connection from its end (CVE-2024-27983)", () => {
    const side = server();
    side.hear(encodeFrame({ ...connect(1), flags: 0 }));
    side.hear(encodeFrame({ type: "CONTINUATION", stream: 1, hex: "" }).subarray(0, 5));
    side.connection.terminate(0);
    side.hear(encodeFrame({ type: "RST_STREAM", stream: 1, error: "CANCEL" }));
    assert.deepEqual(side.events, ["settled"]);
    assert.equal(side.connection.streamCount, 0);
  });

  it("empty header fields is cut off by the size of the list (CVE-2019-9516)", () => {
    const side = server();
    side.hear(encodeFrame({ type: "HEADERS", flags: 4, stream: 1, hex: "000000".repeat(20_000) }));
    assert.equal(side.failure, undefined);
    assert.deepEqual(side.events.slice(1), ["malformed: header list above 65536 bytes"]);
  });

  it("table references is cut off by the size of the list", () => {
    const side = server();
    const long = `40 01 61 7fa01e ${"62".repeat(3999)}`.replaceAll(" ", "");
    side.hear(encodeFrame({ type: "HEADERS", flags: 4, stream: 1, hex: long }));
    side.hear(encodeFrame({ type: "HEADERS", flags: 4, stream: 3, hex: "be".repeat(60_000) }));
    assert.equal(side.failure, undefined);
  });

  it("settings in one frame ends the connection (CVE-2019-9515)", () => {
    const side = server();
    const settings = Array.from({ length: 65 }, () => ["INITIAL_WINDOW_SIZE", 1] as const);
    side.hear(encodeFrame({ ...SETTINGS_FRAME, settings }));
    assert.equal(side.failure?.code, 11);
  });
});

describe("good use", () => {
  it("is no flood: connections that open and end as fast as they can", () => {
    const side = server();
    side.react.requested = (stream) => side.connection.respond(stream, 200, []);
    side.react.ended = (stream) => side.connection.end(stream);
    const rounds = roundsUntilEnd(side, (i) => [
      connect(2 * i + 1),
      { type: "DATA", flags: FLAG.endStream, stream: 2 * i + 1, hex: "61" },
    ]);
    assert.equal(rounds, Number.POSITIVE_INFINITY);
  });

  it("is no flood: applications that reset what was answered", () => {
    const side = server();
    side.react.requested = (stream) => side.connection.respond(stream, 200, []);
    const rounds = roundsUntilEnd(side, (i) => [
      connect(2 * i + 1),
      { type: "RST_STREAM", stream: 2 * i + 1, error: "CONNECT_ERROR" },
    ]);
    assert.equal(rounds, Number.POSITIVE_INFINITY);
  });

  it("is no flood: pings at the rate of the allowance, for an hour", () => {
    const side = server();
    const rounds = roundsUntilEnd(
      side,
      () => {
        side.now += 200;
        return [{ type: "PING", stream: 0, hex: "0000000000000000" }];
      },
      18_000,
    );
    assert.equal(rounds, Number.POSITIVE_INFINITY);
  });
});

describe("the allowance", () => {
  it("of an operator counts for all kinds", () => {
    const side = new Side("server", { floodPercent: 300 });
    side.hear(PREFACE);
    const rounds = roundsUntilEnd(side, () => [SETTINGS_FRAME]);
    assert.equal(rounds, 3 * FLOOD_LIMITS.settings.burst + 1);
  });

  it("of a kind does not touch that of another, and refills to its start", () => {
    const gauge = new FloodGauge();
    const { burst, perSecond } = FLOOD_LIMITS.ping;
    const take = (now: number): number => {
      let count = 0;
      gauge.advance(now);
      while (gauge.charge("ping")) count += 1;
      return count;
    };
    assert.equal(take(5), burst);
    assert.equal(gauge.charge("settings"), true);
    assert.equal(take(1005), perSecond);
    assert.equal(take(10_000_000), burst);
  });
});
