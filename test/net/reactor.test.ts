import assert from "node:assert/strict";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { connect as connectTcp } from "node:net";
import { constants } from "node:os";
import { performance } from "node:perf_hooks";
import { after, afterEach, beforeEach, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { addon } from "../../src/net/addon.ts";
import { native } from "../../src/net/native.ts";
import {
  createReactor,
  EVENT,
  HEADROOM_BYTES,
  OPERATION,
  type ReactorOptions,
} from "../../src/net/reactor.ts";
import { reactorMemory } from "../../src/net/reactor-memory.ts";
import { decodeSockaddr, SOCKADDR_BYTES } from "../../src/net/sockaddr.ts";
import { readTcpInfo, TCP_CLOSE_WAIT, type TcpInfo } from "../../src/net/tcp-info.ts";
import { LeakCheck } from "../support/leak-check.ts";
import { emptyBesideOthers, LAB_OPTIONS, pattern, ReactorLab } from "../support/reactor-lab.ts";

const MIB = 1024 * 1024;

const bare = addon as Record<string, (...args: unknown[]) => unknown>;

const fileLeaks = new LeakCheck();
after(() => fileLeaks.assertNone());

let leaks: LeakCheck;
let lab: ReactorLab;
beforeEach(() => {
  leaks = new LeakCheck();
  lab = new ReactorLab();
});
afterEach(async () => {
  lab.close();
  await leaks.assertNone();
});

describe("connections", () => {
  for (const ip of ["127.0.0.1", "::1"]) {
    test(`are accepted, opened and echo both ways over ${ip}`, async () => {
      const listener = lab.listen(ip);
      const near = lab.connect(listener.port, ip);
      await lab.expect(near, "OPEN");
      const accepted = await lab.expect(listener.id, "ACCEPT");
      const far = accepted.a;
      const { port } = native.localAddress(lab.reactor.fdOf(near));
      assert.deepEqual(decodeSockaddr(accepted.bytes), { ip, port });
      assert.equal(decodeSockaddr(accepted.bytes, SOCKADDR_BYTES), undefined);
      lab.allow(near);
      lab.allow(far);
      lab.write(near, "ping");
      assert.equal((await lab.read(far, 4)).toString(), "ping");
      lab.write(far, "pong");
      assert.equal((await lab.read(near, 4)).toString(), "pong");
    });
  }

  test("know their descriptor, by which the kernel can be asked", async () => {
    const listener = lab.listen();
    const { near, far } = await lab.pair(listener);
    const peer = native.peerAddress(lab.reactor.fdOf(near));
    assert.deepEqual(peer, { ip: "127.0.0.1", port: listener.port });
    assert.deepEqual(native.localAddress(lab.reactor.fdOf(far)), peer);
  });

  test("leave room for a frame header in front of what is read", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.allow(far);
    lab.write(near, "x");
    assert((await lab.expect(far, "DATA")).a >= HEADROOM_BYTES);
  });

  test("end in halves: what follows the end of one direction still arrives", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.allow(near);
    lab.allow(far);
    lab.write(near, "question");
    lab.perform("END", near);
    assert.equal((await lab.read(far, 8)).toString(), "question");
    await lab.expect(far, "EOF");
    lab.write(far, "answer");
    lab.perform("END", far);
    assert.equal((await lab.read(near, 6)).toString(), "answer");
    await lab.expect(near, "EOF");
  });

  test("are accepted in several turns when many wait", async () => {
    const listener = lab.listen();
    const nears = Array.from({ length: 40 }, () => lab.connect(listener.port));
    for (const near of nears) await lab.expect(near, "OPEN");
    const ids = new Set<number>();
    for (let i = 0; i < 40; i++) ids.add((await lab.expect(listener.id, "ACCEPT")).a);
    assert.equal(ids.size, 40);
    assert(lab.turns.every((count) => count <= LAB_OPTIONS.eventsMax));
  });

  test("that are too many wait until accepting resumes", async () => {
    lab.close();
    const small = new ReactorLab({ connectionsMax: 2 });
    try {
      const listener = small.listen();
      const clients = [1, 2].map(() => connectTcp(listener.port, "127.0.0.1"));
      for (const client of clients) client.on("error", () => {});
      const first = (await small.expect(listener.id, "ACCEPT")).a;
      assert.equal((await small.expect(listener.id, "ERROR")).text, "EMFILE");
      small.perform("CLOSE", first);
      small.perform("RESUME", listener.id);
      await small.expect(listener.id, "ACCEPT");
      for (const client of clients) client.destroy();
    } finally {
      small.close();
    }
  });
});

describe("a pair of connections", () => {
  test("is open, ends in halves, and one end notices how the other closes", async () => {
    const [near, far] = lab.reactor.pair();
    lab.allow(near);
    lab.allow(far);
    lab.write(near, pattern(1_000_000));
    assert.deepEqual(await lab.read(far, 1_000_000), pattern(1_000_000));
    lab.perform("END", near);
    await lab.expect(far, "EOF");
    lab.write(far, "answer");
    assert.equal((await lab.read(near, 6)).toString(), "answer");
    lab.perform("CLOSE", far);
    await lab.expect(near, "EOF");
    lab.perform("CLOSE", near);
  });

  test("counts as two, both or none", async () => {
    lab.close();
    const small = new ReactorLab({ connectionsMax: 3 });
    try {
      const [near, far] = small.reactor.pair();
      assert.throws(() => small.reactor.pair(), { code: "EMFILE" });
      small.perform("CLOSE", near);
      small.perform("CLOSE", far);
      small.reactor.pair();
    } finally {
      small.close();
    }
  });
});

describe("what the kernel knows of a connection", () => {
  test("counts bytes that came, and tells an end", async () => {
    const { near, far } = await lab.pair(lab.listen());
    const ofFar = (): TcpInfo => readTcpInfo(native, lab.reactor.fdOf(far));
    lab.allow(far);
    lab.write(near, pattern(100_000));
    await lab.read(far, 100_000);
    assert.equal(ofFar().receivedBytes, 100_000);
    assert.notEqual(ofFar().state, TCP_CLOSE_WAIT);
    lab.perform("END", near);
    await lab.expect(far, "EOF");
    assert.equal(ofFar().state, TCP_CLOSE_WAIT);
  });

  test("is nothing for what is no TCP", () => {
    const file = openSync("/dev/null", "r");
    try {
      assert.throws(() => readTcpInfo(native, file), { code: "ENOTSOCK" });
    } finally {
      closeSync(file);
    }
  });
});

describe("failures", () => {
  test("a refused connect is an error with its errno", async () => {
    // Taken, so that nobody else listens there meanwhile.
    const bind = { ip: "127.0.0.1", port: 0 };
    const { fd } = native.socketInNamespace({ family: "ipv4", type: "stream", bind });
    const event = await lab.expect(lab.connect(native.localAddress(fd).port), "ERROR");
    closeSync(fd);
    assert.deepEqual([event.a, event.text], [111, "ECONNREFUSED"]);
  });

  test("a connect that fails at once throws, and the descriptor stays the caller's", () => {
    const { fd } = native.socketInNamespace({ family: "ipv4", type: "stream" });
    assert.throws(() => lab.reactor.connect(fd, "255.255.255.255", 1), { code: "ENETUNREACH" });
    closeSync(fd);
  });

  for (const [name, whose] of [
    ["the accepting side", "far"],
    ["the connecting side", "near"],
  ] as const) {
    test(`a reset by ${name} reaches the other as ECONNRESET`, async () => {
      const pair = await lab.pair(lab.listen());
      const other = whose === "far" ? pair.near : pair.far;
      lab.allow(other);
      lab.perform("RESET", pair[whose]);
      assert.equal((await lab.expect(other, "ERROR")).text, "ECONNRESET");
    });
  }

  test("a reset is noticed while nothing is read, and told once", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.allow(far);
    lab.allow(far, 0);
    lab.perform("RESET", near);
    assert.equal((await lab.expect(far, "ERROR")).text, "ECONNRESET");
    await quiet();
    assert.deepEqual(lab.unseen(far), []);
  });

  test("unread bytes make a close a reset", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.write(near, "unwanted");
    lab.allow(near);
    await arrived(far, 8);
    lab.perform("CLOSE", far);
    assert.equal((await lab.expect(near, "ERROR")).text, "ECONNRESET");
  });

  test("a write to a connection that was reset is told after the call, not from inside it", async () => {
    const { near, far } = await lab.pair(lab.listen());
    // On loopback the reset has arrived when the call returns; the loop has not seen it.
    lab.perform("RESET", far);
    lab.write(near, "x");
    assert.deepEqual(lab.unseen(near), []);
    assert.match((await lab.expect(near, "ERROR")).text, /^(EPIPE|ECONNRESET)$/);
    const stale = lab.reactor.pending[0] ?? 0;
    lab.write(near, "y");
    assert.equal(lab.reactor.pending[0], stale + 1);
  });

  test("a queue that grows beyond its limit fails its connection", async () => {
    lab.close();
    const small = new ReactorLab({ queueBytesMax: 100_000 });
    try {
      const { near } = await small.pair(small.listen());
      const zeros = new Uint8Array(60_000);
      for (let i = 0; i < 300; i++) small.write(near, zeros);
      assert.equal((await small.expect(near, "ERROR")).text, "ENOBUFS");
      assert.equal(small.pending(near), 0);
    } finally {
      small.close();
    }
  });
});

describe("back pressure", () => {
  test("a big transfer waits in the queue, drains and arrives whole", async () => {
    const { near, far } = await lab.pair(lab.listen());
    const sent = pattern(16 * MIB);
    lab.write(near, sent);
    assert(lab.pending(near) > 0);
    lab.perform("END", near);
    lab.allow(far);
    assert.deepEqual(await lab.read(far, sent.length), sent);
    await lab.expect(far, "EOF");
    await lab.expect(near, "DRAIN");
    assert.equal(lab.pending(near), 0);
  });

  test("what the turn of others adds to a queue does not keep it waiting", async () => {
    const ends = await lab.pair(lab.listen());
    for (const id of [ends.near, ends.far]) lab.allow(id);
    await emptyBesideOthers(lab, ends, 16 * MIB);
  });

  test("a relay that holds its source when its sink is slow passes every byte on", async () => {
    const [from, to] = [await lab.pair(lab.listen()), await lab.pair(lab.listen())];
    let isHeld = false;
    lab.during = (event) => {
      if (event.kind === "DATA" && event.id === from.far) {
        lab.queue("WRITE", to.near, event.a, event.b);
        if (lab.pending(to.near) > 0) {
          isHeld = true;
          lab.reactor.credit[from.far & 0xffff] = 0;
        }
      }
      if (event.kind === "DRAIN" && event.id === to.near && isHeld) {
        isHeld = false;
        lab.reactor.credit[from.far & 0xffff] = LAB_OPTIONS.plainReadBytes;
        lab.queue("RESUME", from.far);
      }
      if (event.kind === "EOF" && event.id === from.far) lab.queue("END", to.near);
    };
    const sent = pattern(24 * MIB);
    lab.allow(from.far);
    lab.write(from.near, sent);
    lab.perform("END", from.near);
    lab.allow(to.far);
    assert.deepEqual(await lab.read(to.far, sent.length), sent);
    await lab.expect(to.far, "EOF");
  });

  test("several writes of a turn reach a socket in order, whole and together", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.allow(far);
    lab.reactor.arena.set(Buffer.from("abc"), lab.scratchOffset);
    for (const at of [2, 0, 1, 0]) lab.queue("WRITE", near, lab.scratchOffset + at, 1);
    lab.flush();
    assert.equal((await lab.expect(far, "DATA")).bytes.length, 4);
    assert.equal(lab.unseen(far).length, 0);
  });

  test("writes before the connection is there go out when it is", async () => {
    const listener = lab.listen();
    const near = lab.connect(listener.port);
    lab.write(near, "early");
    lab.perform("END", near);
    assert.equal(lab.pending(near), 5);
    const far = (await lab.expect(listener.id, "ACCEPT")).a;
    lab.allow(far);
    assert.equal((await lab.read(far, 5)).toString(), "early");
    await lab.expect(far, "EOF");
  });
});

describe("credit", () => {
  test("without it nothing is read", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.write(near, "hello");
    lab.perform("RESUME", far);
    await lab.pair(lab.listen());
    assert.deepEqual(lab.unseen(far), []);
    lab.allow(far);
    assert.equal((await lab.read(far, 5)).toString(), "hello");
  });

  test("no read takes more than it, nor more than one read may", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.write(near, pattern(300_000));
    let isFirst = true;
    const lengths: number[] = [];
    lab.during = (event) => {
      if (event.kind !== "DATA" || event.id !== far) return;
      lengths.push(event.b);
      if (isFirst) lab.reactor.credit[far & 0xffff] = 2 ** 30;
      isFirst = false;
    };
    lab.allow(far, 7);
    await lab.read(far, 300_000);
    assert.equal(lengths[0], 7);
    assert(lengths.every((length) => length <= LAB_OPTIONS.plainReadBytes));
  });

  test("a negative one reads nothing", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.write(near, "hello");
    lab.allow(far, -1);
    await lab.pair(lab.listen());
    assert.deepEqual(lab.unseen(far), []);
  });
});

describe("a limited batch", () => {
  for (const [limit, most] of [
    [40_000, 40_000],
    [0, 32 * 1024],
  ] as const) {
    test(`of ${limit} bytes reads no more than ${most} of a connection`, async () => {
      lab.reactor.credit[0] = limit;
      const longest = Math.max(...(await readLengths(1)));
      // Less when something else of this thread was ready, too, and had its share.
      assert(longest <= most && longest >= 32 * 1024, `${longest} bytes`);
    });
  }

  test("is shared by those that are ready", async () => {
    lab.reactor.credit[0] = 100_000;
    assert(Math.max(...(await readLengths(2))) <= 50_000);
  });

  test("is as large as the arena when the limit is lifted", async () => {
    lab.reactor.credit[0] = 0;
    lab.reactor.credit[0] = LAB_OPTIONS.arenaBytes;
    assert(Math.max(...(await readLengths(1))) > 32 * 1024);
  });

  /** Of the reads of 100,000 bytes of each connection, which are all there when reading begins. */
  async function readLengths(pairCount: number): Promise<readonly number[]> {
    const fars: number[] = [];
    for (let i = 0; i < pairCount; i++) {
      const { near, far } = await lab.pair(lab.listen());
      lab.write(near, pattern(100_000));
      if (lab.pending(near) > 0) await lab.expect(near, "DRAIN");
      // More than any of the limits; all of it, where the receiver has room.
      await arrived(far, 60_000);
      fars.push(far);
    }
    for (const far of fars) lab.allow(far);
    const lengths: number[] = [];
    for (const far of fars) {
      for (let left = 100_000; left > 0; left -= lengths.at(-1) ?? 0) {
        lengths.push((await lab.expect(far, "DATA")).b);
      }
    }
    return lengths;
  }
});

test("who reads little is told in a turn before those who read much", async () => {
  const listener = lab.listen();
  const [much, little] = [await lab.pair(listener), await lab.pair(listener)];
  lab.write(much.near, pattern(20_000));
  lab.allow(much.far);
  await lab.read(much.far, 20_000);
  lab.reactor.credit[much.far & 0xffff] = 0;
  lab.write(much.near, pattern(20_000));
  lab.write(little.near, "hello");
  await arrived(much.far, 40_000);
  await arrived(little.far, 5);
  // Both are ready, in this order.
  const told: number[] = [];
  lab.during = ({ kind, id }) => kind === "DATA" && told.push(id, lab.turns.length);
  for (const { far } of [much, little]) lab.reactor.credit[far & 0xffff] = 100_000;
  lab.queue("RESUME", much.far);
  lab.queue("RESUME", little.far);
  lab.flush();
  await lab.read(much.far, 20_000);
  const [first, turn = 0, second, nextTurn = 0] = told;
  assert.deepEqual([first, second], [little.far, much.far]);
  assert(nextTurn > turn);
});

describe("the loop sleeps", () => {
  for (const [state, arrange] of [
    ["half-closed", async (near: number, _far: number) => lab.perform("END", near)],
    [
      "closed on both sides",
      async (near: number, far: number) => {
        lab.perform("END", near);
        lab.perform("END", far);
        await lab.expect(near, "EOF");
      },
    ],
    [
      "closed on both sides with bytes that nobody reads",
      async (near: number, far: number) => {
        lab.write(near, "unread");
        lab.reactor.credit[far & 0xffff] = 0;
        lab.perform("END", near);
        lab.perform("END", far);
        await lab.expect(near, "EOF");
      },
    ],
    ["reset", async (near: number, _far: number) => lab.perform("RESET", near)],
    [
      "held by credit while bytes wait",
      async (near: number, far: number) => {
        lab.reactor.credit[far & 0xffff] = 0;
        lab.write(near, "unread");
      },
    ],
  ] as const) {
    test(`while a connection is ${state}`, async () => {
      const { near, far } = await lab.pair(lab.listen());
      lab.allow(near);
      lab.allow(far);
      await arrange(near, far);
      await quiet();
      // V8 may wake the thread for its garbage for a while; a loop that spins never rests.
      let turns = Number.POSITIVE_INFINITY;
      for (let i = 0; i < 50 && turns >= 20; i++) {
        const { loopCount } = performance.nodeTiming.uvMetricsInfo;
        await delay(50);
        turns = performance.nodeTiming.uvMetricsInfo.loopCount - loopCount;
      }
      assert(turns < 20, `${turns} turns of the event loop in 50 ms`);
    });
  }
});

describe("what JavaScript passes is checked:", () => {
  test("operations on dead ids are ignored and counted", async () => {
    const { near, far } = await lab.pair(lab.listen());
    const { port } = lab.listen();
    lab.perform("CLOSE", near);
    const again = lab.connect(port);
    assert.equal(again & 0xffff, near & 0xffff, "the slot is used again");
    assert.notEqual(again, near);
    for (const id of [near, 0, -1, 0x7fff_ffff, far + 0x10000]) lab.perform("CLOSE", id);
    assert.equal(lab.reactor.pending[0], 5);
    await lab.expect(again, "OPEN");
    assert.throws(() => lab.reactor.fdOf(near), {
      message: "id must be that of a connection that is not closed",
    });
  });

  test("a range outside of the arena is ignored and counted", async () => {
    const { near, far } = await lab.pair(lab.listen());
    const end = lab.reactor.arena.length;
    lab.allow(far);
    for (const [offset, length] of [
      [-1, 4],
      [0, -1],
      [end, 1],
      [end - 3, 4],
      [0, end + 1],
      [0x7fff_ffff, 0x7fff_ffff],
      [4, 0x7fff_ffff],
    ] as const) {
      lab.perform("WRITE", near, offset, length);
    }
    assert.equal(lab.reactor.pending[0], 7);
    lab.write(near, "good");
    assert.equal((await lab.read(far, 4)).toString(), "good");
  });

  test("operations that make no sense are ignored and counted", async () => {
    const listener = lab.listen();
    const { near } = await lab.pair(listener);
    lab.perform("END", near);
    lab.write(near, "late");
    lab.perform("END", near);
    lab.perform("ALERT", near, 42);
    lab.perform("END", listener.id);
    lab.perform(99, near);
    assert.equal(lab.reactor.pending[0], 5);
  });

  test("more operations than the list holds are refused", () => {
    const anything = lab.reactor as unknown as Record<string, (...args: unknown[]) => unknown>;
    for (const count of [LAB_OPTIONS.operationsMax + 1, -1, 1.5, Number.NaN, undefined, "1"]) {
      assert.throws(() => anything["flush"]?.(count), TypeError);
    }
  });

  test("descriptors that are no sockets, or here already, are refused and stay the caller's", async () => {
    const { near } = await lab.pair(lab.listen());
    assert.throws(() => lab.reactor.listen(lab.reactor.fdOf(near)), { code: "EEXIST" });
    const file = openSync("/dev/null", "r");
    try {
      assert.throws(() => lab.reactor.listen(file), { code: "EPERM" });
      assert.throws(() => lab.reactor.connect(file, "127.0.0.1", 1), { code: "ENOTSOCK" });
    } finally {
      closeSync(file);
    }
    assert.throws(() => lab.reactor.listen(1_000_000), { code: "EBADF" });
  });

  for (const [name, change, message] of [
    ["no arena", { arenaBytes: undefined }, /^arenaBytes must be an integer from 65536 to/],
    ["too many connections", { connectionsMax: 65_536 }, /^connectionsMax must be an integer from/],
    ["reads beyond the arena", { plainReadBytes: 512 * 1024 }, /^arenaBytes must be 32 KiB more/],
    ["a send beyond the queue", { queueBytesMax: 40_000 }, /^cipherSendBytes must be at most/],
    ["a length that is text", { eventsMax: "64" }, /^eventsMax must be an integer/],
  ] as const) {
    test(`${name} is refused at creation`, () => {
      const options = { ...LAB_OPTIONS, ...change } as unknown as ReactorOptions;
      assert.throws(() => createReactor(options, () => 0), { name: "TypeError", message });
    });
  }

  test("a method of a closed reactor says so, also when the thread has another one", () => {
    lab.close();
    lab.close();
    const message = "the reactor must be one that is not closed";
    const other = new ReactorLab();
    assert.throws(() => lab.reactor.flush(0), { message });
    assert.throws(() => lab.reactor.listen(0), { message });
    other.close();
  });

  test("a second reactor of the thread is refused until the first is closed", () => {
    assert.throws(() => createReactor(LAB_OPTIONS, () => {}), { code: "EEXIST" });
    lab.close();
    createReactor(LAB_OPTIONS, () => {}).close();
  });

  test("views can't be taken apart, and kept beyond the end do no harm", async () => {
    const { fd } = native.socketInNamespace({
      family: "ipv4",
      type: "stream",
      bind: { ip: "127.0.0.1", port: 0 },
      listenBacklog: 1,
    });
    let told = (_length: number): void => {};
    const read = new Promise<number>((resolve) => {
      told = resolve;
    });
    lab.close();
    const other = createReactor(LAB_OPTIONS, () => {
      const [kind, , a = 0, b = 0] = other.events;
      if (kind === EVENT.DATA) told(b);
      if (kind !== EVENT.ACCEPT) return;
      other.credit[a & 0xffff] = 1000;
      other.operations.set([OPERATION.RESUME, a, 0, 0, OPERATION.WRITE, a, 0, 100]);
      other.flush(2);
    });
    other.listen(fd);
    const { arena, pending } = other;
    assert.throws(() => (arena.buffer as ArrayBuffer).transfer(), TypeError);
    const near = connectTcp(native.localAddress(fd).port, "127.0.0.1");
    near.on("error", () => {});
    await once(near, "data");
    near.write("x");
    assert.equal(await read, 1);
    other.close();
    arena.fill(1);
    assert.equal(pending[1], 0);
    await once(near, "close");
  });

  for (const [name, memory, sizes] of [
    ["that can be detached", new Uint8Array(2 ** 20), tinySizes(0)],
    ["smaller than its parts", unmovable(2 ** 16), tinySizes(0)],
    ["for sizes that wrap around", unmovable(2 ** 20), tinySizes(2n ** 64n - 1n)],
    ["with no sizes", unmovable(2 ** 20), new Uint8Array()],
  ] as const) {
    test(`memory ${name} is refused by the addon itself`, () => {
      lab.close();
      assert.equal(
        bare["createReactor"]?.(memory, sizes, () => {}),
        -constants.errno.EINVAL,
      );
    });
  }

  test("the addon itself refuses what is none of a reactor's", () => {
    const { EINVAL, EBADF } = constants.errno;
    assert.throws(() => bare["createReactor"]?.(undefined, tinySizes(0), () => {}), TypeError);
    for (const [name, ...given] of [
      ["reactorTake", 0, 0],
      ["reactorFdOf", 1],
      ["reactorFlush", 0],
      ["closeReactor"],
    ] as const) {
      lab.close();
      const expected = { reactorFdOf: -EBADF, closeReactor: 0 }[name as string] ?? -EINVAL;
      assert.equal(bare[name]?.(...given), expected, name);
    }
    assert.equal(bare["createReactor"]?.(unmovable(2 ** 20), tinySizes(1), 1), -EINVAL);
  });
});

describe("a turn", () => {
  test("may close the connection whose further events it is being told of", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.write(near, "bye");
    lab.perform("END", near);
    lab.during = (event) => {
      if (event.id === far && event.kind === "DATA") lab.queue("CLOSE", far);
    };
    lab.allow(far);
    await lab.expect(far, "DATA");
    lab.allow(near);
    await lab.next(near);
    assert.throws(() => lab.reactor.fdOf(far));
  });

  test("may close the reactor", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.allow(far);
    lab.during = () => lab.close();
    lab.write(near, "end");
    await lab.expect(far, "DATA");
  });

  test("is over before promises go on, so their operations do not mix with its own", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.allow(far);
    lab.allow(near);
    lab.during = (event) => {
      if (event.id !== far || event.kind !== "DATA") return;
      lab.queue("WRITE", far, event.a, event.b);
      void Promise.resolve().then(() => lab.write(far, "second"));
    };
    lab.write(near, "first ");
    assert.equal((await lab.read(near, 12)).toString(), "first second");
  });

  test("that throws is an uncaught error, and the loop goes on", async () => {
    const { near, far } = await lab.pair(lab.listen());
    lab.allow(far);
    const [first] = process.listeners("uncaughtException");
    process.removeAllListeners("uncaughtException");
    const caught = new Promise((resolve) => process.once("uncaughtException", resolve));
    lab.during = () => {
      throw new Error("a bug");
    };
    lab.write(near, "x");
    const error = await caught;
    if (first !== undefined) process.on("uncaughtException", first);
    assert(error instanceof Error && error.message === "a bug");
    lab.during = () => {};
    lab.write(near, "y");
    assert.equal((await lab.read(far, 1)).toString(), "y");
  });
});

test("a worker has a reactor of its own, which ends with it", async () => {
  const code = `
    const { parentPort, workerData } = require("node:worker_threads");
    Promise.all([import(workerData.reactor), import(workerData.native)]).then(
      ([{ createReactor, EVENT, OPERATION }, { native }]) => {
        const reactor = createReactor(workerData.options, (count) => {
          let operations = 0;
          for (let at = 0; at < 4 * count; at += 4) {
            const [kind, id, a, b] = reactor.events.subarray(at, at + 4);
            if (kind === EVENT.ACCEPT) {
              reactor.credit[a & 0xffff] = 1000;
              reactor.operations.set([OPERATION.RESUME, a, 0, 0], 4 * operations++);
            } else if (kind === EVENT.DATA) {
              reactor.operations.set([OPERATION.WRITE, id, a, b], 4 * operations++);
            }
          }
          reactor.flush(operations);
        });
        const { fd } = native.socketInNamespace({
          family: "ipv4", type: "stream", bind: { ip: "127.0.0.1", port: 0 }, listenBacklog: 8,
        });
        reactor.listen(fd);
        parentPort.postMessage(native.localAddress(fd).port);
      },
    );`;
  const worker = new Worker(code, {
    eval: true,
    workerData: {
      reactor: new URL("../../src/net/reactor.ts", import.meta.url).href,
      native: new URL("../../src/net/native.ts", import.meta.url).href,
      options: LAB_OPTIONS,
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  const near = lab.connect(port);
  await lab.expect(near, "OPEN");
  lab.allow(near);
  lab.write(near, "across threads");
  assert.equal((await lab.read(near, 14)).toString(), "across threads");
  await worker.terminate();
  const end = await lab.next(near);
  assert(end.kind === "EOF" || end.kind === "ERROR");
});

/** So many bytes have come into the connection's kernel in all, read or not. */
async function arrived(id: number, bytes: number): Promise<void> {
  const fd = lab.reactor.fdOf(id);
  while (readTcpInfo(native, fd).receivedBytes < bytes) await delay(1);
}

/** Memory of the kind that the addon takes. */
function unmovable(byteCount: number): Uint8Array {
  return reactorMemory({ ...LAB_OPTIONS }).bytes.subarray(0, byteCount);
}

/** Options that fit into a megabyte, but for `operationsMax`. */
function tinySizes(operationsMax: bigint | number): Uint8Array {
  const sizes = BigUint64Array.of(
    ...[100_000n, 1n, 16n, BigInt(operationsMax), 1n],
    ...[1n, 1024n, 1n, 1n, 1n, 1n],
  );
  return new Uint8Array(sizes.buffer);
}

/** What was under way on loopback has arrived and been told. */
async function quiet(): Promise<void> {
  await lab.pair(lab.listen());
  await delay(5);
}
