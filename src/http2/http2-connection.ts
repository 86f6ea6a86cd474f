/**
 * One HTTP/2 connection that carries CONNECT streams, as client or server: RFC 9113 as a state
 * machine over bytes in one arena, without sockets or clocks.
 *
 * What comes in is a slice of the arena, what goes out is written into room that the owner reserves.
 * Payload is never copied: the owner gets slices, and sends by having nine bytes written before its
 * own. Numbers and answers follow spec data-path 3.2, 4.2 and the recorded conversations.
 */
import { invariant } from "../runtime/invariant.ts";
import { ConnectionEnd } from "./connection-end.ts";
import { ErrorCode } from "./error-code.ts";
import { FloodGauge } from "./flood-gauge.ts";
import { FRAME_HEADER_BYTES, SettingId } from "./frame.ts";
import { FrameReader } from "./frame-reader.ts";
import { FrameWriter, type Http2Output } from "./frame-writer.ts";
import { Http2Error } from "./http2-error.ts";
import type { Http2Listener } from "./http2-listener.ts";
import type { Http2Settings } from "./http2-settings.ts";
import type { Http2Stream, StreamState } from "./http2-stream.ts";
import { IncomingFrames } from "./incoming-frames.ts";
import { type Http2Fields, MessageWriter } from "./message-writer.ts";
import { PeerSettings } from "./peer-settings.ts";
import { Pings } from "./pings.ts";
import { ReceiveWindows } from "./receive-windows.ts";
import { SendWindows } from "./send-windows.ts";
import { StreamEndings } from "./stream-endings.ts";
import { StreamTable } from "./stream-table.ts";

/** Room that {@link Http2Connection.writeDataHeader} needs before the payload. */
export const DATA_HEADER_BYTES: number = FRAME_HEADER_BYTES;

export interface Http2ConnectionDeps<Owner> {
  /** Holds what is received and what is reserved, for the life of the connection. */
  readonly arena: Uint8Array;
  readonly output: Http2Output;
  readonly listener: Http2Listener<Owner>;
}

export interface Http2ConnectionOptions {
  readonly role: "client" | "server";
  readonly settings: Http2Settings;
}

export class Http2Connection<Owner> {
  readonly #isServer: boolean;
  readonly #settings: Http2Settings;
  readonly #floods: FloodGauge;
  /** Half of what we grant the peer, which counts our acknowledgements of its changes, too. */
  readonly #resizes = new FloodGauge(50);
  readonly #reader: FrameReader;
  readonly #frames: FrameWriter;
  readonly #messages: MessageWriter;
  readonly #pings: Pings;
  readonly #streams: StreamTable<Owner>;
  readonly #sendWindows: SendWindows<Owner>;
  readonly #receiveWindows: ReceiveWindows<Owner>;
  readonly #endings: StreamEndings<Owner>;
  readonly #peer: PeerSettings<Owner>;
  readonly #end: ConnectionEnd<Owner>;

  constructor(deps: Http2ConnectionDeps<Owner>, { role, settings }: Http2ConnectionOptions) {
    const { listener } = deps;
    const floods = new FloodGauge(settings.floodPercent);
    const resizes = this.#resizes;
    const frames = new FrameWriter(deps.arena, deps.output);
    const messages = new MessageWriter(frames);
    const pings = new Pings(frames);
    const streams = new StreamTable<Owner>();
    const sendWindows = new SendWindows<Owner>(streams);
    const receiveWindows = new ReceiveWindows<Owner>({ frames, streams, resizes }, settings);
    const peer = new PeerSettings<Owner>({ messages, sendWindows }, role);
    const end = new ConnectionEnd<Owner>(
      {
        frames,
        streams,
        stopped: () => {
          this.#reader.stop();
          receiveWindows.stop();
        },
        finished: (failure) => listener.finished(failure),
      },
      role,
    );
    const endings = new StreamEndings<Owner>({ frames, streams, receiveWindows, end });
    const incoming = new IncomingFrames<Owner>(
      {
        listener,
        frames,
        messages,
        pings,
        streams,
        sendWindows,
        receiveWindows,
        endings,
        peer,
        end,
        floods,
      },
      { role, settings },
    );
    this.#reader = new FrameReader(deps.arena, incoming, { role, ...settings });
    this.#floods = floods;
    this.#isServer = role === "server";
    this.#settings = settings;
    this.#frames = frames;
    this.#messages = messages;
    this.#pings = pings;
    this.#streams = streams;
    this.#sendWindows = sendWindows;
    this.#receiveWindows = receiveWindows;
    this.#endings = endings;
    this.#peer = peer;
    this.#end = end;
  }

  // ---- the connection

  /** Writes our greeting. Call once, first; a client may open streams right behind it. */
  start(): void {
    const { streamWindowBytes, frameBytesMax, headerListBytesMax, streamsMax } = this.#settings;
    const first = this.#isServer
      ? ([SettingId.maxConcurrentStreams, streamsMax] as const)
      : ([SettingId.enablePush, 0] as const);
    if (!this.#isServer) this.#frames.preface();
    this.#frames.settings([
      first,
      [SettingId.initialWindowSize, streamWindowBytes],
      [SettingId.maxFrameSize, frameBytesMax],
      [SettingId.maxHeaderListSize, headerListBytesMax],
    ]);
    this.#receiveWindows.start();
  }

  /**
   * Reads what the peer sent; any pieces will do.
   *
   * @param offset of the piece in the arena.
   * @param now monotonic milliseconds, to tell a flood from long use.
   */
  receive(offset: number, length: number, now: number): void {
    if (this.#end.isFinished) return;
    this.#floods.advance(now);
    this.#resizes.advance(now);
    try {
      this.#reader.read(offset, length);
    } catch (error) {
      if (!(error instanceof Http2Error)) throw error;
      this.#end.fail(error);
    }
  }

  /** Whether {@link open} makes sense: nobody has said goodbye. */
  get usable(): boolean {
    return this.#end.isFarOff;
  }

  get streamCount(): number {
    return this.#streams.count;
  }

  /** Client: how many streams may be open at once. */
  get streamsMax(): number {
    return Math.min(this.#settings.streamsMax, this.#peer.streamsMax);
  }

  /** The open streams. */
  streams(): Iterable<Http2Stream<Owner>> {
    return this.#streams.values();
  }

  /** Longest payload that the peer takes in one frame. */
  get peerFrameBytesMax(): number {
    return this.#peer.frameBytesMax;
  }

  /** Asks for a sign of life; nothing as long as one is awaited. */
  ping(): void {
    if (!this.#end.isFinished) this.#pings.send("keep-alive");
  }

  /**
   * Server: begins to go. Streams that the client sends before it reads this are served; what comes
   * after its answer is not. Ends with the last stream. Idempotent.
   *
   * @see RFC 9113 section 6.8
   */
  drain(): void {
    if (!this.usable) return;
    this.#end.announce();
    this.#pings.send("drain");
  }

  /** No new streams from now on; ends with the last one. Idempotent. */
  close(): void {
    this.#end.close();
  }

  /** GOAWAY now. Everything is over; the listener is not called any more. */
  terminate(code: number): void {
    this.#end.terminate(code);
  }

  // ---- streams

  /**
   * Client: sends a CONNECT.
   *
   * @returns `undefined` when the connection is not usable or carries as many streams as it may.
   */
  open(authority: string, headers: Http2Fields, owner: Owner): Http2Stream<Owner> | undefined {
    if (this.#isServer || !this.usable || this.#streams.count >= this.streamsMax) return undefined;
    const id = this.#streams.takeId();
    if (id === undefined) return undefined;
    const stream = this.#streams.add(
      id,
      this.#sendWindows.initialBytes,
      this.#receiveWindows.initialBytes,
    );
    stream.owner = owner;
    this.#messages.request(id, authority, headers);
    return stream;
  }

  /** Server: answers and leaves the stream open. Nothing when it is closed or answered. */
  respond(stream: Http2Stream<Owner>, status: number, headers: Http2Fields): void {
    const state = this.#live(stream);
    if (state === undefined || state.isAnswered) return;
    state.isAnswered = true;
    this.#messages.answer(state.id, status, headers, false);
  }

  /** Server: answers and ends the stream; the peer is told not to send the rest. */
  refuse(stream: Http2Stream<Owner>, status: number): void {
    const state = this.#live(stream);
    if (state === undefined || state.isAnswered) return;
    state.isAnswered = true;
    state.hasEnded = true;
    this.#messages.answer(state.id, status, [], true);
    if (!state.hasPeerEnded) this.#endings.sendReset(state.id, ErrorCode.noError);
    this.#endings.abandon(state);
    this.#end.check();
  }

  /** Sends END_STREAM in an empty DATA frame, for which no window is needed. Idempotent. */
  end(stream: Http2Stream<Owner>): void {
    const state = this.#live(stream);
    if (state === undefined || state.hasEnded) return;
    this.#frames.endOfStream(state.id);
    this.#endings.weEnded(state);
  }

  /** Sends RST_STREAM. Idempotent; of a closed stream only what was not taken is given up. */
  reset(stream: Http2Stream<Owner>, code: number): void {
    const state = this.#live(stream);
    if (state !== undefined) this.#endings.sendReset(state.id, code);
    this.#endings.abandon(stream as StreamState<Owner>);
    this.#end.check();
  }

  /**
   * Leaves a stream whatever its state: CANCEL, or NO_ERROR where a server has said all it had to
   * say. Idempotent; what was not taken of it is given up.
   */
  drop(stream: Http2Stream<Owner>): void {
    const isDone = this.#isServer && stream.hasEnded;
    this.reset(stream, isDone ? ErrorCode.noError : ErrorCode.cancel);
  }

  // ---- DATA

  /** How many bytes the windows let through now; 0 too when nothing may be sent any more. */
  sendableBytes(stream: Http2Stream<Owner>): number {
    const state = this.#live(stream);
    if (state === undefined || state.hasEnded) return 0;
    return this.#sendWindows.available(state);
  }

  /** How many bytes of all streams together the connection's window lets through now. */
  get sendWindowBytes(): number {
    return this.#sendWindows.bytes;
  }

  /**
   * Writes the header of a DATA frame and takes its payload from the windows.
   *
   * @param offset in the arena; {@link DATA_HEADER_BYTES} are written. The payload must follow it on
   *   the wire.
   * @param length of the payload, above 0, at most {@link sendableBytes} and
   *   {@link peerFrameBytesMax}.
   */
  writeDataHeader(stream: Http2Stream<Owner>, offset: number, length: number): void {
    const state = stream as StreamState<Owner>;
    invariant(
      length > 0 && length <= this.#peer.frameBytesMax && length <= this.sendableBytes(stream),
      "payload exceeds what the peer allows",
    );
    this.#sendWindows.spend(state, length);
    this.#frames.dataHeader(state.id, offset, length);
  }

  /**
   * The owner has passed on bytes that it got by `data`: the peer may send as many again. Counts
   * also after the stream has ended, for the connection's window; not after a reset.
   */
  taken(stream: Http2Stream<Owner>, byteCount: number): void {
    this.#receiveWindows.take(stream as StreamState<Owner>, byteCount);
  }

  /**
   * Nobody takes what comes on this stream: it is not to stall the others. The connection's window
   * is given back for what it holds, and the windows of the streams shrink while many are held, so
   * that together they hold about as much as the connection's window. Idempotent.
   */
  hold(stream: Http2Stream<Owner>): void {
    const state = this.#live(stream);
    if (state !== undefined) this.#receiveWindows.hold(state);
  }

  /** What comes is taken again. Idempotent; a stream that ends is released. */
  release(stream: Http2Stream<Owner>): void {
    this.#receiveWindows.release(stream as StreamState<Owner>);
  }

  /** The window of a stream whose peer knows what we said last. */
  get streamWindowBytes(): number {
    return this.#receiveWindows.announcedBytes;
  }

  /** Streams are made in the table only, whatever their owners see of them. */
  #live(stream: Http2Stream<Owner>): StreamState<Owner> | undefined {
    return this.#end.isFinished || stream.isClosed ? undefined : (stream as StreamState<Owner>);
  }
}
