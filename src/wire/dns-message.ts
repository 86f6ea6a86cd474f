/**
 * DNS messages as far as somebody who answers some questions and passes on all others needs them: the
 * question of a query, and answers of addresses. Whatever is passed on stays the bytes that it is.
 *
 * dns-packet reads queries. It can't compress names, so answers are written here.
 *
 * @see RFC 1035 section 4, RFC 6891 for EDNS.
 */
import { decode, type Packet } from "dns-packet";
import { type IpAddress, ipAddressToBytes } from "../mesh/ip-address.ts";
import { WireError } from "./wire-error.ts";

export interface DnsQuery {
  /** 0 asks; others, such as 5 for UPDATE, want something done. */
  readonly opcode: number;
  /** `undefined`: not exactly one. */
  readonly question: DnsQuestion | undefined;
  readonly edns: DnsExtension | undefined;
}

export interface DnsQuestion {
  /** Lower case, without a dot at its end; the root is empty. */
  readonly name: string;
  /** Upper case; `UNKNOWN` when nobody here knows the number. */
  readonly type: string;
  /** Of the Internet, as nearly all. */
  readonly isInternet: boolean;
  /** Where the next section begins, bytes from the start of the message. */
  readonly end: number;
}

/** What the sender can do beyond RFC 1035. */
export interface DnsExtension {
  readonly version: number;
  /** Longest answer that it takes by UDP, bytes, at least 512. */
  readonly sizeMax: number;
  readonly isDnssecOk: boolean;
}

/** An answer of ours. */
export interface DnsAnswer {
  /** The name that owns the addresses; the asked one is an alias of it. `undefined`: it is itself. */
  readonly alias: string | undefined;
  /** Of one family. */
  readonly addresses: readonly IpAddress[];
  readonly ttlSeconds: number;
}

/** RFC 1035 section 4.1.1 and RFC 2136. */
export const RCODE = { formatError: 1, serverFailure: 2, notImplemented: 4, refused: 5 } as const;

const HEADER_BYTES = 12;
/** A record is at least a root name, type, class, time to live and length. */
const RECORD_BYTES_MIN = 11;
/** Limit of UDP without EDNS. */
const PLAIN_SIZE_MAX = 512;
/** The length before a message on TCP has two bytes. */
const STREAM_SIZE_MAX = 65_535;

const RESPONSE = 0x8000;
const AUTHORITATIVE = 0x0400;
const TRUNCATED = 0x0200;
const RECURSION_DESIRED = 0x0100;
const RECURSION_AVAILABLE = 0x0080;
const CHECKING_DISABLED = 0x0010;
const OPCODE = 0x7800;
const DNSSEC_OK = 0x8000;

const TYPE = { A: 1, CNAME: 5, AAAA: 28, OPT: 41 } as const;
const INTERNET = 1;
const POINTER = 0xc000;

/** Those that are asked for and that dns-packet knows only by number. */
const FURTHER_TYPES: Readonly<Record<string, string>> = { UNKNOWN_64: "SVCB", UNKNOWN_65: "HTTPS" };

/** Whether this is the beginning of a query; anything else deserves no answer at all. */
export function isDnsQuery(message: Uint8Array): boolean {
  return message.length >= HEADER_BYTES && (word(message, 2) & RESPONSE) === 0;
}

/**
 * @param message passed {@link isDnsQuery}.
 * @throws WireError `malformed`; never for an opcode other than 0, of which nothing need be understood.
 */
export function readDnsQuery(message: Uint8Array): DnsQuery {
  const opcode = (word(message, 2) & OPCODE) >> 11;
  try {
    checkCounts(message);
    const packet = decode(Buffer.from(message.buffer, message.byteOffset, message.length));
    return { opcode, question: questionOf(message, packet), edns: extensionOf(packet) };
  } catch (cause) {
    if (opcode !== 0) return { opcode, question: undefined, edns: undefined };
    if (cause instanceof WireError) throw cause;
    throw new WireError("malformed", "undecodable DNS query", { cause });
  }
}

/**
 * What goes back for a question that the mesh answers. Addresses that do not fit are left out, and the
 * answer says so.
 *
 * @param query whose question this answers.
 */
export function encodeDnsAnswer(
  message: Uint8Array,
  query: DnsQuery & { readonly question: DnsQuestion },
  answer: DnsAnswer,
  transport: "udp" | "tcp",
): Uint8Array {
  const { question, edns } = query;
  const limit = transport === "tcp" ? STREAM_SIZE_MAX : (edns?.sizeMax ?? PLAIN_SIZE_MAX);
  const room = limit - (edns === undefined ? 0 : RECORD_BYTES_MIN);
  const asked = message.subarray(HEADER_BYTES, question.end - 4);
  const writer = new MessageWriter(message, question.end);
  let owner = writer.ownerOf(asked);
  let count = 0;
  if (answer.alias !== undefined && answer.addresses.length > 0) {
    const target = nameBytes(answer.alias);
    writer.record(owner, TYPE.CNAME, answer.ttlSeconds, target);
    owner = writer.pointer(writer.length - target.length);
    count++;
  }
  let isTruncated = false;
  for (const ip of answer.addresses) {
    const bytes = ipAddressToBytes(ip);
    isTruncated = writer.length + owner.length + 10 + bytes.length > room;
    if (isTruncated) break;
    const at = writer.length;
    writer.record(owner, bytes.length === 4 ? TYPE.A : TYPE.AAAA, answer.ttlSeconds, bytes);
    if (owner.length > 2) owner = writer.pointer(at);
    count++;
  }
  if (edns !== undefined) writer.extension(edns);
  const flags = RESPONSE | AUTHORITATIVE | RECURSION_AVAILABLE | (isTruncated ? TRUNCATED : 0);
  return writer.finish(flags | kept(message), count, edns === undefined ? 0 : 1);
}

/** A refusal of ours: the question, if it can be read, and why. */
export function encodeDnsError(
  message: Uint8Array,
  query: DnsQuery | undefined,
  rcode: number,
): Uint8Array {
  const edns = query?.edns;
  const writer = new MessageWriter(message, query?.question?.end ?? HEADER_BYTES);
  if (edns !== undefined) writer.extension(edns);
  const flags = RESPONSE | (word(message, 2) & OPCODE) | kept(message) | rcode;
  return writer.finish(flags, 0, edns === undefined ? 0 : 1);
}

/** Whether the message answers exactly this query: the same number, and the question if it says one. */
export function isDnsReply(message: Uint8Array, query: Uint8Array): boolean {
  if (message.length < HEADER_BYTES || (word(message, 2) & RESPONSE) === 0) return false;
  if (word(message, 0) !== word(query, 0)) return false;
  if (word(message, 4) !== 1 || word(query, 4) !== 1) return true;
  for (let at = HEADER_BYTES; ; at++) {
    const wanted = query[at];
    if (wanted === undefined || !isSameLetter(message[at], wanted)) return false;
    // The zero that ends the name; then type and class.
    if (wanted === 0) return sameBytes(message, query, at + 1, at + 5);
  }
}

/** What a reply of another server says. @param reply passed {@link isDnsReply}. */
export function readDnsOutcome(reply: Uint8Array): {
  readonly rcode: number;
  readonly answerCount: number;
} {
  return { rcode: word(reply, 2) & 0xf, answerCount: word(reply, 6) };
}

/** The same message for somebody who asked under another number. */
export function withIdOf(query: Uint8Array, reply: Uint8Array): Uint8Array {
  if (word(query, 0) === word(reply, 0)) return reply;
  const copy = Uint8Array.from(reply);
  copy.set(query.subarray(0, 2));
  return copy;
}

/** Arrays are made of these numbers before anything is read, so they must be possible. */
function checkCounts(message: Uint8Array): void {
  const records = word(message, 6) + word(message, 8) + word(message, 10);
  if (word(message, 4) > 1 || records * RECORD_BYTES_MIN > message.length - HEADER_BYTES) {
    throw new WireError("malformed", "DNS query with impossible numbers of records");
  }
}

function questionOf(message: Uint8Array, packet: Packet): DnsQuestion | undefined {
  const question = packet.questions?.[0];
  if (question === undefined) return undefined;
  const end = nameEnd(message) + 4;
  const name = question.name === "." ? "" : question.name.replace(/[A-Z]+/g, lowerCase);
  // dns-packet invents names for numbers it does not know, which its types leave out.
  const type: string = question.type;
  return {
    name,
    type: FURTHER_TYPES[type] ?? (type.startsWith("UNKNOWN") ? "UNKNOWN" : type),
    isInternet: word(message, end - 2) === INTERNET,
    end,
  };
}

function lowerCase(letters: string): string {
  return letters.toLowerCase();
}

/** After the name of the first question, which has nothing before it to point to. */
function nameEnd(message: Uint8Array): number {
  let at = HEADER_BYTES;
  for (let length = message[at]; length !== 0; length = message[at]) {
    if (length === undefined || length > 63) {
      throw new WireError("malformed", "DNS query with a bad name");
    }
    at += length + 1;
  }
  return at + 1;
}

function extensionOf(packet: Packet): DnsExtension | undefined {
  for (const record of packet.additionals ?? []) {
    if (record.type !== "OPT" || !("udpPayloadSize" in record)) continue;
    return {
      version: record.ednsVersion,
      sizeMax: Math.max(record.udpPayloadSize, PLAIN_SIZE_MAX),
      isDnssecOk: record.flag_do,
    };
  }
  return undefined;
}

/** Flags of the query that its answer repeats. */
function kept(message: Uint8Array): number {
  return word(message, 2) & (RECURSION_DESIRED | CHECKING_DISABLED);
}

/** Grows as records come; begins with what the query began with. */
class MessageWriter {
  #bytes: Buffer;
  #length: number;

  constructor(message: Uint8Array, end: number) {
    this.#bytes = Buffer.alloc(Math.max(PLAIN_SIZE_MAX, end));
    this.#bytes.set(message.subarray(0, end));
    this.#length = end;
    this.#bytes.writeUInt16BE(end > HEADER_BYTES ? 1 : 0, 4);
  }

  get length(): number {
    return this.#length;
  }

  /** The question's own name, in lower case: as a pointer where it is that already. */
  ownerOf(asked: Uint8Array): Uint8Array {
    const lower = asked.map((byte) => (isUpperCase(byte) ? byte + 32 : byte));
    return sameBytes(lower, asked, 0, asked.length) ? this.pointer(HEADER_BYTES) : lower;
  }

  pointer(offset: number): Uint8Array {
    return Uint8Array.of((POINTER | offset) >> 8, offset & 0xff);
  }

  record(owner: Uint8Array, type: number, ttlSeconds: number, data: Uint8Array): void {
    this.#append(owner);
    const head = this.#reserve(10);
    this.#bytes.writeUInt16BE(type, head);
    this.#bytes.writeUInt16BE(INTERNET, head + 2);
    this.#bytes.writeUInt32BE(ttlSeconds, head + 4);
    this.#bytes.writeUInt16BE(data.length, head + 8);
    this.#append(data);
  }

  extension({ sizeMax, isDnssecOk }: DnsExtension): void {
    const at = this.#reserve(RECORD_BYTES_MIN);
    this.#bytes.fill(0, at, at + RECORD_BYTES_MIN);
    this.#bytes.writeUInt16BE(TYPE.OPT, at + 1);
    this.#bytes.writeUInt16BE(sizeMax, at + 3);
    this.#bytes.writeUInt16BE(isDnssecOk ? DNSSEC_OK : 0, at + 7);
  }

  finish(flags: number, answerCount: number, additionalCount: number): Uint8Array {
    this.#bytes.writeUInt16BE(flags, 2);
    this.#bytes.writeUInt16BE(answerCount, 6);
    this.#bytes.writeUInt16BE(0, 8);
    this.#bytes.writeUInt16BE(additionalCount, 10);
    return this.#bytes.subarray(0, this.#length);
  }

  #append(bytes: Uint8Array): void {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
  }

  #reserve(byteCount: number): number {
    const at = this.#length;
    this.#length += byteCount;
    if (this.#length > this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(this.#length, this.#bytes.length * 2));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    return at;
  }
}

/** @param name of ASCII labels of at most 63 letters. */
function nameBytes(name: string): Uint8Array {
  const labels = name.split(".").map((label) => Buffer.from(label));
  return Buffer.concat([
    ...labels.flatMap((label) => [Uint8Array.of(label.length), label]),
    Uint8Array.of(0),
  ]);
}

function word(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

function sameBytes(a: Uint8Array, b: Uint8Array, from: number, end: number): boolean {
  for (let at = from; at < end; at++) if (a[at] !== b[at]) return false;
  return true;
}

function isSameLetter(a: number | undefined, b: number): boolean {
  return a !== undefined && (a === b || ((a ^ b) === 32 && isUpperCase(a & ~32)));
}

function isUpperCase(byte: number): boolean {
  return byte >= 65 && byte <= 90;
}
