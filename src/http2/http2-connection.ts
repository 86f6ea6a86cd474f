/**
 * One HTTP/2 connection that carries CONNECT streams, as client or server: RFC 9113 as a state
 * machine over bytes in one arena, without sockets or clocks.
 *
 * What comes in is a slice of the arena, what goes out is written into room that the owner reserves.
 * Payload is never copied: the owner gets slices, and sends by having nine bytes written before its
 * own. Numbers and answers follow spec data-path 3.2, 4.2 and the recorded conversations.
 */
import { invariant } from "../runtime/invariant.ts";
import { ErrorCode } from "./error-code.ts";
import { FLOOD_LIMITS, FloodGauge, type FloodKind } from "./flood-gauge.ts";
import {
  FRAME_BYTES_DEFAULT,
  FRAME_BYTES_MAX,
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  PING_BYTES,
  PREFACE,
  SETTING_BYTES,
  SettingId,
  STREAM_ID_MAX,
  WINDOW_BYTES_DEFAULT,
  WINDOW_BYTES_MAX,
} from "./frame.ts";
import { FrameReader } from "./frame-reader.ts";
import {
  writeFrameHeader,
  writeGoaway,
  writePing,
  writeRstStream,
  writeSettings,
  writeSettingsAck,
  writeWindowUpdate,
} from "./frame-writer.ts";
import { HpackDecoder } from "./hpack-decoder.ts";
import { HpackEncoder } from "./hpack-encoder.ts";
import { Http2Error, type Http2ErrorCode } from "./http2-error.ts";
import { type Http2Stream, StreamState } from "./http2-stream.ts";
import { type Http2Request, parseRequest, parseResponse } from "./message-fields.ts";

/** The most that is reserved at once: a frame of the size that every peer takes. */
export const OUTPUT_BYTES_MAX: number = FRAME_HEADER_BYTES + FRAME_BYTES_DEFAULT;

/** Room that {@link Http2Connection.writeDataHeader} needs before the payload. */
export const DATA_HEADER_BYTES: number = FRAME_HEADER_BYTES;

/** Streams that we have reset, whose frames under way are no fault of the peer. */
const RESET_STREAMS_MAX = 1024;

/** A stream always may send this much, so that a shared connection never stands still. */
const STREAM_WINDOW_BYTES_MIN = 64 * 1024;

/** Growing waits until windows may be so many times as large, or the peer is told at every pause. */
const WINDOW_GROWTH_MIN = 4;

/** Increments below this are counted; a peer with full-sized buffers has no use for them. */
const SMALL_WINDOW_BYTES = 1024;

/** What pings carry; the values of the original, so that captures look alike. */
const KEEP_ALIVE_PING: Uint8Array = Buffer.from("3b7cdb7a0b8716b4", "hex");
const DRAIN_PING: Uint8Array = Buffer.from("0b7ba2f08b9bfe54", "hex");

/** RFC 9113 section 7 for what breaks a connection. */
const CODES: Readonly<Record<Http2ErrorCode, number>> = {
  protocol: ErrorCode.protocolError,
  "frame-size": ErrorCode.frameSizeError,
  "flow-control": ErrorCode.flowControlError,
  "stream-closed": ErrorCode.streamClosed,
  compression: ErrorCode.compressionError,
  flood: ErrorCode.enhanceYourCalm,
};

/** Our numbers, RFC 9113 section 6.5.2. */
export interface Http2Settings {
  /** SETTINGS_INITIAL_WINDOW_SIZE, bytes. */
  readonly streamWindowBytes: number;
  /** Receive window of the whole connection, bytes; not below 65535. */
  readonly connectionWindowBytes: number;
  /** SETTINGS_MAX_FRAME_SIZE, bytes, 16384 to 16777215. */
  readonly frameBytesMax: number;
  /** SETTINGS_MAX_HEADER_LIST_SIZE, bytes. */
  readonly headerListBytesMax: number;
  /** Server: SETTINGS_MAX_CONCURRENT_STREAMS. Client: the most it opens, whatever the peer allows. */
  readonly streamsMax: number;
}

/** Header fields beside pseudo-headers, lower-case names, in wire order. */
export type Http2Fields = readonly (readonly [name: string, value: string])[];

/** Where frames other than DATA go. */
export interface Http2Output {
  /**
   * Makes room behind everything that was written to this connection so far.
   *
   * @param length at most {@link OUTPUT_BYTES_MAX}.
   * @returns its offset in the arena; all of it is filled before anything else is asked for.
   */
  reserve(length: number): number;
}

/** Why a connection ended that should not have. */
export interface Http2Failure {
  /** RFC 9113 section 7. */
  readonly code: number;
  readonly message: string;
  /** `peer`: it said so by GOAWAY. `us`: it broke a rule, and GOAWAY is in the output. */
  readonly by: "peer" | "us";
}

/**
 * What happens on a connection. Called from within {@link Http2Connection.receive} and may call
 * back; `finished` also from whatever call ended the last stream.
 */
export interface Http2Listener<Owner> {
  /** Server: a well-formed request; answer now or later. Its data may come before the answer. */
  requested(stream: Http2Stream<Owner>, request: Http2Request): void;
  /** Client: the final answer; interim ones are skipped. */
  responded(stream: Http2Stream<Owner>, status: number, headers: Map<string, string>): void;
  /** A slice of payload in the arena, valid during the call; give it to `taken` in time. */
  data(stream: Http2Stream<Owner>, offset: number, length: number): void;
  /** The peer's END_STREAM, after its last data. */
  ended(stream: Http2Stream<Owner>): void;
  /** The stream is gone: the peer reset it, or broke a rule so that we did. */
  reset(stream: Http2Stream<Owner>, code: number, by: "peer" | "us"): void;
  /** More may be sent on this stream than before, as far as the connection allows. */
  windowOpened(stream: Http2Stream<Owner>): void;
  /** More may be sent on all streams than before, or less. */
  windowsOpened(): void;
  /** The peer's first SETTINGS have come. */
  settled(): void;
  /** The answer to {@link Http2Connection.ping}. */
  ponged(): void;
  /**
   * The peer's GOAWAY. Own streams above `lastStreamId` have been given to `reset` as REFUSED_STREAM
   * before.
   */
  goneAway(lastStreamId: number, code: number): void;
  /**
   * The last call. `undefined` after an orderly end: all streams have ended. After a failure, those
   * of {@link Http2Connection.streams} have not, and are not reported one by one.
   */
  finished(failure: Http2Failure | undefined): void;
}

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
  readonly #arena: Uint8Array;
  readonly #output: Http2Output;
  readonly #listener: Http2Listener<Owner>;
  readonly #isServer: boolean;
  readonly #settings: Http2Settings;
  readonly #reader: FrameReader;
  readonly #decoder = new HpackDecoder();
  readonly #encoder = new HpackEncoder();
  readonly #floods = new FloodGauge();
  readonly #streams = new Map<number, StreamState<Owner>>();
  /** In the order of their reset. */
  readonly #resetIds = new Set<number>();

  /** Monotonic milliseconds of the bytes that are being read. */
  #now = 0;
  /** Highest stream that the client has opened; as client our own. */
  #streamIdMax = -1;
  #isFinished = false;
  /** No new streams; ends with the last one. */
  #isClosing = false;
  #isDraining = false;
  /** Highest stream of the peer that we still answer. */
  #acceptedIdMax = STREAM_ID_MAX;
  #hasSaidGoodbye = false;
  #hasPeerGone = false;
  #peerFailure: Http2Failure | undefined;
  #isPinging = false;

  // What the peer allows.
  #isSettled = false;
  #peerFrameBytesMax = FRAME_BYTES_DEFAULT;
  #peerStreamWindow = WINDOW_BYTES_DEFAULT;
  #peerStreamsMax = Number.POSITIVE_INFINITY;
  #sendWindow = WINDOW_BYTES_DEFAULT;
  #haveWindowsChanged = false;

  // What we allow.
  readonly #connectionWindow: number;
  /** What the peer counts with at most: of what was said and what was acknowledged the larger. */
  #streamWindow: number;
  /** What we said last. */
  #announcedWindow: number;
  #awaitsAcknowledgement = true;
  #heldStreams = 0;
  /** Half of what we grant the peer, which counts our acknowledgements of its changes, too. */
  readonly #resizes = new FloodGauge(0.5);
  #receiveWindow: number;
  #creditDue = 0;

  // The DATA frame that is being read.
  #dataStream: StreamState<Owner> | undefined;
  #dataBytes = 0;

  constructor(deps: Http2ConnectionDeps<Owner>, options: Http2ConnectionOptions) {
    const { role, settings } = options;
    this.#arena = deps.arena;
    this.#output = deps.output;
    this.#listener = deps.listener;
    this.#isServer = role === "server";
    this.#settings = settings;
    this.#connectionWindow = Math.max(settings.connectionWindowBytes, WINDOW_BYTES_DEFAULT);
    this.#receiveWindow = this.#connectionWindow;
    this.#announcedWindow = settings.streamWindowBytes;
    this.#streamWindow = Math.max(settings.streamWindowBytes, WINDOW_BYTES_DEFAULT);
    this.#reader = new FrameReader(
      deps.arena,
      {
        dataBegun: (streamId, length) => this.#onDataBegun(streamId, length),
        data: (offset, length) => this.#onData(offset, length),
        dataEnded: (paddingBytes, endStream) => this.#onDataEnded(paddingBytes, endStream),
        headers: (streamId, bytes, offset, length, endStream) =>
          this.#onHeaders(streamId, bytes, offset, length, endStream),
        ignored: () => this.#charge("ignored"),
        rstStream: (streamId, code) => this.#onRstStream(streamId, code),
        setting: (id, value) => this.#onSetting(id, value),
        settingsEnded: () => this.#onSettingsEnded(),
        settingsAcknowledged: () => this.#onSettingsAcknowledged(),
        ping: (bytes, offset, isAck) => this.#onPing(bytes, offset, isAck),
        goaway: (lastStreamId, code, debug) => this.#onGoaway(lastStreamId, code, debug),
        windowUpdate: (streamId, increment) => this.#onWindowUpdate(streamId, increment),
      },
      {
        role,
        frameBytesMax: settings.frameBytesMax,
        headerListBytesMax: settings.headerListBytesMax,
      },
    );
  }

  // ---- the connection

  /** Writes our greeting. Call once, first; a client may open streams right behind it. */
  start(): void {
    const { streamWindowBytes, frameBytesMax, headerListBytesMax, streamsMax } = this.#settings;
    const first = this.#isServer
      ? ([SettingId.maxConcurrentStreams, streamsMax] as const)
      : ([SettingId.enablePush, 0] as const);
    const settings = [
      first,
      [SettingId.initialWindowSize, streamWindowBytes],
      [SettingId.maxFrameSize, frameBytesMax],
      [SettingId.maxHeaderListSize, headerListBytesMax],
    ] as const;
    const prefaceBytes = this.#isServer ? 0 : PREFACE.length;
    const settingsBytes = FRAME_HEADER_BYTES + settings.length * SETTING_BYTES;
    const offset = this.#output.reserve(prefaceBytes + settingsBytes);
    if (!this.#isServer) this.#arena.set(PREFACE, offset);
    writeSettings(this.#arena, offset + prefaceBytes, settings);
    const increment = this.#connectionWindow - WINDOW_BYTES_DEFAULT;
    if (increment > 0) this.#writeWindowUpdate(0, increment);
  }

  /**
   * Reads what the peer sent; any pieces will do.
   *
   * @param offset of the piece in the arena.
   * @param now monotonic milliseconds, to tell a flood from long use.
   */
  receive(offset: number, length: number, now: number): void {
    if (this.#isFinished) return;
    this.#now = now;
    try {
      this.#reader.read(offset, length);
    } catch (error) {
      if (!(error instanceof Http2Error)) throw error;
      if (this.#isFinished) return;
      const code = CODES[error.code];
      this.#writeGoaway(this.#lastPeerStreamId(), code, error.message);
      this.#finish({ code, message: error.message, by: "us" });
    }
  }

  /** Whether {@link open} makes sense: nobody has said goodbye. */
  get usable(): boolean {
    return !this.#isFinished && !this.#isClosing && !this.#isDraining && !this.#hasPeerGone;
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  /** Client: how many streams may be open at once. */
  get streamsMax(): number {
    return Math.min(this.#settings.streamsMax, this.#peerStreamsMax);
  }

  /** The open streams. */
  streams(): Iterable<Http2Stream<Owner>> {
    return this.#streams.values();
  }

  /** Longest payload that the peer takes in one frame. */
  get peerFrameBytesMax(): number {
    return this.#peerFrameBytesMax;
  }

  /** Asks for a sign of life; nothing as long as one is awaited. */
  ping(): void {
    if (this.#isFinished || this.#isPinging) return;
    this.#isPinging = true;
    this.#writePing(KEEP_ALIVE_PING);
  }

  /**
   * Server: begins to go. Streams that the client sends before it reads this are served; what comes
   * after its answer is not. Ends with the last stream. Idempotent.
   *
   * @see RFC 9113 section 6.8
   */
  drain(): void {
    if (!this.usable) return;
    this.#isDraining = true;
    this.#writeGoaway(STREAM_ID_MAX, ErrorCode.noError, "");
    this.#writePing(DRAIN_PING);
  }

  /** No new streams from now on; ends with the last one. Idempotent. */
  close(): void {
    if (this.#isFinished || this.#isClosing) return;
    this.#isClosing = true;
    if (this.#isServer) this.#sayGoodbye();
    this.#finishIfDone();
  }

  /** GOAWAY now. Everything is over; the listener is not called any more. */
  terminate(code: number): void {
    if (this.#isFinished) return;
    this.#writeGoaway(this.#lastPeerStreamId(), code, "");
    this.#isFinished = true;
    this.#reader.stop();
  }

  // ---- streams

  /**
   * Client: sends a CONNECT.
   *
   * @returns `undefined` when the connection is not usable or carries as many streams as it may.
   */
  open(authority: string, headers: Http2Fields, owner: Owner): Http2Stream<Owner> | undefined {
    if (this.#isServer || !this.usable || this.#streams.size >= this.streamsMax) return undefined;
    const id = this.#streamIdMax + 2;
    if (id > STREAM_ID_MAX) return undefined;
    this.#streamIdMax = id;
    const stream = this.#add(id);
    stream.owner = owner;
    this.#encoder.begin();
    this.#encoder.add(":method", "CONNECT");
    this.#encoder.add(":authority", authority);
    this.#writeBlock(id, headers, false);
    return stream;
  }

  /** Server: answers and leaves the stream open. Nothing when it is closed or answered. */
  respond(stream: Http2Stream<Owner>, status: number, headers: Http2Fields): void {
    const state = this.#live(stream);
    if (state === undefined || state.isAnswered) return;
    state.isAnswered = true;
    this.#writeStatus(state.id, status, headers, false);
  }

  /** Server: answers and ends the stream; the peer is told not to send the rest. */
  refuse(stream: Http2Stream<Owner>, status: number): void {
    const state = this.#live(stream);
    if (state === undefined || state.isAnswered) return;
    state.isAnswered = true;
    state.hasEnded = true;
    this.#writeStatus(state.id, status, [], true);
    if (!state.hasPeerEnded) this.#writeReset(state.id, ErrorCode.noError);
    this.#abandon(state);
    this.#finishIfDone();
  }

  /** Sends END_STREAM in an empty DATA frame, for which no window is needed. Idempotent. */
  end(stream: Http2Stream<Owner>): void {
    const state = this.#live(stream);
    if (state === undefined || state.hasEnded) return;
    state.hasEnded = true;
    const offset = this.#output.reserve(FRAME_HEADER_BYTES);
    writeFrameHeader(this.#arena, offset, 0, FrameType.data, FrameFlag.endStream, state.id);
    if (!state.hasPeerEnded) return;
    this.#remove(state);
    this.#finishIfDone();
  }

  /** Sends RST_STREAM. Idempotent; of a closed stream only what was not taken is given up. */
  reset(stream: Http2Stream<Owner>, code: number): void {
    const state = this.#live(stream);
    if (state !== undefined) this.#writeReset(state.id, code);
    this.#abandon(stream as StreamState<Owner>);
    this.#finishIfDone();
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
    return Math.max(0, Math.min(state.sendWindow, this.#sendWindow));
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
      length > 0 && length <= this.#peerFrameBytesMax && length <= this.sendableBytes(stream),
      "payload exceeds what the peer allows",
    );
    state.sendWindow -= length;
    this.#sendWindow -= length;
    writeFrameHeader(this.#arena, offset, length, FrameType.data, 0, state.id);
  }

  /**
   * The owner has passed on bytes that it got by `data`: the peer may send as many again. Counts
   * also after the stream has ended, for the connection's window; not after a reset.
   */
  taken(stream: Http2Stream<Owner>, byteCount: number): void {
    if (this.#isFinished) return;
    const state = stream as StreamState<Owner>;
    const count = Math.min(byteCount, state.untaken);
    const lent = Math.min(count, state.lent);
    state.untaken -= count;
    state.lent -= lent;
    this.#giveCredit(count - lent);
    if (state.hasPeerEnded || state.isClosed) return;
    state.creditDue += count;
    this.#giveStreamCredit(state);
  }

  /**
   * Nobody takes what comes on this stream: it is not to stall the others. The connection's window
   * is given back for what it holds, and the windows of the streams shrink while many are held, so
   * that together they hold about as much as the connection's window. Idempotent.
   */
  hold(stream: Http2Stream<Owner>): void {
    const state = this.#live(stream);
    if (state === undefined || state.isHeld) return;
    state.isHeld = true;
    this.#heldStreams++;
    this.#giveCredit(state.untaken - state.lent);
    state.lent = state.untaken;
    this.#adjustStreamWindows();
  }

  /** What comes is taken again. Idempotent; a stream that ends is released. */
  release(stream: Http2Stream<Owner>): void {
    const state = stream as StreamState<Owner>;
    if (!state.isHeld) return;
    state.isHeld = false;
    this.#heldStreams--;
    if (!this.#isFinished) this.#adjustStreamWindows();
  }

  /** The window of a stream whose peer knows what we said last. */
  get streamWindowBytes(): number {
    return this.#announcedWindow;
  }

  /** At most one change per round trip: the next waits for the peer's acknowledgement. */
  #adjustStreamWindows(): void {
    const bytes = this.#fairStreamWindow();
    const before = this.#announcedWindow;
    const isFull = bytes === this.#settings.streamWindowBytes;
    const changes =
      bytes < before || bytes >= before * WINDOW_GROWTH_MIN || (isFull && bytes > before);
    if (!changes || this.#awaitsAcknowledgement) return;
    if (!this.#resizes.charge("settings", this.#now)) return;
    this.#awaitsAcknowledgement = true;
    this.#announcedWindow = bytes;
    if (bytes > this.#streamWindow) this.#resizeReceiveWindows(bytes);
    const offset = this.#output.reserve(FRAME_HEADER_BYTES + SETTING_BYTES);
    writeSettings(this.#arena, offset, [[SettingId.initialWindowSize, bytes]]);
    // What was too little to tell may be all that a smaller window has.
    for (const state of this.#streams.values()) this.#giveStreamCredit(state);
  }

  /** A power of two below the full window, so that small changes of the count change nothing. */
  #fairStreamWindow(): number {
    const { streamWindowBytes } = this.#settings;
    const share = this.#connectionWindow / Math.max(1, this.#heldStreams);
    if (share >= streamWindowBytes) return streamWindowBytes;
    const bytes = Math.max(STREAM_WINDOW_BYTES_MIN, 2 ** Math.floor(Math.log2(share)));
    return Math.min(bytes, streamWindowBytes);
  }

  #giveStreamCredit(state: StreamState<Owner>): void {
    if (state.creditDue * 2 < this.#announcedWindow || state.creditDue === 0) return;
    if (state.hasPeerEnded) return;
    this.#writeWindowUpdate(state.id, state.creditDue);
    state.receiveWindow += state.creditDue;
    state.creditDue = 0;
  }

  #giveCredit(byteCount: number): void {
    this.#creditDue += byteCount;
    if (this.#creditDue * 4 < this.#connectionWindow || this.#creditDue === 0) return;
    this.#writeWindowUpdate(0, this.#creditDue);
    this.#receiveWindow += this.#creditDue;
    this.#creditDue = 0;
  }

  #onDataBegun(streamId: number, length: number): void {
    if (length > this.#receiveWindow) {
      throw new Http2Error(
        "flow-control",
        `DATA of ${length} bytes exceeds the connection's window`,
      );
    }
    this.#receiveWindow -= length;
    this.#dataBytes = 0;
    const stream = this.#streams.get(streamId);
    this.#dataStream = stream;
    if (stream === undefined) {
      this.#expectOpened(streamId, "DATA");
      this.#giveCredit(length);
      this.#answerClosed(streamId);
      return;
    }
    stream.untaken += length;
    if (stream.hasPeerEnded) {
      this.#fail(stream, ErrorCode.streamClosed);
      return;
    }
    if (!this.#isServer && !stream.isAnswered) {
      this.#fail(stream, ErrorCode.protocolError);
      return;
    }
    if (length > Math.max(0, stream.receiveWindow)) {
      this.#fail(stream, ErrorCode.flowControlError);
      return;
    }
    stream.receiveWindow -= length;
    if (!stream.isHeld) return;
    stream.lent += length;
    this.#giveCredit(length);
  }

  #onData(offset: number, length: number): void {
    this.#dataBytes += length;
    const stream = this.#dataStream;
    if (stream !== undefined && !stream.isAbandoned) this.#listener.data(stream, offset, length);
  }

  #onDataEnded(paddingBytes: number, endStream: boolean): void {
    const stream = this.#dataStream;
    if (!endStream && this.#dataBytes === 0) this.#charge("emptyData");
    this.#dataStream = undefined;
    if (stream === undefined || stream.isAbandoned) return;
    if (endStream) this.#onPeerEnded(stream);
    if (paddingBytes > 0) this.taken(stream, paddingBytes);
  }

  #onPeerEnded(stream: StreamState<Owner>): void {
    if (stream.isAbandoned || this.#isFinished) return;
    stream.hasPeerEnded = true;
    if (stream.hasEnded) this.#remove(stream);
    this.#listener.ended(stream);
    this.#finishIfDone();
  }

  // ---- HEADERS

  #onHeaders(
    streamId: number,
    bytes: Buffer,
    offset: number,
    length: number,
    endStream: boolean,
  ): void {
    const { headerListBytesMax } = this.#settings;
    // Whatever becomes of it: the peer's table changed with it.
    const fields = this.#decoder.decode(bytes, offset, length, headerListBytesMax);
    const stream = this.#streams.get(streamId);
    if (stream?.hasPeerEnded) {
      this.#fail(stream, ErrorCode.streamClosed);
      return;
    }
    if (!this.#isServer) {
      this.#onResponse(stream, streamId, fields, endStream);
      return;
    }
    // A tunnel has no trailers. RFC 9113 section 8.5.
    if (stream !== undefined) {
      this.#fail(stream, ErrorCode.protocolError);
      return;
    }
    this.#onRequest(streamId, fields, endStream);
  }

  #onRequest(streamId: number, fields: readonly string[] | undefined, endStream: boolean): void {
    if (streamId > this.#acceptedIdMax || this.#resetIds.has(streamId)) return;
    if (streamId % 2 === 0) throw new Http2Error("protocol", `client opens stream ${streamId}`);
    if (streamId <= this.#streamIdMax) {
      throw new Http2Error("stream-closed", `HEADERS on stream ${streamId}, which is closed`);
    }
    this.#streamIdMax = streamId;
    if (this.#streams.size >= this.#settings.streamsMax) {
      this.#reject(streamId, ErrorCode.refusedStream);
      return;
    }
    if (fields === undefined) {
      this.#writeStatus(streamId, 431, [], true);
      this.#reject(streamId, ErrorCode.protocolError);
      return;
    }
    const request = parseRequest(fields);
    if (request === undefined) {
      this.#reject(streamId, ErrorCode.protocolError);
      return;
    }
    const stream = this.#add(streamId);
    stream.hasPeerEnded = endStream;
    this.#listener.requested(stream, request);
    if (endStream) this.#onPeerEnded(stream);
  }

  #onResponse(
    stream: StreamState<Owner> | undefined,
    streamId: number,
    fields: readonly string[] | undefined,
    endStream: boolean,
  ): void {
    if (stream === undefined) {
      this.#expectOpened(streamId, "HEADERS");
      return;
    }
    const response = fields === undefined ? undefined : parseResponse(fields);
    const isInterim = response !== undefined && response.status < 200;
    if (response === undefined || stream.isAnswered || (isInterim && endStream)) {
      this.#fail(stream, ErrorCode.protocolError);
      return;
    }
    if (isInterim) {
      this.#charge("ignored");
      return;
    }
    stream.isAnswered = true;
    stream.hasPeerEnded = endStream;
    this.#listener.responded(stream, response.status, response.headers);
    if (endStream) this.#onPeerEnded(stream);
  }

  #writeStatus(streamId: number, status: number, headers: Http2Fields, endStream: boolean): void {
    this.#encoder.begin();
    this.#encoder.add(":status", String(status));
    this.#writeBlock(streamId, headers, endStream);
  }

  /** Writes the block that was begun with these fields added, in as many frames as it takes. */
  #writeBlock(streamId: number, headers: Http2Fields, endStream: boolean): void {
    for (const [name, value] of headers) this.#encoder.add(name, value);
    const block = this.#encoder.end();
    let type: number = FrameType.headers;
    let flags = endStream ? FrameFlag.endStream : 0;
    for (let at = 0; at < block.length; at += FRAME_BYTES_DEFAULT) {
      const part = block.subarray(at, at + FRAME_BYTES_DEFAULT);
      if (at + part.length === block.length) flags |= FrameFlag.endHeaders;
      const offset = this.#output.reserve(FRAME_HEADER_BYTES + part.length);
      writeFrameHeader(this.#arena, offset, part.length, type, flags, streamId);
      this.#arena.set(part, offset + FRAME_HEADER_BYTES);
      type = FrameType.continuation;
      flags = 0;
    }
  }

  // ---- resets

  #onRstStream(streamId: number, code: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      this.#expectOpened(streamId, "RST_STREAM");
      return;
    }
    if (this.#isServer && !stream.isAnswered) this.#charge("unansweredReset");
    this.#abandon(stream);
    this.#listener.reset(stream, code, "peer");
    this.#finishIfDone();
  }

  /** The peer broke a rule of an open stream. */
  #fail(stream: StreamState<Owner>, code: number): void {
    this.#writeReset(stream.id, code);
    this.#abandon(stream);
    this.#listener.reset(stream, code, "us");
    this.#finishIfDone();
    this.#charge("provokedReset");
  }

  /** The peer opened a stream that can't be. */
  #reject(streamId: number, code: number): void {
    this.#writeReset(streamId, code);
    this.#charge("provokedReset");
  }

  #answerClosed(streamId: number): void {
    if (streamId > this.#acceptedIdMax || this.#resetIds.has(streamId)) return;
    this.#reject(streamId, ErrorCode.streamClosed);
  }

  #writeReset(streamId: number, code: number): void {
    const offset = this.#output.reserve(FRAME_HEADER_BYTES + 4);
    writeRstStream(this.#arena, offset, streamId, code);
    this.#resetIds.add(streamId);
    if (this.#resetIds.size <= RESET_STREAMS_MAX) return;
    for (const oldest of this.#resetIds) {
      this.#resetIds.delete(oldest);
      break;
    }
  }

  // ---- windows, settings, pings

  #onWindowUpdate(streamId: number, increment: number): void {
    if (increment < SMALL_WINDOW_BYTES) this.#charge("smallWindow");
    if (streamId === 0) {
      if (increment === 0) throw new Http2Error("protocol", "window increment of 0");
      this.#sendWindow += increment;
      if (this.#sendWindow > WINDOW_BYTES_MAX) throw windowOverflow();
      this.#listener.windowsOpened();
      return;
    }
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      this.#expectOpened(streamId, "WINDOW_UPDATE");
      return;
    }
    if (increment === 0) {
      this.#fail(stream, ErrorCode.protocolError);
      return;
    }
    stream.sendWindow += increment;
    if (stream.sendWindow > WINDOW_BYTES_MAX) {
      this.#fail(stream, ErrorCode.flowControlError);
      return;
    }
    this.#listener.windowOpened(stream);
  }

  #onSetting(id: number, value: number): void {
    switch (id) {
      case SettingId.headerTableSize:
        this.#encoder.limitTable(value);
        return;
      case SettingId.enablePush:
        // Only a client may ask for pushes.
        if (value > (this.#isServer ? 1 : 0)) throw badSetting("ENABLE_PUSH", value);
        return;
      case SettingId.maxConcurrentStreams:
        this.#peerStreamsMax = value;
        return;
      case SettingId.initialWindowSize:
        this.#resizeSendWindows(value);
        return;
      case SettingId.maxFrameSize:
        if (value < FRAME_BYTES_DEFAULT || value > FRAME_BYTES_MAX) {
          throw badSetting("MAX_FRAME_SIZE", value);
        }
        this.#peerFrameBytesMax = value;
    }
  }

  #resizeSendWindows(bytes: number): void {
    if (bytes > WINDOW_BYTES_MAX) throw windowOverflow();
    const growth = bytes - this.#peerStreamWindow;
    this.#peerStreamWindow = bytes;
    for (const stream of this.#streams.values()) {
      stream.sendWindow += growth;
      if (stream.sendWindow > WINDOW_BYTES_MAX) throw windowOverflow();
    }
    this.#haveWindowsChanged = true;
  }

  #onSettingsEnded(): void {
    this.#charge("settings");
    writeSettingsAck(this.#arena, this.#output.reserve(FRAME_HEADER_BYTES));
    if (!this.#isSettled) {
      this.#isSettled = true;
      this.#listener.settled();
    }
    if (!this.#haveWindowsChanged || this.#isFinished) return;
    this.#haveWindowsChanged = false;
    this.#listener.windowsOpened();
  }

  /** From now on the peer keeps to our stream window. */
  #onSettingsAcknowledged(): void {
    this.#charge("settings");
    this.#awaitsAcknowledgement = false;
    this.#resizeReceiveWindows(this.#announcedWindow);
    if (!this.#isFinished) this.#adjustStreamWindows();
  }

  #resizeReceiveWindows(bytes: number): void {
    const growth = bytes - this.#streamWindow;
    this.#streamWindow = bytes;
    for (const stream of this.#streams.values()) stream.receiveWindow += growth;
  }

  #onPing(bytes: Buffer, offset: number, isAck: boolean): void {
    const payload = bytes.subarray(offset, offset + PING_BYTES);
    if (isAck && this.#isPinging && KEEP_ALIVE_PING.every((byte, i) => byte === payload[i])) {
      this.#isPinging = false;
      this.#listener.ponged();
      return;
    }
    if (isAck && this.#isDraining && DRAIN_PING.every((byte, i) => byte === payload[i])) {
      this.close();
      return;
    }
    this.#charge("ping");
    if (isAck) return;
    writePing(this.#arena, this.#output.reserve(FRAME_HEADER_BYTES + PING_BYTES), payload, true);
  }

  #writePing(payload: Uint8Array): void {
    writePing(this.#arena, this.#output.reserve(FRAME_HEADER_BYTES + PING_BYTES), payload, false);
  }

  #writeWindowUpdate(streamId: number, increment: number): void {
    const offset = this.#output.reserve(FRAME_HEADER_BYTES + 4);
    writeWindowUpdate(this.#arena, offset, streamId, increment);
  }

  // ---- the end

  #onGoaway(lastStreamId: number, code: number, debug: string): void {
    this.#charge("ignored");
    this.#hasPeerGone = true;
    if (code !== ErrorCode.noError) {
      this.#peerFailure = { code, message: debug === "" ? "peer sent GOAWAY" : debug, by: "peer" };
    }
    if (!this.#isServer) {
      for (const stream of [...this.#streams.values()]) {
        if (stream.id <= lastStreamId || stream.isClosed) continue;
        this.#abandon(stream);
        this.#listener.reset(stream, ErrorCode.refusedStream, "peer");
      }
    }
    if (this.#isFinished) return;
    this.#listener.goneAway(lastStreamId, code);
    this.#finishIfDone();
  }

  #finishIfDone(): void {
    if (this.#isFinished || this.#streams.size > 0) return;
    if (!this.#isClosing && !this.#hasPeerGone) return;
    this.#sayGoodbye();
    this.#finish(this.#peerFailure);
  }

  /** The GOAWAY that names the last stream which was served. */
  #sayGoodbye(): void {
    if (this.#hasSaidGoodbye) return;
    this.#hasSaidGoodbye = true;
    if (this.#isServer) this.#acceptedIdMax = this.#lastPeerStreamId();
    this.#writeGoaway(this.#lastPeerStreamId(), ErrorCode.noError, "");
  }

  #writeGoaway(lastStreamId: number, code: number, debug: string): void {
    const offset = this.#output.reserve(FRAME_HEADER_BYTES + 8 + debug.length);
    writeGoaway(this.#arena, offset, lastStreamId, code, debug);
  }

  #finish(failure: Http2Failure | undefined): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    this.#reader.stop();
    this.#listener.finished(failure);
  }

  /** Servers push nothing, so that a client has no streams of its peer. */
  #lastPeerStreamId(): number {
    return this.#isServer ? Math.max(0, this.#streamIdMax) : 0;
  }

  // ---- the table of streams

  #add(id: number): StreamState<Owner> {
    const stream = new StreamState<Owner>(id, this.#peerStreamWindow, this.#streamWindow);
    this.#streams.set(id, stream);
    return stream;
  }

  /** Streams are made here only, whatever their owners see of them. */
  #live(stream: Http2Stream<Owner>): StreamState<Owner> | undefined {
    return this.#isFinished || stream.isClosed ? undefined : (stream as StreamState<Owner>);
  }

  #remove(stream: StreamState<Owner>): void {
    if (stream.isClosed) return;
    stream.isClosed = true;
    this.#streams.delete(stream.id);
    this.release(stream);
  }

  /** The stream is gone before its time: nobody will take what is left of it. */
  #abandon(stream: StreamState<Owner>): void {
    this.#remove(stream);
    stream.isAbandoned = true;
    const owed = stream.untaken - stream.lent;
    stream.untaken = 0;
    stream.lent = 0;
    if (owed > 0 && !this.#isFinished) this.#giveCredit(owed);
  }

  /** @throws Http2Error when nobody has opened this stream yet. */
  #expectOpened(streamId: number, frame: string): void {
    if (streamId % 2 === 1 && streamId <= this.#streamIdMax) return;
    // Streams above our GOAWAY are not ours any more.
    if (streamId > this.#acceptedIdMax) return;
    throw new Http2Error("protocol", `${frame} on stream ${streamId}, which is not open`);
  }

  #charge(kind: FloodKind): void {
    if (this.#floods.charge(kind, this.#now)) return;
    throw new Http2Error("flood", FLOOD_LIMITS[kind].attack);
  }
}

function windowOverflow(): Http2Error {
  return new Http2Error("flow-control", `window above ${WINDOW_BYTES_MAX} bytes`);
}

function badSetting(name: string, value: number): Http2Error {
  return new Http2Error("protocol", `SETTINGS_${name} of ${value}`);
}
