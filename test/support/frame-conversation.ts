/**
 * A hand-written HTTP/2 peer that plays one side of a recorded conversation and keeps what the
 * other side says, as lines that compare.
 */
import type { TLSSocket } from "node:tls";
import { encodeFrame, FLAG, type Frame, FrameReader, PREFACE } from "./http2-frames.ts";
import { waitUntil } from "./wait-until.ts";

export interface RecordedFrame extends Frame {
  readonly from: "us" | "proxy";
}

export interface PlayOptions {
  /** Rewrites the lines that were recorded, where we are not meant to be like them. */
  readonly expectation: (recorded: readonly string[]) => readonly string[];
  /** With what the recorded conversation was closed by the proxy, see {@link FramePeer.end}. */
  readonly end: string | undefined;
  /** What makes the proxy say GOAWAY; called when everything before that has come. */
  readonly beforeGoaway?: () => void;
  /** How long the peer may think, milliseconds. */
  readonly patienceMs?: number;
}

/** A busy machine is slow; what never comes is a failure. */
const PATIENCE_MS = 20_000;
/** After the last that was expected, for what was not. */
const SETTLE_MS = 20;
/** What anybody takes before the settings are known. RFC 9113 section 4.2. */
const FRAME_BYTES_DEFAULT = 16_384;

export class FramePeer {
  readonly received: Frame[] = [];
  readonly #socket: TLSSocket;
  readonly #reader: FrameReader;
  #end: string | undefined;

  /** Takes a secured socket. As a client it sends the preface, settings are left to the caller. */
  constructor(socket: TLSSocket, role: "client" | "server") {
    this.#socket = socket;
    this.#reader = new FrameReader(role === "client" ? "server" : "client");
    if (role === "client") socket.write(PREFACE);
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("end", () => {
      this.#end ??= "EOF";
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#end ??= error.code ?? error.message;
    });
  }

  /** `EOF` or the code of the error with which the other side left; `undefined` as long as not. */
  get end(): string | undefined {
    return this.#end;
  }

  send(frame: Frame): void {
    this.#socket.write(encodeFrame(frame));
  }

  /** Closes TCP without a word of TLS. */
  leave(): void {
    this.#socket.destroy();
  }

  /**
   * Sends what was recorded as ours, each frame when everything recorded before it has come, and
   * waits for the rest. SETTINGS and PING are acknowledged as they come.
   *
   * @returns what came and what should have come: {@link frameLines} and the ending.
   */
  async play(
    recorded: readonly RecordedFrame[],
    options: PlayOptions,
  ): Promise<{ readonly actual: readonly string[]; readonly expected: readonly string[] }> {
    const { expectation, end, beforeGoaway, patienceMs = PATIENCE_MS } = options;
    const said: Frame[] = [];
    let trigger = beforeGoaway;
    const soFar = (): Promise<boolean> => this.#hasCome(expectation(frameLines(said)), patienceMs);
    for (const frame of recorded) {
      if (frame.from === "proxy") {
        if (frame.type === "GOAWAY" && trigger !== undefined && (await soFar())) {
          trigger();
          trigger = undefined;
        }
        said.push(frame);
        continue;
      }
      if (isQuestion(frame) && frame.flags === FLAG.ack) continue;
      if (encodeFrame(frame).length > FRAME_BYTES_DEFAULT) await this.#isGreeted();
      if (!(await soFar())) break;
      this.send(frame);
    }
    const ending = end === undefined ? [] : [`closed ${end}`];
    const expected = expectation([...frameLines(said), ...ending]);
    await this.#hasCome(expected, patienceMs);
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    return { actual: this.#lines(), expected };
  }

  #lines(): readonly string[] {
    const ending = this.#end === undefined ? [] : [`closed ${this.#end}`];
    return [...frameLines(this.received), ...ending];
  }

  /** Settles when the peer's settings hold for both. */
  async #isGreeted(): Promise<void> {
    await waitUntil(
      () => this.received.some(({ type, flags }) => type === "SETTINGS" && flags !== FLAG.ack),
      "no settings",
      PATIENCE_MS,
    );
  }

  /** @returns false when it has not come in time; comparing the lines then tells what is missing. */
  async #hasCome(lines: readonly string[], patienceMs: number): Promise<boolean> {
    try {
      await waitUntil(() => covers(this.#lines(), lines), "", patienceMs);
      return true;
    } catch {
      return false;
    }
  }

  #read(chunk: Buffer): void {
    for (const frame of this.#reader.read(chunk)) {
      this.received.push(frame);
      if (!isQuestion(frame) || frame.flags === FLAG.ack) continue;
      const payload = frame.type === "SETTINGS" ? { settings: [] } : { hex: frame.hex ?? "" };
      this.send({ type: frame.type, flags: FLAG.ack, stream: 0, ...payload });
    }
  }
}

/**
 * One line for each frame, without what differs from run to run: the order within the greeting,
 * where DATA is cut or interrupted by another stream, the order of resets in a row, a GOAWAY said
 * twice, ports and random identifiers.
 */
function frameLines(frames: readonly Frame[]): string[] {
  const greeting: string[] = [];
  const rest: Frame[] = [];
  for (const frame of frames) {
    if (isGreeting(frame)) greeting.push(frameLine(frame));
    else append(rest, frame);
  }
  return [...greeting.sort(), ...rest.map(frameLine)];
}

function isQuestion({ type }: Frame): boolean {
  return type === "SETTINGS" || type === "PING";
}

function isGreeting({ type, stream }: Frame): boolean {
  return type === "preface" || type === "SETTINGS" || (type === "WINDOW_UPDATE" && stream === 0);
}

function append(frames: Frame[], frame: Frame): void {
  const ofStream = frames.findLastIndex(({ stream }) => stream === frame.stream);
  const data = frames[ofStream];
  if (frame.type === "DATA" && frame.flags === 0 && isOpenData(data)) {
    frames[ofStream] = { ...data, hex: `${data.hex ?? ""}${frame.hex ?? ""}` };
    return;
  }
  const before = frames.at(-1);
  if (frame.type === "GOAWAY" && before !== undefined && frameLine(before) === frameLine(frame)) {
    return;
  }
  let at = frames.length;
  while (frame.type === "RST_STREAM" && isReset(frames[at - 1], frame.stream ?? 0)) at -= 1;
  frames.splice(at, 0, frame);
}

function isOpenData(frame: Frame | undefined): frame is Frame {
  return frame?.type === "DATA" && frame.flags === 0;
}

function isReset(frame: Frame | undefined, ofStreamAbove: number): boolean {
  return frame?.type === "RST_STREAM" && (frame.stream ?? 0) > ofStreamAbove;
}

/** `s1 HEADERS END_STREAM :status=401`, `conn GOAWAY 1 NO_ERROR`. */
function frameLine(frame: Frame): string {
  const { type, stream, flags = 0 } = frame;
  if (type === "preface") return `preface ${frame.hex}`;
  const isPartOfStream = type === "HEADERS" || type === "DATA";
  const end = isPartOfStream && (flags & FLAG.endStream) !== 0 ? " END_STREAM" : "";
  const ack = !isPartOfStream && flags === FLAG.ack ? " ACK" : "";
  const who = stream === 0 ? "conn" : `s${stream}`;
  return `${who} ${type}${end}${ack} ${contentOf(frame)}`.trimEnd();
}

function contentOf(frame: Frame): string {
  switch (frame.type) {
    case "SETTINGS":
      return (frame.settings ?? []).map(([name, value]) => `${name}=${value}`).join(" ");
    case "HEADERS":
      return (frame.headers ?? [])
        .map(([name, value, how]) => `${name}=${steady(name, value)} (${how})`)
        .join(" ");
    case "DATA":
      return Buffer.from(frame.hex ?? "", "hex").toString("latin1");
    case "PING":
      // What a question says is its asker's affair.
      return frame.flags === FLAG.ack ? (frame.hex ?? "") : "";
    default:
      return [frame.increment, frame.last, frame.error, frame.debug]
        .filter((part) => part !== undefined)
        .join(" ");
  }
}

function steady(name: string, value: string): string {
  if (name === "forwarded") return value.replace(/:\d+(?="$)/, ":PORT");
  if (name === "traceparent") return value.replace(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/, "RANDOM");
  return value;
}

/** Whether for each stream at least as much has come as expected. */
function covers(actual: readonly string[], expected: readonly string[]): boolean {
  const streamOf = (line: string): string => line.split(" ", 1)[0] ?? "";
  return [...new Set(expected.map(streamOf))].every((stream) => {
    const come = actual.filter((line) => streamOf(line) === stream);
    const due = expected.filter((line) => streamOf(line) === stream);
    return come.length > due.length || (come.length === due.length && come.at(-1) === due.at(-1));
  });
}
