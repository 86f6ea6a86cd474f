/**
 * What two applications notice of TCP, as a table: how ends, resets and stalls of one of them look
 * to the other at every stage of a connection. Each case is played on several paths, which must agree.
 */
import { createHash, randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { readingEnd, talk } from "./two-nodes.ts";

const MB = 1024 * 1024;
/** Long enough for every buffer on the way to fill up. */
const STALL_MS = 200;
/** Beyond what kernels and proxies buffer on the way. */
const STALLED_MB = 16;

const block: Buffer = randomBytes(MB);

/** Both ends of a connection: the one that a case is about, and the other. */
export interface TwoEnds {
  readonly one: Socket;
  /** Paused until somebody reads. */
  readonly other: Socket;
  /** Settles when bytes wait in the one's kernel that it has not read. */
  readonly oneHasUnread: () => Promise<void>;
  /** Settles when the other's kernel has ended its connection, with nobody reading or writing. */
  readonly otherIsTold: () => Promise<void>;
}

export interface TcpCase {
  /** Of the one. */
  readonly what: string;
  /** What is noticed without a proxy. */
  readonly noticed: string;
  /** @returns what was noticed, in the words of {@link noticed}. */
  readonly play: (ends: TwoEnds) => Promise<string>;
  /** The same for both roles, so that it is played once. */
  readonly isSymmetric?: boolean;
}

export const TCP_CASES: readonly TcpCase[] = [
  {
    what: "ends its direction before any data, and the other answers 8 MB",
    noticed: "other: EOF; one: all, EOF",
    play: async ({ one, other }) => {
      one.end();
      return `other: ${await readingEnd(other)}; one: ${await transfer(other, one, 8)}`;
    },
  },
  {
    what: "ends its direction after 8 MB, and the other answers 8 MB",
    noticed: "other: all, EOF; one: all, EOF",
    play: async ({ one, other }) =>
      `other: ${await transfer(one, other, 8)}; one: ${await transfer(other, one, 8)}`,
  },
  {
    what: "and the other end their directions one after the other",
    noticed: "other: EOF; one: EOF",
    play: async ({ one, other }) => {
      one.end();
      const end = await readingEnd(other);
      other.end();
      return `other: ${end}; one: ${await readingEnd(one)}`;
    },
  },
  {
    what: "and the other end their directions at once, right after a megabyte each",
    noticed: "other: all, EOF; one: all, EOF",
    isSymmetric: true,
    play: async ({ one, other }) => {
      const [theirs, ours] = await Promise.all([transfer(one, other, 1), transfer(other, one, 1)]);
      return `other: ${theirs}; one: ${ours}`;
    },
  },
  {
    what: "and the other send 64 MB at once",
    noticed: "other: all, EOF; one: all, EOF",
    isSymmetric: true,
    play: async ({ one, other }) => {
      const [theirs, ours] = await Promise.all([
        transfer(one, other, 64),
        transfer(other, one, 64),
      ]);
      return `other: ${theirs}; one: ${ours}`;
    },
  },
  ...[1, 10_000, MB, 8 * MB].map((size) => ({
    what: `says ${size} bytes and closes at once`,
    noticed: "other: all, EOF",
    play: async ({ one, other }: TwoEnds) => {
      const said = Buffer.alloc(size, block);
      const heard = received(other);
      one.write(said);
      // Closes both directions at once when the bytes are out.
      one.destroySoon();
      return `other: ${isAll(await heard, digest(said))}`;
    },
  })),
  {
    what: "says 100,000 bytes and closes before the other begins to read",
    noticed: "other: all, EOF",
    play: async ({ one, other }) => {
      const said = block.subarray(0, 100_000);
      one.write(said);
      one.destroySoon();
      await delay(STALL_MS);
      return `other: ${isAll(await received(other), digest(said))}`;
    },
  },
  {
    what: "resets before any data",
    noticed: "other: ECONNRESET",
    play: async ({ one, other }) => {
      const end = readingEnd(other);
      one.resetAndDestroy();
      return `other: ${await end}`;
    },
  },
  {
    what: "resets after data both ways",
    noticed: "other: ECONNRESET",
    play: async ({ one, other }) => {
      await talk({ client: one, server: other });
      const end = readingEnd(other);
      one.resetAndDestroy();
      return `other: ${await end}`;
    },
  },
  {
    what: "resets in the middle of its sending",
    noticed: "other: ECONNRESET",
    play: async ({ one, other }) => {
      const end = readingEnd(other);
      void pour(one, STALLED_MB);
      await hasRead(other, MB);
      one.resetAndDestroy();
      return `other: ${await end}`;
    },
  },
  {
    what: "resets in the middle of its receiving",
    noticed: "other: ECONNRESET",
    play: async ({ one, other }) => {
      const end = readingEnd(other);
      void pour(other, STALLED_MB);
      one.resume();
      await hasRead(one, MB);
      one.resetAndDestroy();
      return `other: ${await end}`;
    },
  },
  {
    what: "ends its direction and then resets",
    noticed: "other: EOF, then told, write: EPIPE",
    play: async ({ one, other, otherIsTold }) => {
      one.end();
      const end = await readingEnd(other);
      one.resetAndDestroy();
      await otherIsTold();
      return `other: ${end}, then told, write: ${await writingEnd(other)}`;
    },
  },
  {
    what: "resets after the other has ended its direction",
    noticed: "one: EOF; other: ECONNRESET",
    play: async ({ one, other }) => {
      const otherEnd = readingEnd(other);
      other.end();
      const end = await readingEnd(one);
      one.resetAndDestroy();
      return `one: ${end}; other: ${await otherEnd}`;
    },
  },
  {
    what: "closes, and the other goes on talking",
    noticed: "other: EOF, then told, write: EPIPE",
    play: async ({ one, other, otherIsTold }) => {
      await talk({ client: one, server: other });
      one.destroy();
      const end = await readingEnd(other);
      other.write("are you still there?");
      await otherIsTold();
      return `other: ${end}, then told, write: ${await writingEnd(other)}`;
    },
  },
  {
    what: "closes while the other sends",
    noticed: "other: ECONNRESET",
    play: async ({ one, other, oneHasUnread }) => {
      const end = readingEnd(other);
      void pour(other, STALLED_MB);
      one.resume();
      await hasRead(one, MB);
      one.pause();
      await oneHasUnread();
      one.destroy();
      return `other: ${await end}`;
    },
  },
  {
    what: "closes with bytes of the other unread",
    noticed: "other: ECONNRESET",
    play: async ({ one, other, oneHasUnread }) => {
      const end = readingEnd(other);
      one.pause();
      other.write(block.subarray(0, 500_000));
      await oneHasUnread();
      one.destroy();
      return `other: ${await end}`;
    },
  },
  {
    what: `sends ${STALLED_MB} MB and ends its direction while the other does not read for a while`,
    noticed: "other: all, EOF",
    play: async ({ one, other }) => {
      const sending = send(one, STALLED_MB);
      await delay(STALL_MS);
      const heard = await received(other);
      return `other: ${isAll(heard, await sending)}`;
    },
  },
  {
    what: `ends its direction and does not read for a while what the other sends, ${STALLED_MB} MB`,
    noticed: "other: EOF; one: all, EOF",
    play: async ({ one, other }) => {
      one.end();
      const end = await readingEnd(other);
      one.pause();
      const sending = send(other, STALLED_MB);
      await delay(STALL_MS);
      const heard = await received(one);
      return `other: ${end}; one: ${isAll(heard, await sending)}`;
    },
  },
  {
    what: "resets while the other does not read",
    noticed: "other: ECONNRESET",
    play: async ({ one, other }) => {
      void pour(one, STALLED_MB);
      await delay(STALL_MS);
      one.resetAndDestroy();
      return `other: ${await readingEnd(other)}`;
    },
  },
  {
    what: "does not read, and resets when the other can't write on",
    noticed: "other: ECONNRESET",
    play: async ({ one, other }) => {
      one.pause();
      void pour(other, STALLED_MB);
      const end = readingEnd(other);
      await delay(STALL_MS);
      one.resetAndDestroy();
      return `other: ${await end}`;
    },
  },
];

/** Megabytes and the end of the direction. @returns what the receiver noticed. */
async function transfer(from: Socket, to: Socket, megabytes: number): Promise<string> {
  const heard = received(to);
  const said = await send(from, megabytes);
  return isAll(await heard, said);
}

/** @returns the digest of what was sent. */
async function send(socket: Socket, megabytes: number): Promise<string> {
  const hash = createHash("sha1");
  for (let i = 0; i < megabytes; i++) hash.update(block);
  await pour(socket, megabytes);
  socket.end();
  return hash.digest("hex");
}

/** Writes as fast as it goes. Settles when all is written, or nothing more can be. */
async function pour(socket: Socket, megabytes: number): Promise<void> {
  for (let i = 0; i < megabytes && socket.writable; i++) {
    if (socket.write(block)) continue;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        socket.off("drain", done).off("close", done);
        resolve();
      };
      socket.on("drain", done).on("close", done);
    });
  }
}

interface Received {
  readonly digest: string;
  readonly end: string;
}

function received(socket: Socket): Promise<Received> {
  const hash = createHash("sha1");
  socket.on("data", (chunk: Buffer) => hash.update(chunk));
  return readingEnd(socket).then((end) => ({ digest: hash.digest("hex"), end }));
}

function isAll({ digest: heard, end }: Received, said: string): string {
  return `${heard === said ? "all" : "not all"}, ${end}`;
}

async function hasRead(socket: Socket, byteCount: number): Promise<void> {
  while (socket.bytesRead < byteCount) await delay(1);
}

/** Writes once. @returns the errno's name, or `accepted`. */
function writingEnd(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.write("x", (error) => {
      const { code } = (error ?? {}) as NodeJS.ErrnoException;
      resolve(error ? (code ?? error.message) : "accepted");
    });
  });
}

function digest(bytes: Buffer): string {
  return createHash("sha1").update(bytes).digest("hex");
}
