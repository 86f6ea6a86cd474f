/**
 * What the peer's frames mean: for a stream, for the windows, for the connection. What breaks a
 * stream's rule is answered with RST_STREAM, what breaks the connection's is thrown.
 */
import type { ConnectionEnd } from "./connection-end.ts";
import { ErrorCode } from "./error-code.ts";
import { FLOOD_LIMITS, type FloodGauge, type FloodKind } from "./flood-gauge.ts";
import { PING_BYTES } from "./frame.ts";
import type { FrameListener } from "./frame-reader.ts";
import type { FrameWriter } from "./frame-writer.ts";
import { HpackDecoder } from "./hpack-decoder.ts";
import { Http2Error } from "./http2-error.ts";
import type { Http2Listener } from "./http2-listener.ts";
import type { Http2Settings } from "./http2-settings.ts";
import type { StreamState } from "./http2-stream.ts";
import { parseRequest, parseResponse } from "./message-fields.ts";
import type { MessageWriter } from "./message-writer.ts";
import type { PeerSettings } from "./peer-settings.ts";
import type { Pings } from "./pings.ts";
import type { ReceiveWindows } from "./receive-windows.ts";
import type { SendWindows } from "./send-windows.ts";
import type { StreamEndings } from "./stream-endings.ts";
import type { StreamTable } from "./stream-table.ts";

/** Increments below this are counted; a peer with full-sized buffers has no use for them. */
const SMALL_WINDOW_BYTES = 1024;

/** The parts of the connection. */
export interface IncomingFramesDeps<Owner> {
  readonly listener: Http2Listener<Owner>;
  readonly frames: FrameWriter;
  readonly messages: MessageWriter;
  readonly pings: Pings;
  readonly streams: StreamTable<Owner>;
  readonly sendWindows: SendWindows<Owner>;
  readonly receiveWindows: ReceiveWindows<Owner>;
  readonly endings: StreamEndings<Owner>;
  readonly peer: PeerSettings<Owner>;
  readonly end: ConnectionEnd<Owner>;
  readonly floods: FloodGauge;
}

export interface IncomingFramesOptions {
  readonly role: "client" | "server";
  readonly settings: Http2Settings;
}

/** Methods throw Http2Error when the connection can't go on. */
export class IncomingFrames<Owner> implements FrameListener {
  readonly #listener: Http2Listener<Owner>;
  readonly #frames: FrameWriter;
  readonly #messages: MessageWriter;
  readonly #pings: Pings;
  readonly #streams: StreamTable<Owner>;
  readonly #sendWindows: SendWindows<Owner>;
  readonly #receiveWindows: ReceiveWindows<Owner>;
  readonly #endings: StreamEndings<Owner>;
  readonly #peer: PeerSettings<Owner>;
  readonly #end: ConnectionEnd<Owner>;
  readonly #floods: FloodGauge;
  readonly #decoder = new HpackDecoder();
  readonly #isServer: boolean;
  readonly #streamsMax: number;
  readonly #listBytesMax: number;
  #isSettled = false;
  /** Of the DATA frame that is being read. */
  #dataStream: StreamState<Owner> | undefined;
  #dataBytes = 0;

  constructor(deps: IncomingFramesDeps<Owner>, { role, settings }: IncomingFramesOptions) {
    this.#listener = deps.listener;
    this.#frames = deps.frames;
    this.#messages = deps.messages;
    this.#pings = deps.pings;
    this.#streams = deps.streams;
    this.#sendWindows = deps.sendWindows;
    this.#receiveWindows = deps.receiveWindows;
    this.#endings = deps.endings;
    this.#peer = deps.peer;
    this.#end = deps.end;
    this.#floods = deps.floods;
    this.#isServer = role === "server";
    this.#streamsMax = settings.streamsMax;
    this.#listBytesMax = settings.headerListBytesMax;
  }

  // ---- DATA

  dataBegun(streamId: number, length: number): void {
    this.#receiveWindows.spend(length);
    this.#dataBytes = 0;
    const stream = this.#streams.get(streamId);
    this.#dataStream = stream;
    if (stream === undefined) {
      this.#streams.expectOpened(streamId, "DATA");
      this.#receiveWindows.giveBack(length);
      if (!this.#streams.isDisowned(streamId)) this.#reject(streamId, ErrorCode.streamClosed);
      return;
    }
    const isWithinWindow = this.#receiveWindows.spendStream(stream, length);
    if (stream.hasPeerEnded) this.#fail(stream, ErrorCode.streamClosed);
    else if (!this.#isServer && !stream.isAnswered) this.#fail(stream, ErrorCode.protocolError);
    else if (!isWithinWindow) this.#fail(stream, ErrorCode.flowControlError);
  }

  data(offset: number, length: number): void {
    this.#dataBytes += length;
    const stream = this.#dataStream;
    if (stream !== undefined && !stream.isAbandoned) this.#listener.data(stream, offset, length);
  }

  dataEnded(paddingBytes: number, endStream: boolean): void {
    const stream = this.#dataStream;
    if (!endStream && this.#dataBytes === 0) this.#charge("emptyData");
    this.#dataStream = undefined;
    if (stream === undefined || stream.isAbandoned) return;
    if (endStream) this.#peerEnded(stream);
    if (paddingBytes > 0) this.#receiveWindows.take(stream, paddingBytes);
  }

  #peerEnded(stream: StreamState<Owner>): void {
    if (stream.isAbandoned || this.#end.isFinished) return;
    this.#endings.peerEnded(stream);
    this.#listener.ended(stream);
    this.#end.check();
  }

  // ---- HEADERS

  headers(
    streamId: number,
    bytes: Buffer,
    offset: number,
    length: number,
    endStream: boolean,
  ): void {
    // Whatever becomes of it: the peer's table changed with it.
    const fields = this.#decoder.decode(bytes, offset, length, this.#listBytesMax);
    const stream = this.#streams.get(streamId);
    if (stream?.hasPeerEnded) {
      this.#fail(stream, ErrorCode.streamClosed);
      return;
    }
    if (!this.#isServer) {
      this.#response(stream, streamId, fields, endStream);
      return;
    }
    // A tunnel has no trailers. RFC 9113 section 8.5.
    if (stream !== undefined) {
      this.#fail(stream, ErrorCode.protocolError);
      return;
    }
    this.#request(streamId, fields, endStream);
  }

  #request(streamId: number, fields: readonly string[] | undefined, endStream: boolean): void {
    if (this.#streams.isBeyondEnd(streamId)) {
      // A peer that overlooked our GOAWAY may ask again elsewhere instead of waiting for ever.
      this.#reject(streamId, ErrorCode.refusedStream);
      return;
    }
    if (this.#streams.isDisowned(streamId)) return;
    this.#streams.admit(streamId);
    if (this.#streams.count >= this.#streamsMax) {
      this.#reject(streamId, ErrorCode.refusedStream);
      return;
    }
    if (fields === undefined) {
      this.#messages.answer(streamId, 431, [], true);
      this.#refuseMalformed(streamId, `header list above ${this.#listBytesMax} bytes`);
      return;
    }
    const request = parseRequest(fields);
    if (typeof request === "string") {
      this.#refuseMalformed(streamId, request);
      return;
    }
    const stream = this.#streams.add(
      streamId,
      this.#sendWindows.initialBytes,
      this.#receiveWindows.initialBytes,
    );
    stream.hasPeerEnded = endStream;
    this.#listener.requested(stream, request);
    if (endStream) this.#peerEnded(stream);
  }

  #response(
    stream: StreamState<Owner> | undefined,
    streamId: number,
    fields: readonly string[] | undefined,
    endStream: boolean,
  ): void {
    if (stream === undefined) {
      this.#streams.expectOpened(streamId, "HEADERS");
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
    if (endStream) this.#peerEnded(stream);
  }

  // ---- RST_STREAM

  rstStream(streamId: number, code: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      this.#streams.expectOpened(streamId, "RST_STREAM");
      return;
    }
    if (this.#isServer && !stream.isAnswered) this.#charge("unansweredReset");
    this.#endings.abandon(stream);
    this.#listener.reset(stream, code, "peer");
    this.#end.check();
  }

  /** The peer broke a rule of an open stream. */
  #fail(stream: StreamState<Owner>, code: number): void {
    this.#endings.sendReset(stream.id, code);
    this.#endings.abandon(stream);
    this.#listener.reset(stream, code, "us");
    this.#end.check();
    this.#charge("provokedReset");
  }

  #refuseMalformed(streamId: number, reason: string): void {
    this.#listener.malformed(reason);
    this.#reject(streamId, ErrorCode.protocolError);
  }

  /** The peer opened a stream that can't be. */
  #reject(streamId: number, code: number): void {
    this.#endings.sendReset(streamId, code);
    this.#charge("provokedReset");
  }

  // ---- windows, settings, pings

  windowUpdate(streamId: number, increment: number): void {
    if (increment < SMALL_WINDOW_BYTES) this.#charge("smallWindow");
    if (streamId === 0) {
      if (increment === 0) throw new Http2Error("protocol", "window increment of 0");
      this.#sendWindows.grow(increment);
      this.#listener.windowsOpened();
      return;
    }
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      this.#streams.expectOpened(streamId, "WINDOW_UPDATE");
      return;
    }
    if (increment === 0) {
      this.#fail(stream, ErrorCode.protocolError);
      return;
    }
    if (!this.#sendWindows.growStream(stream, increment)) {
      this.#fail(stream, ErrorCode.flowControlError);
      return;
    }
    this.#listener.windowOpened(stream);
  }

  setting(id: number, value: number): void {
    this.#peer.set(id, value);
  }

  settingsEnded(): void {
    this.#charge("settings");
    this.#frames.settingsAck();
    if (!this.#isSettled) {
      this.#isSettled = true;
      this.#listener.settled();
    }
    if (this.#peer.takeWindowChange() && !this.#end.isFinished) this.#listener.windowsOpened();
  }

  /** From now on the peer keeps to our stream window. */
  settingsAcknowledged(): void {
    this.#charge("settings");
    this.#receiveWindows.acknowledged();
  }

  ping(bytes: Buffer, offset: number, isAck: boolean): void {
    const payload = bytes.subarray(offset, offset + PING_BYTES);
    const purpose = isAck ? this.#pings.takeAnswer(payload) : undefined;
    if (purpose === "keep-alive") this.#listener.ponged();
    if (purpose === "drain") this.#end.close();
    if (purpose !== undefined) return;
    this.#charge("ping");
    if (!isAck) this.#frames.ping(payload, true);
  }

  // ---- GOAWAY

  goaway(lastStreamId: number, code: number, debug: string): void {
    this.#charge("ignored");
    this.#end.peerLeft(code, debug);
    if (!this.#isServer) {
      for (const stream of [...this.#streams.values()]) {
        if (stream.id <= lastStreamId || stream.isClosed) continue;
        this.#endings.abandon(stream);
        this.#listener.reset(stream, ErrorCode.refusedStream, "peer");
      }
    }
    if (this.#end.isFinished) return;
    this.#listener.goneAway(lastStreamId, code);
    this.#end.check();
  }

  ignored(): void {
    this.#charge("ignored");
  }

  #charge(kind: FloodKind): void {
    if (this.#floods.charge(kind)) return;
    throw new Http2Error("flood", FLOOD_LIMITS[kind].attack);
  }
}
