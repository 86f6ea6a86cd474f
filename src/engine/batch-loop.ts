/**
 * The turn of the batch engine: what happened on all connections in, what is to be done out.
 *
 * The reactor calls once per turn with a list of events; everything that they cause is pushed onto
 * one list of operations, which is performed at the end of the turn. Work that begins outside a turn
 * (after an awaited decision, at a timer) shares one list, too, performed when the running
 * microtasks are through.
 */
import {
  EVENT,
  HEADROOM_BYTES,
  OPERATION,
  type Reactor,
  type ReactorOptions,
} from "../net/reactor.ts";
import type { Clock } from "../runtime/clock.ts";
import { invariant } from "../runtime/invariant.ts";

/** Who is told what happens on one connection of the reactor. */
export interface Watcher {
  /** Of the reactor; constant while watched. */
  readonly id: number;
  /** @param addresses offset in the arena of the peer's and the original destination, during the call. */
  accepted(connectionId: number, addresses: number): void;
  /** Connected, or secured when the connection is a tunnel. */
  opened(): void;
  /** Bytes in the arena, valid during the call. */
  read(offset: number, length: number): void;
  ended(): void;
  /** Nothing follows. The numbers of {@link EVENT.ERROR}. */
  failed(errno: number, tlsNumber: number): void;
  /** Everything written has been taken by the kernel. */
  drained(): void;
  /** What was written in this turn has been given to the kernel, as far as it took it. */
  flushed(): void;
  /** Code of this process broke; closes the connection. */
  abandon(error: unknown): void;
}

/** Makes the reactor of one engine; `turn` is told how many events are listed. */
export type MakeReactor = (options: ReactorOptions, turn: (eventCount: number) => void) => Reactor;

export interface BatchLoopDeps {
  readonly clock: Clock;
  readonly makeReactor: MakeReactor;
  /** Told of what should never be thrown: a bug that cost a connection. */
  readonly unexpected: (error: unknown) => void;
}

/** Numbers of an entry in the lists of events and operations. */
const ENTRY_LENGTH = 4;

/** The low bits of an id tell its place in the tables, the others its generation. */
const SLOT_MASK = 0xffff;

/** Where the credits tell what a batch may read. */
const BATCH_SLOT = 0;

/**
 * What is read in a turn while somebody waits for turns: 0.1 to 0.3 ms of work, where eight bulk
 * transfers without limit make turns of 5 ms.
 */
const SHARED_BATCH_BYTES = 128 * 1024;

/** How long after the last message of a quiet connection the next one is expected. */
const SHARED_MS = 20;

/** The shortest frame limit of HTTP/2, so that a piece always goes into one frame. */
const PIECE_BYTES_MAX = 16_384;

export class BatchLoop {
  readonly reactor: Reactor;
  readonly arena: Uint8Array;
  /** By slot: bytes written and not yet taken by the kernel, as of the last flush. */
  readonly pending: Int32Array;
  /** By slot: bytes that may be read. */
  readonly credit: Int32Array;
  /** The most that one read brings. */
  readonly readBytesMax: number;
  /** The most that all reads of a turn bring. */
  readonly batchBytesMax: number;
  readonly #clock: Clock;
  readonly #unexpected: (error: unknown) => void;
  readonly #events: Int32Array;
  readonly #operations: Int32Array;
  readonly #operationsMax: number;
  readonly #watchers: (Watcher | undefined)[] = [];
  readonly #scratchStart: number;
  #scratchAt: number;
  #operationCount = 0;
  #flushing: Watcher[] = [];
  #later: (() => void)[] = [];
  #isInTurn = false;
  #isSettling = false;
  #isClosed = false;
  #now = 0;
  #sharesTurns = false;
  #sharedAt = 0;

  constructor(deps: BatchLoopDeps, options: ReactorOptions) {
    this.#clock = deps.clock;
    this.#unexpected = deps.unexpected;
    this.reactor = deps.makeReactor(options, (eventCount) => this.#turn(eventCount));
    this.arena = this.reactor.arena;
    this.pending = this.reactor.pending;
    this.credit = this.reactor.credit;
    this.readBytesMax = options.plainReadBytes;
    this.#events = this.reactor.events;
    this.#operations = this.reactor.operations;
    this.#operationsMax = options.operationsMax;
    this.batchBytesMax = options.arenaBytes;
    this.#scratchStart = this.arena.length - options.scratchBytes;
    this.#scratchAt = this.#scratchStart;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Monotonic milliseconds; one reading per turn. */
  get now(): number {
    return this.#isInTurn ? this.#now : this.#clock.monotonic();
  }

  /** Takes the place of whoever watched the same connection before. */
  watch(watcher: Watcher): void {
    this.#watchers[slotOf(watcher.id)] = watcher;
  }

  isWatchedBy(watcher: Watcher): boolean {
    return this.#watchers[slotOf(watcher.id)] === watcher;
  }

  /** Calls once, some milliseconds later. */
  after(ms: number, call: () => void): void {
    this.#clock.after(ms, call);
  }

  /** Somebody with little to move is there, too: turns are short for a while. */
  shareTurns(): void {
    this.#sharedAt = this.now;
    if (!this.#sharesTurns) this.#setShared(true);
  }

  /** Lists the last operation of a connection and forgets it. */
  close(watcher: Watcher, kind: number, a = 0): void {
    this.push(kind, watcher.id, a, 0);
    const slot = slotOf(watcher.id);
    if (this.#watchers[slot] === watcher) this.#watchers[slot] = undefined;
  }

  /** Lists an operation. */
  push(kind: number, id: number, a: number, b: number): void {
    if (this.#isClosed) return;
    if (this.#operationCount === this.#operationsMax) this.flush();
    const at = this.#operationCount++ * ENTRY_LENGTH;
    this.#operations[at] = kind;
    this.#operations[at + 1] = id;
    this.#operations[at + 2] = a;
    this.#operations[at + 3] = b;
    if (!this.#isInTurn) this.#settleSoon();
  }

  /** Writes bytes of the arena; they must not change before the next {@link flush}. */
  write(id: number, offset: number, length: number): void {
    const last = (this.#operationCount - 1) * ENTRY_LENGTH;
    const continues =
      last >= 0 &&
      this.#operations[last] === OPERATION.WRITE &&
      this.#operations[last + 1] === id &&
      (this.#operations[last + 2] as number) + (this.#operations[last + 3] as number) === offset;
    if (continues) (this.#operations[last + 3] as number) += length;
    else this.push(OPERATION.WRITE, id, offset, length);
  }

  /** Room in the arena that is written behind everything before; fill it before the next call. */
  reserve(id: number, length: number): number {
    const offset = this.#scratch(length);
    this.write(id, offset, length);
    return offset;
  }

  /** Lends bytes of JavaScript to `use` as pieces of the arena that have head room. */
  copyIn(bytes: Uint8Array, use: (offset: number, length: number) => void): void {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES_MAX) {
      const piece = bytes.subarray(at, at + PIECE_BYTES_MAX);
      const offset = this.#scratch(HEADROOM_BYTES + piece.length) + HEADROOM_BYTES;
      this.arena.set(piece, offset);
      use(offset, piece.length);
    }
  }

  /** Calls `flushed` when the operations of this turn have been performed. */
  flushedSoon(watcher: Watcher): void {
    this.#flushing.push(watcher);
    if (!this.#isInTurn) this.#settleSoon();
  }

  /** Runs the callback after the operations of this turn, never from inside this call. */
  later(callback: () => void): void {
    this.#later.push(callback);
    if (!this.#isInTurn) this.#settleSoon();
  }

  /** Performs what is listed, now. */
  flush(): void {
    const count = this.#operationCount;
    this.#operationCount = 0;
    if (count > 0 && !this.#isClosed) this.reactor.flush(count);
  }

  /** Performs what is listed and ends every connection; callbacks that wait still run. Idempotent. */
  destroy(): void {
    if (this.#isClosed) return;
    this.flush();
    this.#isClosed = true;
    this.#watchers.length = 0;
    this.reactor.close();
  }

  #turn(eventCount: number): void {
    this.#isInTurn = true;
    this.#now = this.#clock.monotonic();
    if (this.#sharesTurns && this.#now - this.#sharedAt > SHARED_MS) this.#setShared(false);
    const events = this.#events;
    for (let at = 0; at < eventCount * ENTRY_LENGTH; at += ENTRY_LENGTH) {
      this.#deliver(
        events[at] as number,
        events[at + 1] as number,
        events[at + 2] as number,
        events[at + 3] as number,
      );
    }
    this.#settle();
    this.#isInTurn = false;
  }

  #setShared(sharesTurns: boolean): void {
    this.#sharesTurns = sharesTurns;
    if (this.#isClosed) return;
    this.credit[BATCH_SLOT] = sharesTurns ? SHARED_BATCH_BYTES : this.batchBytesMax;
  }

  #deliver(kind: number, id: number, a: number, b: number): void {
    const watcher = this.#watchers[slotOf(id)];
    if (watcher === undefined || watcher.id !== id) {
      // Its listener was closed earlier in this turn.
      if (kind === EVENT.ACCEPT) this.push(OPERATION.CLOSE, a, 0, 0);
      return;
    }
    try {
      switch (kind) {
        case EVENT.DATA:
          watcher.read(a, b);
          break;
        case EVENT.DRAIN:
          watcher.drained();
          break;
        case EVENT.ACCEPT:
          watcher.accepted(a, b);
          break;
        case EVENT.OPEN:
          watcher.opened();
          break;
        case EVENT.EOF:
          watcher.ended();
          break;
        case EVENT.ERROR:
          watcher.failed(a, b);
          break;
        default:
          invariant(false, `event kind ${kind} of the reactor is known`);
      }
    } catch (error) {
      this.#blame(error, watcher);
    }
  }

  /** After the running code and all that it awaits without waiting. */
  #settleSoon(): void {
    if (this.#isSettling) return;
    this.#isSettling = true;
    process.nextTick(() => {
      this.#isSettling = false;
      if (!this.#isInTurn) this.#settle();
    });
  }

  /** Until nothing is left: what is performed calls back, and what is called back may push. */
  #settle(): void {
    const wasInTurn = this.#isInTurn;
    this.#isInTurn = true;
    if (!wasInTurn) this.#now = this.#clock.monotonic();
    while (this.#operationCount > 0 || this.#flushing.length > 0 || this.#later.length > 0) {
      this.flush();
      this.#scratchAt = this.#scratchStart;
      this.#tellFlushed();
      const later = this.#later;
      if (later.length === 0) continue;
      this.#later = [];
      for (const callback of later) {
        try {
          callback();
        } catch (error) {
          this.#unexpected(error);
        }
      }
    }
    this.#isInTurn = wasInTurn;
  }

  #tellFlushed(): void {
    const flushing = this.#flushing;
    if (flushing.length === 0) return;
    this.#flushing = [];
    for (const watcher of flushing) {
      try {
        watcher.flushed();
      } catch (error) {
        this.#blame(error, watcher);
      }
    }
  }

  #blame(error: unknown, watcher: Watcher): void {
    this.#unexpected(error);
    try {
      watcher.abandon(error);
    } catch (second) {
      this.#unexpected(second);
    }
  }

  #scratch(length: number): number {
    if (this.#scratchAt + length > this.arena.length) {
      this.flush();
      // Not at every flush: whoever has just been lent a piece has not listed it yet.
      this.#scratchAt = this.#scratchStart;
    }
    const offset = this.#scratchAt;
    this.#scratchAt += length;
    invariant(this.#scratchAt <= this.arena.length, `${length} bytes fit into the scratch`);
    return offset;
  }
}

/** Place of a connection in {@link BatchLoop.pending} and {@link BatchLoop.credit}. */
export function slotOf(id: number): number {
  return id & SLOT_MASK;
}
