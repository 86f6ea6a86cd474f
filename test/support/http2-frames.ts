/**
 * HTTP/2 frames as values, in the shape of the recorded conversations, and bytes; with a reader of
 * header blocks that knows just what a proxy of CONNECT streams may send. RFC 9113, RFC 7541.
 */

/** One frame. Fields beyond the first three depend on the type. */
export interface Frame {
  /** `preface` is the client's first 24 bytes. */
  readonly type: string;
  readonly flags?: number;
  readonly stream?: number;
  readonly settings?: readonly (readonly [name: string, value: number])[];
  /** Of a block as decoded, with the representation: `indexed`, `literal, indexed`, … */
  readonly headers?: readonly (readonly [name: string, value: string, how?: string])[];
  readonly increment?: number;
  /** Name of the error code. */
  readonly error?: string;
  /** GOAWAY's last stream. */
  readonly last?: number;
  readonly debug?: string;
  /** Payload, when no other field tells it. */
  readonly hex?: string;
}

export const FLAG: { readonly ack: 1; readonly endStream: 1; readonly endHeaders: 4 } = {
  ack: 1,
  endStream: 1,
  endHeaders: 4,
};

export const PREFACE: Buffer = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

const HEADER_BYTES = 9;
const FLAG_PADDED = 0x08;
const FLAG_PRIORITY = 0x20;

/** By number. */
export const FRAME_TYPES: readonly string[] = [
  "DATA",
  "HEADERS",
  "PRIORITY",
  "RST_STREAM",
  "SETTINGS",
  "PUSH_PROMISE",
  "PING",
  "GOAWAY",
  "WINDOW_UPDATE",
  "CONTINUATION",
];

/** By identifier; 0 is none. */
const SETTINGS = [
  "",
  "HEADER_TABLE_SIZE",
  "ENABLE_PUSH",
  "MAX_CONCURRENT_STREAMS",
  "INITIAL_WINDOW_SIZE",
  "MAX_FRAME_SIZE",
  "MAX_HEADER_LIST_SIZE",
  "",
  "ENABLE_CONNECT_PROTOCOL",
];

const ERRORS = [
  "NO_ERROR",
  "PROTOCOL_ERROR",
  "INTERNAL_ERROR",
  "FLOW_CONTROL_ERROR",
  "SETTINGS_TIMEOUT",
  "STREAM_CLOSED",
  "FRAME_SIZE_ERROR",
  "REFUSED_STREAM",
  "CANCEL",
  "COMPRESSION_ERROR",
  "CONNECT_ERROR",
  "ENHANCE_YOUR_CALM",
  "INADEQUATE_SECURITY",
  "HTTP_1_1_REQUIRED",
];

/** Bytes of a frame; header fields as plain literals that no table keeps. */
export function encodeFrame(frame: Frame): Buffer {
  const payload = encodePayload(frame);
  const head = Buffer.alloc(HEADER_BYTES);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = numberOf(FRAME_TYPES, frame.type);
  head[4] = frame.flags ?? 0;
  head.writeUInt32BE(frame.stream ?? 0, 5);
  return Buffer.concat([head, payload]);
}

/** Bytes of one direction in, frames out. */
export class FrameReader {
  readonly #headers = new HpackReader();
  #bytes: Buffer = Buffer.alloc(0);
  #awaitsPreface: boolean;

  /** @param from whose frames these are; only a client begins with the preface. */
  constructor(from: "client" | "server") {
    this.#awaitsPreface = from === "client";
  }

  /** @throws Error for what this reader does not know. */
  read(chunk: Uint8Array): Frame[] {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    const frames: Frame[] = [];
    for (let frame = this.#next(); frame !== undefined; frame = this.#next()) frames.push(frame);
    return frames;
  }

  #next(): Frame | undefined {
    if (this.#awaitsPreface) {
      if (this.#bytes.length < PREFACE.length) return undefined;
      this.#awaitsPreface = false;
      return { type: "preface", hex: this.#take(PREFACE.length).toString("hex") };
    }
    if (this.#bytes.length < HEADER_BYTES) return undefined;
    const length = this.#bytes.readUIntBE(0, 3);
    if (this.#bytes.length < HEADER_BYTES + length) return undefined;
    const head = this.#take(HEADER_BYTES);
    const type = FRAME_TYPES[head[3] as number] ?? `type ${head[3]}`;
    const flags = head[4] as number;
    const stream = head.readUInt32BE(5);
    return { type, flags, stream, ...this.#decode(type, flags, this.#take(length)) };
  }

  #decode(type: string, flags: number, payload: Buffer): Partial<Frame> {
    switch (type) {
      case "SETTINGS":
        return { settings: decodeSettings(payload) };
      case "HEADERS":
        if ((flags & (FLAG.endHeaders | FLAG_PADDED | FLAG_PRIORITY)) !== FLAG.endHeaders) {
          throw new Error(`HEADERS with flags ${flags} can't be read`);
        }
        return { headers: this.#headers.read(payload) };
      case "RST_STREAM":
        return { error: errorName(payload.readUInt32BE(0)) };
      case "WINDOW_UPDATE":
        return { increment: payload.readUInt32BE(0) };
      case "GOAWAY":
        return {
          last: payload.readUInt32BE(0),
          error: errorName(payload.readUInt32BE(4)),
          debug: payload.subarray(8).toString("latin1"),
        };
      default:
        return { hex: payload.toString("hex") };
    }
  }

  #take(byteCount: number): Buffer {
    const taken = this.#bytes.subarray(0, byteCount);
    this.#bytes = this.#bytes.subarray(byteCount);
    return taken;
  }
}

function encodePayload(frame: Frame): Buffer {
  const { settings, headers, error, last, increment, debug } = frame;
  if (settings !== undefined) {
    return Buffer.concat(
      settings.map(([name, value]) => {
        const entry = Buffer.alloc(6);
        entry.writeUInt16BE(numberOf(SETTINGS, name), 0);
        entry.writeUInt32BE(value, 2);
        return entry;
      }),
    );
  }
  if (headers !== undefined) {
    return Buffer.concat(
      headers.flatMap(([name, value]) => [Buffer.of(0), encodeText(name), encodeText(value)]),
    );
  }
  if (increment !== undefined) return uint32(increment);
  if (error !== undefined) {
    const parts = [uint32(numberOf(ERRORS, error)), Buffer.from(debug ?? "", "latin1")];
    return Buffer.concat(last === undefined ? parts : [uint32(last), ...parts]);
  }
  return Buffer.from(frame.hex ?? "", "hex");
}

/** Length with a prefix of 7 bits, then the text as it is. */
function encodeText(text: string): Buffer {
  const length: number[] = [];
  if (text.length < 0x7f) length.push(text.length);
  else {
    length.push(0x7f);
    let rest = text.length - 0x7f;
    for (; rest >= 0x80; rest >>= 7) length.push((rest & 0x7f) | 0x80);
    length.push(rest);
  }
  return Buffer.concat([Buffer.from(length), Buffer.from(text, "latin1")]);
}

function decodeSettings(payload: Buffer): [string, number][] {
  const settings: [string, number][] = [];
  for (let i = 0; i < payload.length; i += 6) {
    const id = payload.readUInt16BE(i);
    settings.push([SETTINGS[id] ?? `setting ${id}`, payload.readUInt32BE(i + 2)]);
  }
  return settings;
}

function errorName(code: number): string {
  return ERRORS[code] ?? `error ${code}`;
}

function numberOf(names: readonly string[], name: string): number {
  const index = names.indexOf(name);
  if (index < 0) throw new Error(`no number is known for ${name}`);
  return index;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** RFC 7541 appendix A as far as CONNECT and its answers go; index 0 is none. */
const STATIC_TABLE: readonly (readonly [name: string, value: string])[] = [
  ["", ""],
  [":authority", ""],
  [":method", "GET"],
  [":method", "POST"],
  [":path", "/"],
  [":path", "/index.html"],
  [":scheme", "http"],
  [":scheme", "https"],
  [":status", "200"],
  [":status", "204"],
  [":status", "206"],
  [":status", "304"],
  [":status", "400"],
  [":status", "404"],
  [":status", "500"],
];
const STATIC_TABLE_LENGTH = 61;
const TABLE_BYTES_DEFAULT = 4096;
const ENTRY_OVERHEAD_BYTES = 32;

type Field = readonly [name: string, value: string, how: string];

/** One direction's header blocks, in the order of the wire. */
class HpackReader {
  readonly #dynamic: (readonly [name: string, value: string])[] = [];
  #tableBytesMax = TABLE_BYTES_DEFAULT;
  #block: Uint8Array = new Uint8Array();
  #at = 0;

  read(block: Uint8Array): Field[] {
    this.#block = block;
    this.#at = 0;
    const fields: Field[] = [];
    while (this.#at < block.length) {
      const field = this.#field();
      if (field !== undefined) fields.push(field);
    }
    return fields;
  }

  #field(): Field | undefined {
    const first = this.#block[this.#at] as number;
    if (first & 0x80) return [...this.#entry(this.#integer(7)), "indexed"];
    if (first & 0x40) {
      const [name, value] = this.#literal(6);
      this.#dynamic.unshift([name, value]);
      this.#evict();
      return [name, value, "literal, indexed"];
    }
    if (first & 0x20) {
      this.#tableBytesMax = this.#integer(5);
      this.#evict();
      return undefined;
    }
    const how = first & 0x10 ? "literal, never indexed" : "literal, not indexed";
    return [...this.#literal(4), how];
  }

  #literal(prefixBits: number): [name: string, value: string] {
    const index = this.#integer(prefixBits);
    const name = index === 0 ? this.#text() : this.#entry(index)[0];
    return [name, this.#text()];
  }

  #entry(index: number): readonly [name: string, value: string] {
    const entry =
      index > STATIC_TABLE_LENGTH
        ? this.#dynamic[index - STATIC_TABLE_LENGTH - 1]
        : STATIC_TABLE[index];
    if (entry === undefined || index === 0) throw new Error(`header table entry ${index}`);
    return entry;
  }

  #integer(prefixBits: number): number {
    const mask = 2 ** prefixBits - 1;
    let value = (this.#block[this.#at++] as number) & mask;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#block[this.#at++] as number;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }

  #text(): string {
    const isHuffman = ((this.#block[this.#at] as number) & 0x80) !== 0;
    const length = this.#integer(7);
    const bytes = this.#block.subarray(this.#at, this.#at + length);
    this.#at += length;
    return isHuffman ? huffmanText(bytes) : Buffer.from(bytes).toString("latin1");
  }

  #evict(): void {
    const bytes = (): number =>
      this.#dynamic.reduce((sum, [n, v]) => sum + n.length + v.length + ENTRY_OVERHEAD_BYTES, 0);
    while (bytes() > this.#tableBytesMax) this.#dynamic.pop();
  }
}

/**
 * RFC 7541 appendix B as far as printable characters go: the code is canonical, so the characters
 * of each length in order tell it all.
 */
const HUFFMAN_CHARACTERS: readonly (readonly [bits: number, characters: string])[] = [
  [5, "012aceiost"],
  [6, " %-./3456789=A_bdfghlmnpru"],
  [7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"],
  [8, "&*,;XZ"],
  [10, '!"()?'],
  [11, "'+|"],
  [12, "#>"],
  [13, "\0$@[]~"],
  [14, "^}"],
  [15, "<`{"],
];
const HUFFMAN_PADDING_BITS_MAX = 7;

const HUFFMAN: ReadonlyMap<string, string> = huffmanCodes();

function huffmanCodes(): Map<string, string> {
  const codes = new Map<string, string>();
  let code = 0;
  let bitsBefore = 0;
  for (const [bits, characters] of HUFFMAN_CHARACTERS) {
    code *= 2 ** (bits - bitsBefore);
    bitsBefore = bits;
    for (const character of characters) {
      codes.set(code.toString(2).padStart(bits, "0"), character);
      code += 1;
    }
  }
  return codes;
}

function huffmanText(bytes: Uint8Array): string {
  let text = "";
  let code = "";
  for (const byte of bytes) {
    for (const bit of byte.toString(2).padStart(8, "0")) {
      code += bit;
      const character = HUFFMAN.get(code);
      if (character === undefined) continue;
      text += character;
      code = "";
    }
  }
  if (code.length > HUFFMAN_PADDING_BITS_MAX || code.includes("0")) {
    throw new Error(`Huffman code ${code} is of no printable character`);
  }
  return text;
}
