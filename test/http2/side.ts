/** One side of a connection in memory: what it says as bytes, what it is told as lines. */
import { OUTPUT_BYTES_MAX } from "../../src/http2/frame-writer.ts";
import { DATA_HEADER_BYTES, Http2Connection } from "../../src/http2/http2-connection.ts";
import type { Http2Failure } from "../../src/http2/http2-listener.ts";
import type { Http2Settings } from "../../src/http2/http2-settings.ts";
import type { Http2Stream } from "../../src/http2/http2-stream.ts";
import type { Http2Request } from "../../src/http2/message-fields.ts";

export type Stream = Http2Stream<string>;

/** Spec data-path 4.2. */
export const SETTINGS: Http2Settings = {
  streamWindowBytes: 4_194_304,
  connectionWindowBytes: 16_777_216,
  frameBytesMax: 1_048_576,
  headerListBytesMax: 65_536,
  streamsMax: 200,
  floodPercent: 100,
};

const INPUT_BYTES = 262_144;

/** What stood around a piece or a reserved place must not matter. */
const STALE = 0xdd;

export class Side {
  /** Input at 0, output behind it; what is said is taken at once. */
  readonly arena: Uint8Array = new Uint8Array(INPUT_BYTES + OUTPUT_BYTES_MAX);
  readonly connection: Http2Connection<string>;
  /** `requested 1 CONNECT 10.0.0.1:80 {"baggage":"k=v"}`, `data 1 hello`, … */
  readonly events: string[] = [];
  readonly streams: Map<number, Stream> = new Map();
  failure: Http2Failure | undefined;
  /** What to do besides keeping the line. */
  react: {
    requested?: (stream: Stream) => void;
    responded?: (stream: Stream) => void;
    data?: (stream: Stream, payload: Buffer) => void;
    ended?: (stream: Stream) => void;
  } = {};
  now = 0;
  #said: Uint8Array[] = [];
  #dataStream: Stream | undefined;
  #dataLine = "";
  #reserved: [number, number] | undefined;

  constructor(role: "client" | "server", settings: Partial<Http2Settings> = {}) {
    this.connection = new Http2Connection<string>(
      {
        arena: this.arena,
        output: {
          reserve: (length) => {
            this.#take();
            if (length > OUTPUT_BYTES_MAX) throw new Error(`${length} bytes asked for at once`);
            this.arena.fill(STALE, INPUT_BYTES, INPUT_BYTES + length);
            this.#reserved = [INPUT_BYTES, length];
            return INPUT_BYTES;
          },
        },
        listener: {
          requested: (stream, request) => {
            this.streams.set(stream.id, stream);
            this.events.push(requestLine(stream, request));
            this.react.requested?.(stream);
          },
          malformed: (reason) => this.events.push(`malformed: ${reason}`),
          responded: (stream, status, headers) => {
            const fields = JSON.stringify(Object.fromEntries(headers));
            this.events.push(`responded ${stream.id} ${status} ${fields}`);
            this.react.responded?.(stream);
          },
          data: (stream, offset, length) => this.#onData(stream, offset, length),
          ended: (stream) => {
            this.events.push(`ended ${stream.id}`);
            this.react.ended?.(stream);
          },
          reset: (stream, code, by) => this.events.push(`reset ${stream.id} ${code} by ${by}`),
          windowOpened: (stream) => this.events.push(`window ${stream.id}`),
          windowsOpened: () => this.events.push("windows"),
          settled: () => this.events.push("settled"),
          ponged: () => this.events.push("ponged"),
          goneAway: (last, code) => this.events.push(`gone away ${last} ${code}`),
          finished: (failure) => {
            this.failure = failure;
            const how = failure && `${failure.code} by ${failure.by}: ${failure.message}`;
            this.events.push(how === undefined ? "finished" : `failed ${how}`);
          },
        },
      },
      { role, settings: { ...SETTINGS, ...settings } },
    );
  }

  /** Reads the bytes in pieces of this many, each somewhere else in the arena. */
  hear(bytes: Uint8Array, pieceBytes: number = bytes.length): void {
    for (let at = 0, i = 0; at < bytes.length; at += pieceBytes, i++) {
      const piece = bytes.subarray(at, at + pieceBytes);
      const offset = 16 + (i % 7);
      this.arena.fill(STALE, 0, offset + piece.length + 16);
      this.arena.set(piece, offset);
      this.connection.receive(offset, piece.length, this.now);
    }
  }

  /** Everything written since the last call. */
  said(): Buffer {
    this.#take();
    const bytes = Buffer.concat(this.#said);
    this.#said = [];
    return bytes;
  }

  /** Sends payload in as many frames as it takes; stops where the windows end. @returns bytes sent. */
  send(stream: Stream, payload: Uint8Array): number {
    let sent = 0;
    while (sent < payload.length) {
      const length = Math.min(
        payload.length - sent,
        this.connection.sendableBytes(stream),
        this.connection.peerFrameBytesMax,
      );
      if (length === 0) break;
      this.#take();
      this.connection.writeDataHeader(stream, INPUT_BYTES, length);
      this.#said.push(this.arena.slice(INPUT_BYTES, INPUT_BYTES + DATA_HEADER_BYTES));
      this.#said.push(payload.slice(sent, sent + length));
      sent += length;
    }
    return sent;
  }

  #onData(stream: Stream, offset: number, length: number): void {
    const payload = Buffer.from(this.arena.slice(offset, offset + length));
    const text = payload.toString("latin1");
    // Where payload was cut is not what is tested. The line grows as a rope: never look into it.
    const isNext = this.#dataStream === stream && this.events.at(-1) === this.#dataLine;
    this.#dataLine = isNext ? this.#dataLine + text : `data ${stream.id} ${text}`;
    this.#dataStream = stream;
    if (isNext) this.events[this.events.length - 1] = this.#dataLine;
    else this.events.push(this.#dataLine);
    this.react.data?.(stream, payload);
  }

  #take(): void {
    if (this.#reserved === undefined) return;
    const [offset, length] = this.#reserved;
    this.#reserved = undefined;
    this.#said.push(this.arena.slice(offset, offset + length));
  }
}

function requestLine(stream: Stream, request: Http2Request): string {
  const fields = JSON.stringify(Object.fromEntries(request.headers));
  return `requested ${stream.id} ${request.method} ${request.authority} ${fields}`;
}

/** Carries what both say back and forth until nobody has anything to say. */
export function converse(one: Side, other: Side): void {
  for (;;) {
    const [fromOne, fromOther] = [one.said(), other.said()];
    if (fromOne.length === 0 && fromOther.length === 0) return;
    other.hear(fromOne);
    one.hear(fromOther);
  }
}
