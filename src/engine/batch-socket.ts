/**
 * A TCP connection as an end: a number of the reactor, its addresses, and where its bytes go.
 *
 * Before it is relayed nothing is read but what {@link BatchSocket.readFirst} asks for: closing it makes
 * the kernel answer RST when the peer's bytes were never wanted.
 */
import { getSystemErrorName } from "node:util";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Native } from "../net/native.ts";
import { OPERATION } from "../net/reactor.ts";
import { readTcpInfo, TCP_CLOSE_WAIT } from "../net/tcp-info.ts";
import { invariant } from "../runtime/invariant.ts";
import { type BatchLoop, slotOf, type Watcher } from "./batch-loop.ts";
import type { BatchEnd, BatchFlow } from "./batch-relay.ts";
import type { SocketEnd } from "./engine.ts";
import { EngineError, systemErrorText } from "./engine-error.ts";
import { FirstBytes } from "./first-bytes.ts";
import { hasUnderWay, hasUnsent, resetWhenStill } from "./late-reset.ts";
import type { SideFailure } from "./side-failure.ts";

export interface BatchSocketDeps {
  readonly native: Native;
  readonly loop: BatchLoop;
}

export interface BatchSocketAddresses {
  readonly peer: SocketAddress;
  /** `undefined`: the local address. */
  readonly originalDestination: SocketAddress | undefined;
}

export class BatchSocket implements SocketEnd, BatchEnd, Watcher {
  readonly id: number;
  readonly peer: SocketAddress;
  readonly #deps: BatchSocketDeps;
  readonly #originalDestination: SocketAddress | undefined;
  readonly #slot: number;
  #first: FirstBytes | undefined;
  #reading: BatchFlow | undefined;
  #writing: BatchFlow | undefined;
  #failure: SideFailure | undefined;
  #isHeld = true;
  #hasEnded = false;
  #isFinishing = false;
  #awaitsFlush = false;
  /** Closed, or given to a tunnel. */
  #isGone = false;

  /** Takes the connection. */
  constructor(deps: BatchSocketDeps, id: number, addresses: BatchSocketAddresses) {
    this.#deps = deps;
    this.id = id;
    this.#slot = slotOf(id);
    this.peer = addresses.peer;
    this.#originalDestination = addresses.originalDestination;
    deps.loop.watch(this);
  }

  /** Few ask, so the kernel is asked only then. */
  get local(): SocketAddress {
    const { native, loop } = this.#deps;
    return native.localAddress(loop.reactor.fdOf(this.id));
  }

  get originalDestination(): SocketAddress {
    return this.#originalDestination ?? this.local;
  }

  /** Gives the connection away; this end is spent. @returns its id; `undefined` when it failed. */
  take(): number | undefined {
    invariant(!this.#isGone && this.#reading === undefined, "an end is relayed or tunnelled once");
    if (this.#failure !== undefined) {
      this.close();
      return undefined;
    }
    this.#isGone = true;
    return this.id;
  }

  readFirst(byteCount: number): Promise<Uint8Array> {
    invariant(
      this.#reading === undefined && this.#first === undefined,
      "one read at a time comes before the relay",
    );
    const first = new FirstBytes(byteCount);
    if (byteCount === 0) first.take(new Uint8Array());
    else if (this.#isGone || this.#hasEnded) first.fail(undefined);
    else if (this.#failure !== undefined) first.fail(errorOf(this.#failure));
    else {
      this.#first = first;
      this.#deps.loop.credit[this.#slot] = byteCount;
      this.#isHeld = false;
      this.#deps.loop.push(OPERATION.RESUME, this.id, 0, 0);
    }
    return first.arrived;
  }

  writeFirst(bytes: Uint8Array): void {
    const { loop } = this.#deps;
    if (this.#isGone) return;
    loop.copyIn(bytes, (offset, length) => loop.write(this.id, offset, length));
  }

  join(reading: BatchFlow, writing: BatchFlow): void {
    invariant(this.#reading === undefined, "an end is relayed or tunnelled once");
    this.#reading = reading;
    this.#writing = writing;
  }

  start(): void {
    this.resume();
    const failure = this.#isGone ? CLOSED : this.#failure;
    if (failure !== undefined) this.#deps.loop.later(() => this.#reading?.onFailed(this, failure));
  }

  write(offset: number, length: number): void {
    if (this.#isGone) return;
    this.#deps.loop.write(this.id, offset, length);
    this.#awaitFlush();
  }

  finish(): void {
    this.#isFinishing = true;
    if (this.#isGone) return;
    // The last word of a connection that says nothing more: closing it tells the peer, too.
    const isOver = this.#hasEnded && this.#reading?.end === "fin";
    if (!isOver || this.#awaitsFlush || this.backlogBytes > 0) {
      this.#deps.loop.push(OPERATION.END, this.id, 0, 0);
    }
    this.#awaitFlush();
  }

  get backlogBytes(): number {
    return this.#isGone ? 0 : (this.#deps.loop.pending[this.#slot] as number);
  }

  /** One read at a time may be on its way beyond the kernel's buffer. */
  get allowanceBytes(): number {
    return this.backlogBytes === 0 ? this.#deps.loop.readBytesMax : 0;
  }

  resume(): void {
    const allowance = this.#reading?.sink.allowanceBytes ?? 0;
    if (allowance === 0 || this.#isGone || this.#hasEnded) return;
    this.#deps.loop.credit[this.#slot] = allowance;
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#deps.loop.push(OPERATION.RESUME, this.id, 0, 0);
  }

  limit(byteCount: number): void {
    const { credit } = this.#deps.loop;
    if (byteCount === 0) this.hold();
    else if ((credit[this.#slot] as number) > byteCount) credit[this.#slot] = byteCount;
  }

  hold(): void {
    if (this.#isHeld || this.#isGone) return;
    this.#isHeld = true;
    this.#deps.loop.credit[this.#slot] = 0;
  }

  get hasLeftUnread(): boolean {
    if (!this.#isHeld || this.#isGone || this.#reading === undefined) return false;
    const { native, loop } = this.#deps;
    try {
      return readTcpInfo(native, loop.reactor.fdOf(this.id)).state === TCP_CLOSE_WAIT;
    } catch {
      // Not TCP, or just closed.
      return false;
    }
  }

  close(): void {
    this.#leave(OPERATION.CLOSE);
  }

  reset(): void {
    if (this.#isGone) return;
    if (hasUnderWay(this.#deps, this.id)) this.#resetWhenStill(OPERATION.RESET);
    else this.#leave(OPERATION.RESET);
  }

  giveUp(): void {
    if (this.#isGone) return;
    // What is listed was given to it as well.
    this.#deps.loop.flush();
    if (this.backlogBytes > 0) this.#leave(OPERATION.RESET);
    // The kernel goes on delivering, and answers whatever comes with a reset.
    else if (hasUnsent(this.#deps, this.id)) this.#leave(OPERATION.CLOSE);
    else if (hasUnderWay(this.#deps, this.id)) this.#resetWhenStill(OPERATION.CLOSE);
    else this.#leave(OPERATION.RESET);
  }

  read(offset: number, length: number): void {
    const flow = this.#reading;
    if (flow === undefined) {
      this.#takeFirst(offset, length);
      return;
    }
    flow.forward(offset, length, true);
    if (this.#isHeld) return;
    const allowance = flow.sink.allowanceBytes;
    if (allowance === 0) this.hold();
    else this.#deps.loop.credit[this.#slot] = allowance;
  }

  ended(): void {
    this.#hasEnded = true;
    this.#failFirst(undefined);
    this.#reading?.forwardEnd();
  }

  failed(errno: number): void {
    const name = getSystemErrorName(-errno);
    const isPeerGone = name === "ECONNRESET" || name === "EPIPE";
    const error = isPeerGone
      ? undefined
      : new EngineError("system", systemErrorText(name), { errno: name });
    this.#failure = { kind: "reset", error };
    this.#failFirst(error);
    this.#reading?.onFailed(this, this.#failure);
  }

  drained(): void {
    if (this.#isFinishing) this.#writing?.onFinished();
    else this.#writing?.source.resume();
  }

  flushed(): void {
    this.#awaitsFlush = false;
    if (this.#isGone) return;
    const isDrained = this.#deps.loop.pending[this.#slot] === 0;
    if (!isDrained) this.#writing?.source.hold();
    else if (this.#isFinishing) this.#writing?.onFinished();
  }

  accepted(): void {}

  opened(): void {}

  abandon(error: unknown): void {
    const failure = new EngineError("system", String(error), { cause: error });
    this.#failure = { kind: "reset", error: failure };
    if (this.#reading === undefined) this.reset();
    else this.#reading.onFailed(this, this.#failure);
  }

  #takeFirst(offset: number, length: number): void {
    const first = this.#first;
    if (first === undefined) return;
    first.take(this.#deps.loop.arena.subarray(offset, offset + length));
    if (first.missing > 0) {
      this.#deps.loop.credit[this.#slot] = first.missing;
      return;
    }
    this.#first = undefined;
    this.hold();
  }

  #failFirst(error: EngineError | undefined): void {
    this.#first?.fail(error);
    this.#first = undefined;
  }

  #awaitFlush(): void {
    if (this.#awaitsFlush) return;
    this.#awaitsFlush = true;
    this.#deps.loop.flushedSoon(this);
  }

  #resetWhenStill(atLast: number): void {
    this.#isGone = true;
    this.#failFirst(undefined);
    this.#deps.loop.credit[this.#slot] = 0;
    resetWhenStill(this.#deps, this.id, atLast);
  }

  #leave(kind: number): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#failFirst(undefined);
    this.#deps.loop.close(this, kind);
  }
}

function errorOf(failure: SideFailure): EngineError | undefined {
  return failure.kind === "reset" ? failure.error : undefined;
}

/** An end that was closed before it was relayed. */
const CLOSED: SideFailure = { kind: "stopped" };
