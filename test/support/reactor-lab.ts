/**
 * A reactor whose events a test can wait for, one connection at a time.
 *
 * Operations are performed at once, outside of turns; `during` lets a test answer within the turn.
 */
import assert from "node:assert/strict";
import { native } from "../../src/net/native.ts";
import {
  createReactor,
  EVENT,
  OPERATION,
  type Reactor,
  type ReactorOptions,
} from "../../src/net/reactor.ts";
import { failureOf, type ReactorFailure } from "../../src/net/reactor-failure.ts";
import { SOCKADDR_BYTES } from "../../src/net/sockaddr.ts";

export type EventName = keyof typeof EVENT;
export type OperationName = keyof typeof OPERATION;

/** One event, with what it pointed at. */
export interface SeenEvent {
  readonly kind: EventName;
  readonly id: number;
  readonly a: number;
  readonly b: number;
  /** Of DATA and ACCEPT: a copy. */
  readonly bytes: Uint8Array;
  /** Of ERROR. */
  readonly failure: ReactorFailure | undefined;
  /** Its name or reason; empty otherwise. */
  readonly text: string;
}

const KIB = 1024;
const SLOT_MASK = 0xffff;

export const LAB_OPTIONS: ReactorOptions = {
  arenaBytes: 512 * KIB,
  scratchBytes: 64 * KIB,
  eventsMax: 64,
  operationsMax: 256,
  connectionsMax: 256,
  plainReadBytes: 128 * KIB,
  cipherReadBytes: 64 * KIB,
  cipherSendBytes: 64 * KIB,
  acceptsPerTurn: 16,
  queueBytesMax: 64 * KIB * KIB,
  rekeyBytes: KIB ** 4,
};

const NAMES = new Map<number, EventName>(
  Object.entries(EVENT).map(([name, number]) => [number, name as EventName]),
);

export class ReactorLab {
  readonly reactor: Reactor;
  /** Called in the turn, for each event; answers by {@link queue}. */
  during: (event: SeenEvent) => void = () => {};
  /** Events per turn, newest last. */
  readonly turns: number[] = [];
  readonly #seen = new Map<number, SeenEvent[]>();
  readonly #waiting = new Map<number, (event: SeenEvent) => void>();
  readonly #options: ReactorOptions;
  #queued = 0;

  constructor(options: Partial<ReactorOptions> = {}) {
    this.#options = { ...LAB_OPTIONS, ...options };
    this.reactor = createReactor(this.#options, (count) => this.#turn(count));
  }

  /** Where a test may put bytes to be written. */
  get scratchOffset(): number {
    return this.#options.arenaBytes;
  }

  /** A listener on loopback. */
  listen(ip = "127.0.0.1"): { id: number; port: number } {
    const { fd } = native.socketInNamespace({
      family: ip.includes(":") ? "ipv6" : "ipv4",
      type: "stream",
      bind: { ip, port: 0 },
      listenBacklog: 128,
    });
    return { id: this.reactor.listen(fd), port: native.localAddress(fd).port };
  }

  /** A connection on its way; OPEN or ERROR follows. */
  connect(port: number, ip = "127.0.0.1"): number {
    const family = ip.includes(":") ? "ipv6" : "ipv4";
    const { fd } = native.socketInNamespace({ family, type: "stream", noDelay: true });
    return this.reactor.connect(fd, ip, port);
  }

  /** Both ends of a connection, not read yet. */
  async pair(listener: { id: number; port: number }): Promise<{ near: number; far: number }> {
    const near = this.connect(listener.port);
    await this.expect(near, "OPEN");
    return { near, far: (await this.expect(listener.id, "ACCEPT")).a };
  }

  /** The next event of a connection, in order. */
  next(id: number): Promise<SeenEvent> {
    const event = this.#seen.get(id)?.shift();
    if (event !== undefined) return Promise.resolve(event);
    return new Promise((resolve) => this.#waiting.set(id, resolve));
  }

  /** The next event, which must be of this kind. */
  async expect(id: number, kind: EventName): Promise<SeenEvent> {
    const event = await this.next(id);
    assert.equal(event.kind, kind, `event of ${id}: ${event.kind} ${event.text}`);
    return event;
  }

  /** Reads on until so many bytes have come; passes over DRAIN. */
  async read(id: number, length: number): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    for (let count = 0; count < length; ) {
      const { kind, bytes, text } = await this.next(id);
      // Of what the test itself has written.
      if (kind === "DRAIN") continue;
      assert.equal(kind, "DATA", `event of ${id}: ${kind} ${text}`);
      pieces.push(bytes);
      count += bytes.length;
    }
    return Buffer.concat(pieces);
  }

  /** Events of a connection that nobody waited for. */
  unseen(id: number): readonly SeenEvent[] {
    return this.#seen.get(id) ?? [];
  }

  /** Sets the credit of a plain connection and reads it. */
  allow(id: number, bytes: number = this.#options.plainReadBytes): void {
    this.reactor.credit[id & SLOT_MASK] = bytes;
    this.perform("RESUME", id);
  }

  pending(id: number): number {
    return this.reactor.pending[id & SLOT_MASK] ?? 0;
  }

  /** Adds an operation to the list of the running turn; performs it when it is full. */
  queue(kind: OperationName | number, id: number, a = 0, b = 0): void {
    if (this.#queued === this.#options.operationsMax) this.flush();
    const number = typeof kind === "number" ? kind : OPERATION[kind];
    this.reactor.operations.set([number, id, a, b], 4 * this.#queued++);
  }

  /** Performs one operation now. */
  perform(kind: OperationName | number, id: number, a = 0, b = 0): void {
    this.queue(kind, id, a, b);
    this.flush();
  }

  flush(): void {
    const count = this.#queued;
    this.#queued = 0;
    this.reactor.flush(count);
  }

  /** Writes through the scratch, in pieces that fit into it. */
  write(id: number, bytes: Uint8Array | string): void {
    const whole = typeof bytes === "string" ? Buffer.from(bytes) : bytes;
    for (let at = 0; at < whole.length; at += this.#options.scratchBytes) {
      const piece = whole.subarray(at, at + this.#options.scratchBytes);
      this.reactor.arena.set(piece, this.scratchOffset);
      this.perform("WRITE", id, this.scratchOffset, piece.length);
    }
  }

  close(): void {
    this.reactor.close();
  }

  #turn(count: number): void {
    this.turns.push(count);
    const { events, arena } = this.reactor;
    for (let at = 0; at < 4 * count; at += 4) {
      const [number = 0, id = 0, a = 0, b = 0] = events.subarray(at, at + 4);
      const kind = NAMES.get(number);
      assert(kind !== undefined, `event kind ${number}`);
      const [start, length] =
        kind === "DATA" ? [a, b] : kind === "ACCEPT" ? [b, 2 * SOCKADDR_BYTES] : [0, 0];
      const bytes = arena.slice(start, start + length);
      const failure = kind === "ERROR" ? failureOf(a, b) : undefined;
      const event: SeenEvent = { kind, id, a, b, bytes, failure, text: textOf(failure) };
      this.during(event);
      const waiting = this.#waiting.get(id);
      if (waiting === undefined) {
        const seen = this.#seen.get(id) ?? [];
        seen.push(event);
        this.#seen.set(id, seen);
      } else {
        this.#waiting.delete(id);
        waiting(event);
      }
    }
    // Unless a test closed it.
    if (this.#queued > 0) this.flush();
  }
}

function textOf(failure: ReactorFailure | undefined): string {
  if (failure === undefined) return "";
  return failure.kind === "system" ? failure.errno : failure.reason;
}

/** Pseudo-random, so that bytes out of place are found. */
export function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0, state = 1; i < length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

/**
 * Fills the queue of the near end, to which the turns of another connection then add, and sees that it
 * becomes empty all the same.
 *
 * @param bytes more than the kernel takes at once.
 */
export async function emptyBesideOthers(
  lab: ReactorLab,
  { near, far }: { readonly near: number; readonly far: number },
  bytes: number,
): Promise<void> {
  const chat = await lab.pair(lab.listen());
  lab.allow(chat.far);
  // Who reads much is looked at after those who read little have been answered.
  lab.write(far, pattern(16_384));
  await lab.read(near, 16_384);
  let isDrained = false;
  lab.during = (event) => {
    isDrained ||= event.kind === "DRAIN" && event.id === near;
    if (isDrained || event.kind !== "DATA" || event.id !== chat.far) return;
    for (const id of [near, chat.near]) lab.queue("WRITE", id, lab.scratchOffset, 1);
  };
  lab.write(near, pattern(bytes));
  assert(lab.pending(near) > 0);
  lab.write(chat.near, "x");
  await lab.expect(near, "DRAIN");
  assert.equal(lab.pending(near), 0);
}
