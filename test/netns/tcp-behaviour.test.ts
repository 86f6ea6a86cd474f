/**
 * What applications notice of TCP through the proxies: the same as without them. Each case of the
 * table is played on the direct path and on each of ours, and what was noticed is printed.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { connectFrom, listenEcho } from "../support/lab-application.ts";
import type { MeshLab } from "../support/mesh-lab.ts";
import { requireNetns } from "../support/netns-lab.ts";
import { TCP_CASES, type TcpCase } from "../support/tcp-cases.ts";
import {
  ADDRESS,
  APP_PORT,
  kernelView,
  PATHS,
  type Pair,
  PairMaker,
  pingPong,
  readingEnd,
  startTwoNodes,
} from "../support/two-nodes.ts";
import { waitUntil } from "../support/wait-until.ts";

/** A connection that hangs fails its own case, not the file. */
const TIMEOUT_MS = 150_000;
/** When a case counts as hanging; a busy machine is slow. */
const HANG_MS = 60_000;

/** Who calls whom without a proxy between them. */
const DIRECT = { from: "outside", to: "elsewhere" } as const;
const ALL_PATHS = { direct: DIRECT, ...PATHS } as const;

const PARALLEL_COUNT = 100;
const RESET_COUNT = 60;

type Role = keyof Pair;
const ROLES: readonly Role[] = ["client", "server"];

describe("TCP through the proxies", { skip: requireNetns("iptables", "ss") }, () => {
  let lab: MeshLab;

  before(async () => {
    lab = await startTwoNodes();
    lab.addHost(DIRECT.to, "10.66.0.34");
  });
  after(() => lab?.close());

  for (const tcpCase of TCP_CASES) {
    for (const role of tcpCase.isSymmetric ? ROLES.slice(0, 1) : ROLES) {
      test(`the ${role} ${tcpCase.what}`, { timeout: TIMEOUT_MS }, async (t) => {
        const paths = Object.entries(ALL_PATHS);
        // Side by side, because most cases wait; each with its own port.
        const noticed = await Promise.all(
          paths.map(async ([name, path], i) => [
            name,
            await playOn(lab, { ...path, port: APP_PORT + i }, role, tcpCase),
          ]),
        );
        for (const [name, words] of noticed) t.diagnostic(`${name}: ${words}`);
        const expected = paths.map(([name]) => [name, tcpCase.noticed]);
        assert.deepEqual(noticed, expected);
      });
    }
  }

  // A reset may overtake data, which once in a hundred times left the other side untold.
  test(`a reset in the middle of sending is noticed ${RESET_COUNT} times of ${RESET_COUNT}`, async () => {
    const tcpCase = TCP_CASES.find(({ what }) => what === "resets in the middle of its sending");
    assert.ok(tcpCase !== undefined);
    for (let i = 0; i < RESET_COUNT; i++) {
      const noticed: readonly string[] = await Promise.all(
        Object.values(PATHS).map((path, at) =>
          playOn(lab, { ...path, port: APP_PORT + at }, "client", tcpCase),
        ),
      );
      assert.deepEqual(new Set(noticed), new Set([tcpCase.noticed]), `round ${i}`);
    }
  });

  for (const [name, { from, to }] of Object.entries(ALL_PATHS)) {
    test(`${PARALLEL_COUNT} connections at once keep their bytes apart: ${name}`, async () => {
      const echo = listenEcho(lab.host(to), APP_PORT);
      const heard = await Promise.all(
        Array.from({ length: PARALLEL_COUNT }, async (_, index) => {
          const socket = await connectFrom(lab.host(from), lab.host(to).ipv4, APP_PORT);
          const said = Buffer.alloc(50_000 + index, index);
          socket.end(said);
          const pieces: Buffer[] = await socket.toArray();
          return Buffer.concat(pieces).equals(said);
        }),
      );
      echo.close();
      assert.equal(heard.filter((isRight) => isRight).length, PARALLEL_COUNT);
    });
  }

  // Who is captured talks to a proxy, which only then dials: what can't be had is told afterwards.
  test("a port where nobody listens refuses, through a proxy after the connect", async () => {
    for (const [name, { from, to }] of Object.entries(ALL_PATHS)) {
      const call = connectFrom(lab.host(from), lab.host(to).ipv4, APP_PORT + 99).then((socket) => {
        socket.write("hello");
        return readingEnd(socket);
      });
      const seen = await call.catch((error: NodeJS.ErrnoException) => `connect: ${error.code}`);
      // EOF if the refusal was sooner than the client's word.
      if (name === "direct") assert.equal(seen, "connect: ECONNREFUSED");
      else assert.match(seen, /^(ECONNRESET|EOF)$/, name);
    }
  });

  test("a client that may not call is cut off, and the server never hears of it", async () => {
    const echo = listenEcho(lab.host("guarded"), APP_PORT);
    const socket = await connectFrom(lab.host("client"), ADDRESS.guarded, APP_PORT);
    socket.write("hello");
    // EOF if the denial was sooner than the client's word.
    assert.match(await readingEnd(socket), /^(ECONNRESET|EOF)$/);
    assert.deepEqual(echo.peers, []);
    const friend = await connectFrom(lab.host("friend"), ADDRESS.guarded, APP_PORT);
    await pingPong(friend);
    friend.destroy();
    echo.close();
  });
});

/** @returns what was noticed, also when that is nothing for too long. */
async function playOn(
  lab: MeshLab,
  path: { readonly from: string; readonly to: string; readonly port: number },
  role: Role,
  tcpCase: TcpCase,
): Promise<string> {
  const pairs = new PairMaker(lab, path, path.port);
  const tooLong = new AbortController();
  try {
    const { client, server } = await pairs.make();
    const ends = {
      client: { socket: client, sees: kernelView(lab, lab.host(path.from), client) },
      server: { socket: server, sees: kernelView(lab, lab.host(path.to), server) },
    };
    const [one, other] =
      role === "client" ? [ends.client, ends.server] : [ends.server, ends.client];
    const playing = tcpCase.play({
      one: one.socket,
      other: other.socket,
      oneHasUnread: () => waitUntil(() => /^\S+ +[1-9]/.test(one.sees()), "nothing came", HANG_MS),
      otherIsTold: () => waitUntil(() => other.sees() === "", "is not told", HANG_MS),
    });
    return await Promise.race([
      playing.catch((error: Error) => error.message),
      delay(HANG_MS, "hangs", tooLong),
    ]);
  } finally {
    tooLong.abort();
    pairs.close();
  }
}
