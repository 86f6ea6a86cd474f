/**
 * Two ends joined: each direction copies on its own until it has ended, and says how.
 *
 * A half-close is passed on after the last byte; a reset of one side resets the other; a side that
 * stalls stops the reading of the other, so that a relay never holds more than
 * {@link PENDING_BYTES_MAX} and one read in each direction.
 */

import type { HalfEnd, Relay, RelayOutcome } from "../../../src/engine/engine.ts";
import { EngineError } from "../../../src/engine/engine-error.ts";
import type { OpenThings } from "../../../src/engine/open-things.ts";
import type { SideFailure } from "../../../src/engine/side-failure.ts";
import type { Clock } from "../../../src/runtime/clock.ts";
import type { RelaySide, SideListener } from "./relay-side.ts";

/** Above it the source is held; a read of one buffer comes on top. */
const PENDING_BYTES_MAX = 256 * 1024;

export class NodeRelay implements Relay {
  readonly #sent: RelayHalf;
  readonly #received: RelayHalf;
  readonly #downstream: RelaySide;
  readonly #upstream: RelaySide;
  readonly #clock: Clock;
  readonly #open: OpenThings;
  readonly #entry: { destroy(): void } = { destroy: () => this.stop("reset") };
  readonly #finished: (outcome: RelayOutcome) => void;
  #firstByteAt = 0;
  #lastActivityAt = 0;
  #openSides = 2;
  #error: EngineError | undefined;

  /** Takes both sides. */
  constructor(
    deps: { readonly clock: Clock; readonly open: OpenThings },
    downstream: RelaySide,
    upstream: RelaySide,
    finished: (outcome: RelayOutcome) => void,
  ) {
    this.#clock = deps.clock;
    this.#open = deps.open;
    this.#open.add(this.#entry);
    this.#downstream = downstream;
    this.#upstream = upstream;
    this.#finished = finished;
    this.#sent = new RelayHalf(downstream, upstream);
    this.#received = new RelayHalf(upstream, downstream);
  }

  /** Begins to copy; nothing is called back before it returns. */
  start(): void {
    queueMicrotask(() => {
      this.#downstream.start(this.#listen(this.#sent, this.#received, "client"));
      this.#upstream.start(this.#listen(this.#received, this.#sent, "destination"));
    });
  }

  get bytesSent(): number {
    return this.#sent.byteCount;
  }

  get bytesReceived(): number {
    return this.#received.byteCount;
  }

  get firstByteAt(): number {
    return this.#firstByteAt;
  }

  get lastActivityAt(): number {
    return this.#lastActivityAt;
  }

  stop(how: "close" | "reset"): void {
    this.#sent.end ??= "stopped";
    this.#received.end ??= "stopped";
    for (const side of [this.#downstream, this.#upstream]) {
      if (how === "close") side.close();
      else side.reset();
    }
  }

  /**
   * What one side tells, on its way to the half that reads from it and the one that writes to it.
   *
   * @param name of the side in an error's text.
   */
  #listen(reading: RelayHalf, writing: RelayHalf, name: "client" | "destination"): SideListener {
    return {
      read: (chunk, lease) => reading.forward(chunk, lease),
      ended: () => reading.forwardEnd(),
      written: (byteCount) => {
        this.#touch();
        writing.onWritten(byteCount);
      },
      finished: () => writing.onFinished(),
      failed: (failure) => this.#onFailed(failure, reading, writing, name),
      closed: () => this.#onSideClosed(),
    };
  }

  #touch(): void {
    this.#lastActivityAt = this.#clock.monotonic();
    if (this.#firstByteAt === 0) this.#firstByteAt = this.#lastActivityAt;
  }

  #onFailed(
    failure: SideFailure,
    reading: RelayHalf,
    writing: RelayHalf,
    name: "client" | "destination",
  ): void {
    reading.source.close();
    if (failure.kind === "stopped") {
      reading.end ??= "stopped";
      writing.end ??= "stopped";
      reading.sink.close();
      return;
    }
    if (failure.kind === "reset" && !reading.hasEnded) {
      reading.end ??= "reset";
      writing.end ??= "stopped";
      this.#error ??= failure.error;
      reading.sink.reset();
      return;
    }
    // It had said all it had to say but did not stay for the rest of ours: what it said still
    // reaches the other side, what the other side says goes nowhere.
    if (writing.end === undefined) {
      writing.end = "error";
      this.#error ??=
        (failure.kind === "reset" ? failure.error : undefined) ??
        new EngineError("disconnected", `${name} disconnected before all data was written`);
    }
    writing.cut();
    reading.closeSinkAfterEnd();
  }

  #onSideClosed(): void {
    this.#openSides--;
    if (this.#openSides > 0) return;
    this.#open.delete(this.#entry);
    this.#finished({
      sent: this.#sent.end ?? "stopped",
      received: this.#received.end ?? "stopped",
      error: this.#error,
    });
  }
}

/** One direction. */
class RelayHalf {
  readonly source: RelaySide;
  readonly sink: RelaySide;
  byteCount = 0;
  /** Once set it stays. */
  end: HalfEnd | undefined;
  #hasEnded = false;
  #isHeld = false;
  #isCut = false;
  #closesSink = false;

  constructor(source: RelaySide, sink: RelaySide) {
    this.source = source;
    this.sink = sink;
  }

  /** True when the source has ended in order, also before that has been passed on. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** @returns false when the source is to be held. */
  forward(chunk: Buffer, lease: Buffer | undefined): boolean {
    if (this.#isCut) return false;
    if (this.source.arrivesInPieces) this.sink.gather();
    this.sink.write(chunk, lease);
    this.#isHeld = this.sink.pendingBytes >= PENDING_BYTES_MAX;
    return !this.#isHeld && !this.#isCut;
  }

  forwardEnd(): void {
    this.#hasEnded = true;
    if (!this.#isCut) this.sink.end();
  }

  onWritten(byteCount: number): void {
    this.byteCount += byteCount;
    if (!this.#isHeld || this.sink.pendingBytes >= PENDING_BYTES_MAX) return;
    this.#isHeld = false;
    this.source.resume();
  }

  onFinished(): void {
    this.end ??= "fin";
    if (this.#closesSink) this.sink.close();
  }

  /** The sink takes nothing any more; bytes left unread make the source's peer see RST at the close. */
  cut(): void {
    this.#isCut = true;
  }

  closeSinkAfterEnd(): void {
    this.#closesSink = true;
    if (this.end !== undefined) this.sink.close();
  }
}
