/**
 * One CONNECT stream of a tunnel as an end.
 *
 * Bytes towards the peer go from the arena into DATA frames as far as the windows allow; what does
 * not fit is copied and waits. Bytes from the peer go to the sink at once, and their credit is
 * returned when the sink got rid of them. Endings follow spec data-path 6, except that an
 * application's reset stays one: see {@link BatchStream.lost}.
 */
import { ErrorCode } from "../http2/error-code.ts";
import { DATA_HEADER_BYTES, type Http2Connection } from "../http2/http2-connection.ts";
import type { Http2Stream } from "../http2/http2-stream.ts";
import { invariant } from "../runtime/invariant.ts";
import type { BatchLoop } from "./batch-loop.ts";
import type { BatchEnd, BatchFlow } from "./batch-relay.ts";
import type { HeaderFields } from "./engine.ts";
import type { EngineError } from "./engine-error.ts";
import type { SideFailure } from "./side-failure.ts";

/** The tunnel, as its streams know it. */
export interface StreamTunnel {
  readonly id: number;
  readonly loop: BatchLoop;
  readonly connection: Http2Connection<BatchStream>;
  /** More is written than the peer takes: nothing is read towards it. */
  readonly isBlocked: boolean;
  /** Looks at its queue and windows when this turn's writes have been given to the kernel. */
  awaitFlush(writer: BatchStream): void;
}

/** How a stream that nobody answered yet went; `why` in words. */
export type StreamLoss = (why: EngineError) => void;

export class BatchStream implements BatchEnd {
  /** Told once, when the stream is lost before it is an end. */
  lostUnanswered: StreamLoss | undefined;
  /** Told of the peer's answer. */
  answered: ((status: number, headers: Map<string, string>) => void) | undefined;
  readonly #tunnel: StreamTunnel;
  #stream: Http2Stream<BatchStream> | undefined;
  #reading: BatchFlow | undefined;
  #writing: BatchFlow | undefined;
  /** What came before the relay. */
  #early: Uint8Array[] | undefined;
  /** What the windows have no room for. */
  #stash: Uint8Array[] | undefined;
  #stashBytes = 0;
  /** Received, credit not returned. */
  #untakenBytes = 0;
  #failure: SideFailure | undefined;
  #hasEnded = false;
  #isFinishing = false;
  #isFinished = false;
  /** Ended by the peer or with the tunnel. */
  #isGone = false;
  /** Closed or reset by this process. */
  #isLeft = false;

  constructor(tunnel: StreamTunnel) {
    this.#tunnel = tunnel;
  }

  /** Follows the construction, because stream and owner know each other. */
  attach(stream: Http2Stream<BatchStream>): void {
    this.#stream = stream;
  }

  get stream(): Http2Stream<BatchStream> {
    invariant(this.#stream !== undefined, "a stream is attached before it is used");
    return this.#stream;
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  /** Answers the request with 200. */
  respond(headers: HeaderFields): void {
    if (!this.#isGone) this.#tunnel.connection.respond(this.stream, 200, headers);
  }

  /** Answers the request without becoming an end. */
  refuse(status: number): void {
    if (this.#isGone) return;
    this.#leave();
    this.#tunnel.connection.refuse(this.stream, status);
  }

  join(reading: BatchFlow, writing: BatchFlow): void {
    invariant(this.#reading === undefined, "an end is relayed once");
    this.#reading = reading;
    this.#writing = writing;
  }

  start(): void {
    const flow = this.#reading;
    invariant(flow !== undefined, "an end is joined before it starts");
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const bytes of early) {
      this.#tunnel.loop.copyIn(bytes, (offset, length) => flow.forward(offset, length, true));
    }
    this.#returnCredit();
    if (this.#hasEnded) flow.forwardEnd();
    const failure = this.#isLeft ? CLOSED : this.#failure;
    if (failure !== undefined) this.#tunnel.loop.later(() => flow.onFailed(this, failure));
  }

  write(offset: number, length: number, hasHeadroom: boolean): void {
    if (this.#isLeft) return;
    if (this.#isGone) {
      this.#reading?.onFailed(this, { kind: "refused-bytes" });
      return;
    }
    const { connection, loop, id } = this.#tunnel;
    const sendable = this.#stashBytes > 0 ? 0 : connection.sendableBytes(this.stream);
    const sentMax = Math.min(length, sendable);
    let sent = 0;
    while (sent < sentMax) {
      const payloadBytes = Math.min(sentMax - sent, connection.peerFrameBytesMax);
      if (sent === 0 && hasHeadroom) {
        const start = offset - DATA_HEADER_BYTES;
        connection.writeDataHeader(this.stream, start, payloadBytes);
        loop.write(id, start, DATA_HEADER_BYTES + payloadBytes);
      } else {
        const header = loop.reserve(id, DATA_HEADER_BYTES);
        connection.writeDataHeader(this.stream, header, payloadBytes);
        loop.write(id, offset + sent, payloadBytes);
      }
      sent += payloadBytes;
    }
    if (sent < length) this.#keep(loop.arena.slice(offset + sent, offset + length));
    this.#tunnel.awaitFlush(this);
  }

  finish(): void {
    this.#isFinishing = true;
    this.#endWhenSent();
  }

  get backlogBytes(): number {
    return this.#stashBytes;
  }

  get allowanceBytes(): number {
    const { connection, loop, isBlocked } = this.#tunnel;
    // Reading on is how the source learns that nobody listens.
    if (this.#isGone) return loop.readBytesMax;
    if (this.#stashBytes > 0 || isBlocked || this.#isLeft) return 0;
    return Math.min(connection.sendableBytes(this.stream), loop.readBytesMax);
  }

  resume(): void {
    this.#returnCredit();
  }

  /** The windows are the brake of a stream. */
  limit(): void {}

  hold(): void {}

  /** Frames are read as they come; what windows hold back waits at the peer. */
  get hasLeftUnread(): boolean {
    return false;
  }

  close(): void {
    // What is cut short must not look complete.
    if (this.#early !== undefined) this.reset();
    else if (!this.#isLeft) {
      this.#leave();
      if (!this.#isGone) this.#tunnel.connection.drop(this.stream);
    }
  }

  reset(): void {
    if (this.#isLeft) return;
    this.#leave();
    if (!this.#isGone) this.#tunnel.connection.reset(this.stream, ErrorCode.connectError);
  }

  /** Frames keep their order: the reset overtakes nothing. */
  giveUp(): void {
    this.reset();
  }

  /** Payload came. */
  read(offset: number, length: number): void {
    if (this.#isLeft) return;
    this.#untakenBytes += length;
    const flow = this.#reading;
    if (flow === undefined || flow.isCut) {
      this.#early ??= [];
      this.#early.push(this.#tunnel.loop.arena.slice(offset, offset + length));
      this.#tunnel.connection.hold(this.stream);
      return;
    }
    flow.forward(offset, length, false);
    this.#returnCredit();
  }

  /** The peer has ended its direction. */
  ended(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    if (!this.#isLeft) this.#reading?.forwardEnd();
  }

  /** There may be room in the windows, or the tunnel takes bytes again. */
  reopened(): void {
    if (this.#isLeft || this.#isGone) return;
    this.#sendStash();
    this.#endWhenSent();
    if (this.#stashBytes === 0 && !this.#isFinished) this.#writing?.source.resume();
  }

  /** So much may be read towards this stream at once. */
  limited(byteCount: number): void {
    this.#writing?.source.limit(byteCount);
  }

  /** Nothing is to be read towards this stream. */
  blocked(): void {
    this.#writing?.source.hold();
  }

  /**
   * The stream is gone, not by this process.
   *
   * @param failure `undefined` when the peer has merely stopped to talk and to listen.
   */
  lost(failure: SideFailure | undefined, why: EngineError): void {
    if (this.#isGone || this.#isLeft) return;
    this.#isGone = true;
    const { lostUnanswered } = this;
    this.settle();
    lostUnanswered?.(why);
    const isCutShort = this.#stashBytes > 0;
    if (this.#hasEnded && this.#isFinished && !isCutShort) return;
    if (failure === undefined) {
      this.ended();
      if (isCutShort) this.#fail({ kind: "refused-bytes" });
    } else this.#fail(failure);
  }

  /** It has been answered or never will be. */
  settle(): void {
    this.lostUnanswered = undefined;
    this.answered = undefined;
  }

  #fail(failure: SideFailure): void {
    this.#failure = failure;
    if (!this.#isLeft) this.#reading?.onFailed(this, failure);
  }

  #leave(): void {
    this.#isLeft = true;
    this.#early = undefined;
    this.#stash = undefined;
    this.#stashBytes = 0;
  }

  #returnCredit(): void {
    const flow = this.#reading;
    if (this.#untakenBytes === 0 || flow === undefined || flow.isCut) return;
    const { connection } = this.#tunnel;
    if (flow.sink.backlogBytes * 4 >= connection.streamWindowBytes) {
      connection.hold(this.stream);
      return;
    }
    const byteCount = this.#untakenBytes;
    this.#untakenBytes = 0;
    connection.release(this.stream);
    connection.taken(this.stream, byteCount);
  }

  #keep(bytes: Uint8Array): void {
    this.#stash ??= [];
    this.#stash.push(bytes);
    this.#stashBytes += bytes.length;
  }

  #sendStash(): void {
    const { connection, loop, id } = this.#tunnel;
    let hasSent = false;
    while (this.#stash !== undefined && !this.#tunnel.isBlocked) {
      const bytes = this.#stash[0] as Uint8Array;
      const length = Math.min(
        bytes.length,
        connection.sendableBytes(this.stream),
        STASH_FRAME_BYTES_MAX,
      );
      if (length === 0) break;
      const offset = loop.reserve(id, DATA_HEADER_BYTES + length);
      connection.writeDataHeader(this.stream, offset, length);
      loop.arena.set(bytes.subarray(0, length), offset + DATA_HEADER_BYTES);
      this.#stashBytes -= length;
      if (length < bytes.length) this.#stash[0] = bytes.subarray(length);
      else this.#stash.shift();
      if (this.#stash.length === 0) this.#stash = undefined;
      hasSent = true;
    }
    // Once: whoever is counted twice halves the share of all.
    if (hasSent) this.#tunnel.awaitFlush(this);
  }

  #endWhenSent(): void {
    if (!this.#isFinishing || this.#isFinished || this.#stashBytes > 0) return;
    this.#isFinished = true;
    if (!this.#isGone) this.#tunnel.connection.end(this.stream);
    this.#writing?.onFinished();
  }
}

/** An end that was closed before it was relayed. */
const CLOSED: SideFailure = { kind: "stopped" };

/** With its header one full TLS record as the addon sends them; no peer may allow less than 16 KiB. */
const STASH_FRAME_BYTES_MAX = 15 * 1024 - DATA_HEADER_BYTES;
