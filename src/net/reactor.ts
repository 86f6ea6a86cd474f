/**
 * The typed face of the reactor in native/: sockets and TLS in batches.
 *
 * One reactor per thread, on that thread's event loop. It gathers what happened into
 * {@link Reactor.events}, calls `turn` once, and performs what `turn` left in
 * {@link Reactor.operations}. All bytes lie in {@link Reactor.arena}. Nothing here decides anything.
 *
 * Every event and operation is four numbers: kind, connection id, a, b. An id dies with `CLOSE`,
 * `RESET` or `ALERT`, never by itself: also a connection that failed must be closed. Operations on
 * dead ids are ignored and counted.
 */
import { closeSync } from "node:fs";
import { constants } from "node:os";
import { addon } from "./addon.ts";
import { native } from "./native.ts";
import {
  ENTRY_LENGTH,
  type ReactorArrays,
  type ReactorOptions,
  reactorMemory,
} from "./reactor-memory.ts";
import { systemCallError } from "./system-calls.ts";
import type { TlsContext } from "./tls-context.ts";

export type { ReactorOptions } from "./reactor-memory.ts";

/** The first number of an event. */
export const EVENT = {
  /**
   * On a listener. a: id of the new connection, which is not read until it has credit; b: offset in
   * the arena of two addresses of {@link SOCKADDR_BYTES}, the peer's and the original destination's.
   */
  ACCEPT: 1,
  /**
   * Connected; for a tunnel: the handshake is done and the peer's chain is trusted. A connection
   * that {@link Reactor.startTls} was called on before it was connected opens only once.
   */
  OPEN: 2,
  /** a: offset in the arena, b: length. */
  DATA: 3,
  /** FIN or close_notify; before OPEN of a tunnel: the peer left during the handshake. */
  EOF: 4,
  /**
   * The last event of a connection: nothing more is read or written; close it. {@link failureOf} reads
   * a and b. On a listener: accepting stops until RESUME.
   */
  ERROR: 5,
  /** The connection's own queue went empty: what `pending` told is with the kernel. */
  DRAIN: 6,
} as const;

/** The first number of an operation. */
export const OPERATION = {
  /** a: offset in the arena, b: length. The arena may change as soon as it is performed. */
  WRITE: 1,
  /** No more writes: FIN, or close_notify and FIN, behind what is queued. Reading goes on. */
  END: 2,
  /** Closes now and drops what is queued. Unread bytes of a plain connection make it an RST. */
  CLOSE: 3,
  /** Closes with RST. */
  RESET: 4,
  /** Reads again after raising `credit` from 0, which is not noticed by itself; accepts again. */
  RESUME: 5,
  /** a: number of a TLS alert (RFC 8446 section 6), sent as fatal before the connection is closed. */
  ALERT: 6,
} as const;

/** Bytes in front of each plain read that are free for a frame header. */
export const HEADROOM_BYTES = 16;

/**
 * Methods throw a TypeError for arguments of the wrong kind, ids that are dead and a reactor that is
 * closed; errors of the system have Node's shape (`code`, `errno`, `syscall`).
 */
export interface Reactor extends ReactorArrays {
  /**
   * Takes a listening socket. Connections inherit its options, TCP_NODELAY and keep-alive too.
   *
   * @param redirected whether to ask where connections were going; left out: no.
   */
  listen(fd: number, redirected?: boolean): number;
  /**
   * Takes an unconnected socket and connects it: OPEN or ERROR follows.
   *
   * @throws an error of the system when it fails at once; the descriptor stays the caller's.
   */
  connect(fd: number, ip: string, port: number): number;
  /** Makes two connections to each other, which are open. @throws an error of the system. */
  pair(): readonly [number, number];
  /** For questions to the kernel; the descriptor stays the reactor's. */
  fdOf(id: number): number;
  /** Makes a tunnel of a plain connection that nothing was written to. */
  startTls(id: number, context: TlsContext, server: boolean): void;
  /** What the peer's leaf was found to chain to: leaf to root, DER one after the other; empty before OPEN. */
  peerChain(id: number): Uint8Array;
  /** Performs the first operations of the list, in their order. */
  flush(operationCount: number): void;
  /** Closes every connection and stops keeping the thread running. Idempotent. */
  close(): void;
}

/** Of the thread's only reactor. A negative answer is an errno. */
const calls = addon as {
  createReactor(memory: Uint8Array, sizes: Uint8Array, turn: (eventCount: number) => void): number;
  closeReactor(): number;
  /** @returns the new id; the descriptor is the reactor's on success only. */
  reactorTake(fd: number, kind: number): number;
  reactorFdOf(id: number): number;
  /** @returns one of OpenSSL's errors when that refuses. */
  reactorStartTls(id: number, context: TlsContext, isServer: number): number;
  /** @returns the length of all; those that fit are written. */
  reactorPeerChain(id: number, into: Uint8Array): number;
  reactorFlush(operationCount: number): number;
  tlsText(error: number): string;
};

const { EBADF, EINVAL } = constants.errno;

/** Room for a leaf and two intermediates with RSA keys. */
const CHAIN_BYTES = 8192;

/** What a descriptor is when the reactor takes it. */
const KIND = { OPEN: 0, LISTENER: 1, CONNECTING: 2, REDIRECTED_LISTENER: 5 } as const;

/**
 * Makes the reactor of this thread, on its event loop.
 *
 * @param turn is told how many events there are. An error that escapes it is fatal to the thread like
 *   any uncaught one.
 * @throws TypeError naming the option that is out of its range.
 * @throws an error of the system, `EEXIST` when the thread has one that is not closed.
 */
export function createReactor(
  options: ReactorOptions,
  turn: (eventCount: number) => void,
): Reactor {
  const { bytes, sizes, arrays } = reactorMemory(options);
  const answer = calls.createReactor(bytes, sizes, turn);
  if (answer < 0) throw systemCallError(answer, { syscall: "createReactor" });
  let isClosed = false;
  // The thread may have another one since.
  const requireOpen = (): void => {
    if (isClosed) throw new TypeError("the reactor must be one that is not closed");
  };
  return {
    ...arrays,
    listen: (fd, redirected = false) => {
      requireOpen();
      return take(fd, redirected ? KIND.REDIRECTED_LISTENER : KIND.LISTENER);
    },
    connect: (fd, ip, port) => {
      requireOpen();
      native.connect(fd, ip, port);
      return take(fd, KIND.CONNECTING);
    },
    pair: () => {
      requireOpen();
      return takePair(arrays);
    },
    fdOf: (id) => {
      requireOpen();
      return alive(calls.reactorFdOf(id));
    },
    startTls: (id, context, server) => {
      requireOpen();
      startTls(id, context, server);
    },
    peerChain: (id) => {
      requireOpen();
      return peerChain(id, CHAIN_BYTES);
    },
    flush: (operationCount) => {
      requireOpen();
      if (calls.reactorFlush(operationCount) === 0) return;
      throw new TypeError(`operationCount must be at most ${options.operationsMax}`);
    },
    close: () => {
      if (!isClosed) calls.closeReactor();
      isClosed = true;
    },
  };
}

function take(fd: number, kind: number): number {
  const id = calls.reactorTake(fd, kind);
  if (id < 0) throw systemCallError(id, { syscall: "epoll_ctl", detail: `fd ${fd}` });
  return id;
}

/** @returns an answer about a connection, unless it is that there is none. */
function alive(answer: number): number {
  if (answer !== -EBADF) return answer;
  throw new TypeError("id must be that of a connection that is not closed");
}

function startTls(id: number, context: TlsContext, isServer: boolean): void {
  const answer = alive(calls.reactorStartTls(id, context, isServer ? 1 : 0));
  if (answer === 0) return;
  if (answer > 0) throw new Error(calls.tlsText(answer));
  if (answer === -EINVAL) throw new TypeError("context must be a TLS context");
  throw new Error("only a plain connection in its first state can begin TLS");
}

function peerChain(id: number, byteCount: number): Uint8Array {
  const into = new Uint8Array(byteCount);
  const length = alive(calls.reactorPeerChain(id, into));
  return length > byteCount ? peerChain(id, length) : into.slice(0, length);
}

/** Takes both ends or none. */
function takePair(arrays: ReactorArrays): readonly [number, number] {
  const [near, far] = native.socketPair();
  let nearId = 0;
  try {
    nearId = take(near, KIND.OPEN);
    return [nearId, take(far, KIND.OPEN)];
  } catch (error) {
    closeSync(far);
    if (nearId === 0) closeSync(near);
    else closeAlone(arrays, nearId);
    throw error;
  }
}

/** Closes a connection of which nobody knows, past what is listed. */
function closeAlone({ operations }: ReactorArrays, id: number): void {
  const listed = operations.slice(0, ENTRY_LENGTH);
  operations.set([OPERATION.CLOSE, id, 0, 0]);
  calls.reactorFlush(1);
  operations.set(listed);
}
