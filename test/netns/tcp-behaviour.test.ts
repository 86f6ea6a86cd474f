/** What applications notice of TCP through the proxies, on each path: it should be nothing. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { connectFrom, listenEcho } from "../support/lab-application.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import {
  ADDRESS,
  APP_PORT,
  PATHS,
  type Pair,
  PairMaker,
  type PathName,
  pingPong,
  readingEnd,
  startTwoNodes,
  talk,
} from "../support/two-nodes.ts";

const MB = 1024 * 1024;
const PARALLEL_COUNT = 100;
/** A connection that hangs fails its own test, not the file. */
const TIMEOUT_MS = 20_000;

const block: Buffer = randomBytes(MB);

const SIDES: Readonly<Record<string, (pair: Pair) => { ending: Socket; other: Socket }>> = {
  "the client": ({ client, server }) => ({ ending: client, other: server }),
  "the server": ({ client, server }) => ({ ending: server, other: client }),
};

describe("TCP through the proxies", { skip: requireNetns("iptables") }, () => {
  let lab: MeshLab;

  before(async () => {
    lab = await startTwoNodes();
  });
  after(() => lab?.close());

  for (const path of Object.keys(PATHS) as PathName[]) {
    describe(path, () => {
      let pairs: PairMaker;

      before(() => {
        pairs = new PairMaker(lab, PATHS[path]);
      });
      after(() => pairs?.close());

      for (const [first, ends] of Object.entries(SIDES)) {
        const title = `${first} ends its direction first and still receives 8 MB`;
        test(title, { timeout: TIMEOUT_MS }, async () => {
          const { ending, other } = ends(await pairs.make());
          ending.end();
          assert.equal(await readingEnd(other), "EOF");
          const received = digestOf(ending);
          assert.equal(await send(other, 8), await received);
        });

        for (const when of ["before any data", "after data"]) {
          test(`${first} resets ${when} and the other side sees a reset`, {
            timeout: TIMEOUT_MS,
          }, async () => {
            const pair = await pairs.make();
            if (when === "after data") await talk(pair);
            const { ending, other } = ends(pair);
            const end = readingEnd(other);
            ending.resetAndDestroy();
            assert.equal(await end, "ECONNRESET");
          });
        }

        test(`nothing is lost of what ${first} says right before it closes`, {
          timeout: TIMEOUT_MS,
        }, async () => {
          for (const size of [1, 10_000, MB]) {
            const { ending, other } = ends(await pairs.make());
            const received = digestOf(other);
            ending.write(block.subarray(0, size));
            // Closes both directions at once when the bytes are out.
            ending.destroySoon();
            assert.equal(await received, digest(block.subarray(0, size)), `${size} bytes`);
            other.destroy();
          }
        });
      }

      test("64 MB go each way at once", { timeout: 2 * TIMEOUT_MS }, async (t) => {
        const { client, server } = await pairs.make();
        const startedAt = performance.now();
        const received = [digestOf(client), digestOf(server)];
        const sent = await Promise.all([send(server, 64), send(client, 64)]);
        assert.deepEqual(await Promise.all(received), sent);
        const seconds = (performance.now() - startedAt) / 1000;
        t.diagnostic(`${path}: 128 MB in ${seconds.toFixed(2)} s`);
      });

      test(`${PARALLEL_COUNT} connections at once keep their bytes apart`, {
        timeout: TIMEOUT_MS,
      }, async () => {
        pairs.close();
        const echo = listenEcho(lab.host(PATHS[path].to), APP_PORT);
        const results = await Promise.all(
          Array.from({ length: PARALLEL_COUNT }, async (_, index) => {
            const ip = ADDRESS[PATHS[path].to];
            const socket = await connectFrom(lab.host(PATHS[path].from), ip, APP_PORT);
            const said = Buffer.concat([Buffer.from([index]), block.subarray(index, 100_000)]);
            const heard = digestOf(socket);
            socket.end(said);
            return (await heard) === digest(said);
          }),
        );
        echo.close();
        assert.equal(results.filter((isRight) => isRight).length, PARALLEL_COUNT);
      });
    });
  }

  test("a client that may not call sees a reset", { timeout: TIMEOUT_MS }, async () => {
    const echo = listenEcho(lab.host("guarded"), APP_PORT);
    const socket = await connectFrom(lab.host("client"), ADDRESS.guarded, APP_PORT);
    socket.write("hello");
    assert.equal(await readingEnd(socket), "ECONNRESET");
    assert.deepEqual(echo.peers, []);
    const friend = await connectFrom(lab.host("friend"), ADDRESS.guarded, APP_PORT);
    await pingPong(friend);
    friend.destroy();
    echo.close();
  });
});

/** Sends whole blocks and ends the direction. @returns the digest of what was sent. */
async function send(socket: Socket, blockCount: number): Promise<string> {
  const hash = createHash("sha1");
  for (let i = 0; i < blockCount; i++) {
    hash.update(block);
    const isRoomLeft = socket.write(block);
    if (!isRoomLeft) await new Promise((resolve) => socket.once("drain", resolve));
  }
  socket.end();
  return hash.digest("hex");
}

/** Of everything until EOF. Rejects with the socket's error. */
function digestOf(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    const hash = createHash("sha1");
    socket.on("data", (chunk: Buffer) => hash.update(chunk));
    socket.once("end", () => resolve(hash.digest("hex")));
    socket.once("error", reject);
  });
}

function digest(bytes: Buffer): string {
  return createHash("sha1").update(bytes).digest("hex");
}
