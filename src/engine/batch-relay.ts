/**
 * Two ends joined: each direction goes on its own until it has ended, and says how.
 *
 * A half-close is passed on after the last byte; a reset of one side resets the other; a side that has
 * said all it had to say may leave without hearing the rest. Bytes go from the arena to the sink within
 * the turn that read them.
 */
import type { BatchLoop } from "./batch-loop.ts";
import type { End, HalfEnd, Relay, RelayOutcome } from "./engine.ts";
import { EngineError } from "./engine-error.ts";
import type { OpenThings } from "./open-things.ts";
import type { QuietRelay, QuietRelays } from "./quiet-relays.ts";
import type { SideFailure } from "./side-failure.ts";

/** A relay whose pieces are smaller on average waits for its turns, not for its bytes. */
const QUIET_PIECE_BYTES_MAX = 8192;

/** An end as its relay drives it. */
export interface BatchEnd extends End {
  /** What it will read into and what it will be given from. Once. */
  join(reading: BatchFlow, writing: BatchFlow): void;
  /** Begins to read; what happened before is told again. Once, when both ends are joined. */
  start(): void;
  /**
   * Takes bytes of the arena, all of them.
   *
   * @param hasHeadroom whether the 16 bytes before them may be overwritten.
   */
  write(offset: number, length: number, hasHeadroom: boolean): void;
  /** Half-close after everything taken has been written; {@link BatchFlow.onFinished} follows. */
  finish(): void;
  /** Bytes taken and not yet given away. */
  readonly backlogBytes: number;
  /** How many bytes it wants to take now. */
  readonly allowanceBytes: number;
  /** Reads on as far as the sink allows. Idempotent. */
  resume(): void;
  /** Reads no more than this at once, nothing at 0, until it is resumed or has read. */
  limit(byteCount: number): void;
  /** Leaves what comes unread. Idempotent. */
  hold(): void;
  /** Its peer has ended its direction, but what it said is not read yet. May ask the kernel. */
  readonly hasLeftUnread: boolean;
  /** Ends it as {@link End.reset} does, but loses nothing that it was given. Idempotent. */
  giveUp(): void;
}

/** One direction. */
export class BatchFlow {
  readonly source: BatchEnd;
  readonly sink: BatchEnd;
  readonly #relay: BatchRelay;
  /** Bytes given to the sink; after the end those that it got rid of. */
  byteCount = 0;
  /** Once set it stays. */
  end: HalfEnd | undefined;
  /** The source has ended in order, also before that has been passed on. */
  hasEnded = false;
  /** The sink takes nothing any more. */
  isCut = false;

  constructor(relay: BatchRelay, source: BatchEnd, sink: BatchEnd) {
    this.#relay = relay;
    this.source = source;
    this.sink = sink;
  }

  forward(offset: number, length: number, hasHeadroom: boolean): void {
    if (this.isCut) return;
    this.#relay.touch(length);
    this.byteCount += length;
    this.sink.write(offset, length, hasHeadroom);
  }

  forwardEnd(): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    this.#relay.onHalfEnded();
    if (!this.isCut) this.sink.finish();
  }

  /** The half-close of the sink is on its way. */
  onFinished(): void {
    this.end ??= "fin";
    this.#relay.check();
  }

  /** Both directions of the side are dead. */
  onFailed(side: BatchEnd, failure: SideFailure): void {
    this.#relay.onFailed(side, failure);
  }
}

export class BatchRelay implements Relay, QuietRelay {
  readonly #loop: BatchLoop;
  readonly #open: OpenThings;
  readonly #quiet: readonly QuietRelays[];
  readonly #downstream: BatchEnd;
  readonly #upstream: BatchEnd;
  readonly #sent: BatchFlow;
  readonly #received: BatchFlow;
  readonly #finished: (outcome: RelayOutcome) => void;
  /** Of late, about. */
  #pieceBytes = 0;
  #firstByteAt = 0;
  #lastActivityAt = 0;
  #error: EngineError | undefined;
  /** What it says goes nowhere. */
  #unheard: BatchEnd | undefined;
  #hasHalfEnded = false;
  #isDone = false;

  /** Takes both sides and begins to copy. */
  constructor(
    deps: {
      readonly loop: BatchLoop;
      readonly open: OpenThings;
      /** Who looks after it while it is silent. */
      readonly quiet: readonly QuietRelays[];
    },
    downstream: BatchEnd,
    upstream: BatchEnd,
    finished: (outcome: RelayOutcome) => void,
  ) {
    this.#loop = deps.loop;
    this.#open = deps.open;
    this.#quiet = deps.quiet;
    this.#downstream = downstream;
    this.#upstream = upstream;
    this.#finished = finished;
    this.#sent = new BatchFlow(this, downstream, upstream);
    this.#received = new BatchFlow(this, upstream, downstream);
    this.#open.add(this);
    for (const relays of this.#quiet) relays.add(this);
    this.#loop.shareTurns();
    downstream.join(this.#sent, this.#received);
    upstream.join(this.#received, this.#sent);
    downstream.start();
    upstream.start();
  }

  get bytesSent(): number {
    return this.#writtenBytes(this.#sent);
  }

  get bytesReceived(): number {
    return this.#writtenBytes(this.#received);
  }

  get firstByteAt(): number {
    return this.#firstByteAt;
  }

  get lastActivityAt(): number {
    return this.#lastActivityAt;
  }

  stop(how: "close" | "reset"): void {
    if (this.#isDone) return;
    this.#sent.end ??= "stopped";
    this.#received.end ??= "stopped";
    this.#settleCounts();
    for (const side of [this.#downstream, this.#upstream]) {
      if (how === "close") side.close();
      else side.reset();
    }
    this.check();
  }

  /** Ends it as the engine does. */
  destroy(): void {
    this.stop("reset");
  }

  /** Bytes are under way. */
  touch(length: number): void {
    this.#pieceBytes += (length - this.#pieceBytes) >> 2;
    if (this.#pieceBytes < QUIET_PIECE_BYTES_MAX) this.#loop.shareTurns();
    this.#lastActivityAt = this.#loop.now;
    if (this.#firstByteAt === 0) this.#firstByteAt = this.#lastActivityAt;
  }

  /** Bytes that both sinks got rid of. */
  get movedBytes(): number {
    return this.bytesSent + this.bytesReceived;
  }

  /**
   * Nothing moves any more. EOF is for those only who miss nothing by it: who waits for an answer, or
   * would not take what there is to read, must not believe to have it all.
   */
  expire(error: EngineError): void {
    this.#error ??= error;
    const isStalled = this.#upstream.allowanceBytes === 0 || this.#downstream.allowanceBytes === 0;
    this.stop(isStalled || this.isHalfClosed ? "reset" : "close");
  }

  /** A source has ended in order. */
  onHalfEnded(): void {
    this.#hasHalfEnded = true;
  }

  get isHalfClosed(): boolean {
    return this.#hasHalfEnded || this.#downstream.hasLeftUnread || this.#upstream.hasLeftUnread;
  }

  /** Ends both sides when both directions have. */
  check(): void {
    if (this.#isDone || this.#sent.end === undefined || this.#received.end === undefined) return;
    this.#settleCounts();
    this.#isDone = true;
    this.#open.delete(this);
    for (const relays of this.#quiet) relays.delete(this);
    this.#unheard?.giveUp();
    this.#downstream.close();
    this.#upstream.close();
    const [sent, received, error] = [this.#sent.end, this.#received.end, this.#error];
    this.#loop.later(() => this.#finished({ sent, received, error }));
  }

  onFailed(side: BatchEnd, failure: SideFailure): void {
    if (this.#isDone) return;
    const isClient = side === this.#downstream;
    const [reading, writing] = isClient
      ? [this.#sent, this.#received]
      : [this.#received, this.#sent];
    writing.byteCount = this.#writtenBytes(writing);
    writing.isCut = true;
    side.close();
    if (failure.kind === "stopped") {
      reading.end ??= "stopped";
      writing.end ??= "stopped";
    } else if (failure.kind === "reset" && !reading.hasEnded) {
      reading.end ??= "reset";
      writing.end ??= "stopped";
      this.#error ??= failure.error;
      reading.sink.reset();
    } else {
      // It had said all it had to say but did not stay for the rest of ours: what it said still
      // reaches the other side, what the other side says goes nowhere, which a reset tells it then.
      writing.source.hold();
      this.#unheard = writing.source;
      if (writing.end === undefined) {
        writing.end = "error";
        this.#error ??=
          (failure.kind === "reset" ? failure.error : undefined) ??
          new EngineError(
            "disconnected",
            `${isClient ? "client" : "destination"} disconnected before all data was written`,
          );
      }
    }
    this.check();
  }

  /** What the sink still holds is not written. */
  #writtenBytes(flow: BatchFlow): number {
    return this.#isDone || flow.isCut ? flow.byteCount : flow.byteCount - flow.sink.backlogBytes;
  }

  /** Before the sinks are closed and forget what they held. */
  #settleCounts(): void {
    for (const flow of [this.#sent, this.#received]) {
      flow.byteCount = this.#writtenBytes(flow);
      flow.isCut = true;
    }
  }
}
