import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type CapturedFlow, WireCapture } from "../../src/embedded/wire-capture.ts";
import { formatHostPort } from "../../src/mesh/socket-address.ts";
import { native } from "../../src/net/native.ts";
import { Netns } from "../../src/net/netns.ts";
import { connectFrom } from "../support/lab-application.ts";
import { NetnsLab, requireNetns } from "../support/netns-lab.ts";

const skip = requireNetns();
const PORT = 8080;
const MARKER = "swordfish";

/** Where the server is, by family. */
const SERVER = { ipv4: "10.77.0.2", ipv6: "fd77::2" } as const;

/** Sends the chunks, one segment each, and gives what the capture saw of that direction. */
async function captured(
  t: TestContext,
  family: keyof typeof SERVER,
  chunks: readonly Buffer[],
): Promise<{ flow: CapturedFlow | undefined; markerCount: number }> {
  const lab = new NetnsLab();
  t.after(() => lab.close());
  const clientHost = lab.addHost("client", { ipv4: "10.77.0.1/24", ipv6: "fd77::1/64" });
  const addresses = { ipv4: `${SERVER.ipv4}/24`, ipv6: `${SERVER.ipv6}/64` };
  const server = Netns.open(lab.addHost("server", addresses).path);
  t.after(() => server.close());
  const { fd } = native.socketInNamespace({
    netnsFd: server.fd,
    family,
    type: "stream",
    bind: { ip: family === "ipv4" ? "0.0.0.0" : "::", port: PORT },
    listenBacklog: 1,
  });
  const listener = createServer((socket) => void socket.resume().on("end", () => socket.end()));
  listener.listen({ fd });
  t.after(() => void listener.close());
  // The bridge forwards each frame: it is seen coming in and going out.
  const wire = Netns.open(clientHost.path.replace(/client$/, "bridge"));
  t.after(() => wire.close());
  const capture = new WireCapture(wire, MARKER);
  try {
    const socket = await connectFrom(clientHost, SERVER[family], PORT);
    socket.setNoDelay();
    for (const chunk of chunks) {
      socket.write(chunk);
      await delay(20);
    }
    socket.end().resume();
    await once(socket, "close");
  } finally {
    capture.close();
  }
  const expected = formatHostPort(SERVER[family], PORT);
  const flow = capture.flows.find(({ destination }) => destination === expected);
  return { flow, markerCount: capture.markerCount };
}

function record(type: number, bodyBytes: number): Buffer {
  const header = Buffer.from([type, 3, 3, bodyBytes >> 8, bodyBytes & 255]);
  return Buffer.concat([header, Buffer.alloc(bodyBytes, 0xaa)]);
}

for (const family of ["ipv4", "ipv6"] as const) {
  test(`${family}: TLS records are counted once, however they are cut into segments`, {
    skip,
  }, async (t) => {
    const bytes = Buffer.concat([
      record(22, 300),
      record(20, 1),
      record(23, 900),
      record(23, 4000),
    ]);
    const cuts = [0, 3, 310, 312, 800, 1400, bytes.length];
    const chunks = cuts.slice(1).map((end, i) => bytes.subarray(cuts[i], end));
    const { flow, markerCount } = await captured(t, family, chunks);
    assert.equal(flow?.byteCount, bytes.length);
    assert.equal(flow?.isTls, true);
    assert.equal(flow?.handshakeCount, 1);
    assert.equal(flow?.applicationDataCount, 2);
    assert.equal(markerCount, 0);
  });

  test(`${family}: plaintext is recognised and its text found`, { skip }, async (t) => {
    const { flow, markerCount } = await captured(t, family, [
      Buffer.from("GET / HTTP/1.1\r\n"),
      Buffer.from(`password: ${MARKER}\r\n`),
    ]);
    assert.equal(flow?.isTls, false);
    assert.equal(markerCount, 1);
  });
}
