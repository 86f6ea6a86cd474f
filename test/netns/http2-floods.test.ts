/**
 * The published floods of HTTP/2, sent to 15008 of the built daemon by a peer with a good
 * certificate. `test/http2/flood-limits.test.ts` has the exact limits of each.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { encodeFrame, FLAG, type Frame, FrameReader, PREFACE } from "../support/http2-frames.ts";
import { connectFrom, type LabServer, listenEcho, listenOn } from "../support/lab-application.ts";
import { labCertificate, workloadName } from "../support/lab-certificate.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { residentBytes } from "../support/proc.ts";
import { ADDRESS, APP_PORT, echoOnce, startTwoNodes } from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

/** Far more of each than is allowed. */
const ROUNDS = 12_000;
const SETTINGS: Frame = { type: "SETTINGS", flags: 0, stream: 0, settings: [] };

const POURING_PORT = 8099;
const UNREAD_STREAMS = 50;
const UNREAD_MS = 2000;
/** The daemon's own work beside it: pages of code, young objects. */
const RSS_GROWTH_MAX = 64 * 1024 * 1024;

const request = (stream: number, port = APP_PORT): Frame => ({
  type: "HEADERS",
  flags: FLAG.endHeaders,
  stream,
  headers: [
    [":method", "CONNECT"],
    [":authority", `${ADDRESS.server}:${port}`],
  ],
});

/** In the words of the GOAWAY → what is sent again and again. */
const FLOODS: Readonly<Record<string, (i: number) => readonly Frame[]>> = {
  "window dribble (CVE-2019-9511)": () => [{ type: "WINDOW_UPDATE", stream: 0, increment: 1 }],
  "ping flood (CVE-2019-9512)": () => [{ type: "PING", stream: 0, hex: "0000000000000000" }],
  "priority flood (CVE-2019-9513)": (i) => [
    { type: "PRIORITY", stream: 2 * i + 1, hex: "0000000000" },
  ],
  "resets provoked by bad frames (CVE-2019-9514, CVE-2025-8671)": (i) => [
    request(2 * i + 1),
    { type: "WINDOW_UPDATE", stream: 2 * i + 1, increment: 0 },
  ],
  "settings flood (CVE-2019-9515)": () => [SETTINGS],
  "empty frames flood (CVE-2019-9518)": (i) => [
    ...(i === 0 ? [request(1)] : []),
    { type: "DATA", stream: 1, hex: "" },
  ],
  "rapid reset (CVE-2023-44487)": (i) => [
    request(2 * i + 1),
    { type: "RST_STREAM", stream: 2 * i + 1, error: "CANCEL" },
  ],
  "too many CONTINUATION frames (CVE-2024-27316)": (i) => [
    i === 0 ? { ...request(1), flags: 0 } : { type: "CONTINUATION", stream: 1, hex: "" },
  ],
};

describe("floods of HTTP/2", { skip: requireNetns("iptables") }, () => {
  let lab: MeshLab;
  let echo: LabServer;
  let pouring: LabServer;

  before(async () => {
    lab = await startTwoNodes();
    echo = listenEcho(lab.host("server"), APP_PORT);
    pouring = listenOn(lab.host("server"), POURING_PORT, pour);
    await echoOnce(lab, "client", ADDRESS.server);
  });
  after(async () => {
    echo?.close();
    pouring?.close();
    await lab?.close();
  });

  for (const [words, round] of Object.entries(FLOODS)) {
    test(`${words} ends its tunnel and no other`, { timeout: 90_000 }, async () => {
      const socket = await dial(lab);
      const goaway = goawayOf(socket);
      socket.write(Buffer.concat([PREFACE, encodeFrame(SETTINGS)]));
      const flood = Array.from({ length: ROUNDS }, (_, i) => round(i).map(encodeFrame)).flat();
      socket.write(Buffer.concat(flood));
      assert.deepEqual(await goaway, { error: "ENHANCE_YOUR_CALM", words });
      socket.destroy();
      await echoOnce(lab, "client", ADDRESS.server);
    });
  }

  test("internal data buffering (CVE-2019-9517): what nobody reads is not kept", {
    timeout: 90_000,
  }, async () => {
    const pid = lab.node("node-b").process.pid as number;
    const rssBefore = residentBytes(pid);
    const socket = await dial(lab);
    socket.pause();
    const windows: Frame = {
      ...SETTINGS,
      settings: [["INITIAL_WINDOW_SIZE", 2 ** 31 - 1]],
    };
    const grant: Frame = { type: "WINDOW_UPDATE", stream: 0, increment: 2 ** 30 };
    const requests = Array.from({ length: UNREAD_STREAMS }, (_, i) =>
      request(2 * i + 1, POURING_PORT),
    );
    const frames = [windows, grant, ...requests].map(encodeFrame);
    socket.write(Buffer.concat([PREFACE, ...frames]));
    await waitUntil(() => pouring.peers.length === UNREAD_STREAMS, "not all are connected");
    await delay(UNREAD_MS);
    const growth = residentBytes(pid) - rssBefore;
    socket.destroy();
    assert.equal(pouring.peers.length, UNREAD_STREAMS);
    assert.ok(growth < RSS_GROWTH_MAX, `grew by ${growth} bytes`);
    await echoOnce(lab, "client", ADDRESS.server);
  });
});

/** Writes as much as it can. */
function pour(socket: Socket): void {
  const bytes = Buffer.alloc(65_536);
  const fill = (): void => {
    while (socket.writable && socket.write(bytes));
  };
  socket.on("drain", fill).resume();
  fill();
}

async function dial(lab: MeshLab): Promise<TLSSocket> {
  const certificate = await labCertificate(lab, workloadName("outside"));
  const socket = connectTls({
    socket: await connectFrom(lab.host("outside"), ADDRESS.server, 15008),
    ...certificate,
    checkServerIdentity: () => undefined,
    ALPNProtocols: ["h2"],
  });
  await once(socket, "secureConnect");
  socket.on("error", () => {});
  return socket;
}

/** The peer's last words. */
function goawayOf(socket: TLSSocket): Promise<Pick<Frame, "error"> & { words: string }> {
  const reader = new FrameReader("server");
  return new Promise((resolve, reject) => {
    socket.on("data", (chunk: Buffer) => {
      for (const frame of reader.read(chunk)) {
        if (frame.type !== "GOAWAY") continue;
        resolve({ error: frame.error ?? "", words: frame.debug ?? "" });
      }
    });
    socket.once("close", () => reject(new Error("closed without GOAWAY")));
  });
}
