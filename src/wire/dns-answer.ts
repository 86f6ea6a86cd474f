/**
 * Answers and refusals of our own to DNS queries. dns-packet can't compress names, so they are written
 * here: a third of the addresses more fit into a datagram.
 *
 * @see RFC 1035 section 4, RFC 6891 for EDNS.
 */
import { type IpAddress, ipAddressToBytes } from "../mesh/ip-address.ts";
import {
  DNS_HEADER_BYTES,
  DNS_OPCODE,
  DNS_RECORD_BYTES_MIN,
  DNS_RESPONSE,
  isSameBytes,
  isUpperCase,
  wordAt,
} from "./dns-message.ts";
import {
  type DnsExtension,
  type DnsQuery,
  type DnsQuestion,
  PLAIN_DNS_SIZE_MAX,
} from "./dns-query.ts";

/** An answer of ours. */
export interface DnsAnswer {
  /** The name that owns the addresses; the asked one is an alias of it. `undefined`: it is itself. */
  readonly alias: string | undefined;
  /** Of one family. */
  readonly addresses: readonly IpAddress[];
  readonly ttlSeconds: number;
}

/** The length before a message on TCP has two bytes. */
const STREAM_SIZE_MAX = 65_535;

const AUTHORITATIVE = 0x0400;
const TRUNCATED = 0x0200;
const RECURSION_DESIRED = 0x0100;
const RECURSION_AVAILABLE = 0x0080;
const CHECKING_DISABLED = 0x0010;
const DNSSEC_OK = 0x8000;

const TYPE = { A: 1, CNAME: 5, AAAA: 28, OPT: 41 } as const;
const INTERNET = 1;
const POINTER = 0xc000;

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
  const limit = transport === "tcp" ? STREAM_SIZE_MAX : (edns?.sizeMax ?? PLAIN_DNS_SIZE_MAX);
  const room = limit - (edns === undefined ? 0 : DNS_RECORD_BYTES_MIN);
  const asked = message.subarray(DNS_HEADER_BYTES, question.end - 4);
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
  const flags = DNS_RESPONSE | AUTHORITATIVE | RECURSION_AVAILABLE | (isTruncated ? TRUNCATED : 0);
  return writer.finish(flags | kept(message), count, edns === undefined ? 0 : 1);
}

/** A refusal of ours: the question, if it can be read, and why. */
export function encodeDnsError(
  message: Uint8Array,
  query: DnsQuery | undefined,
  rcode: number,
): Uint8Array {
  const edns = query?.edns;
  const writer = new MessageWriter(message, query?.question?.end ?? DNS_HEADER_BYTES);
  if (edns !== undefined) writer.extension(edns);
  const flags = DNS_RESPONSE | (wordAt(message, 2) & DNS_OPCODE) | kept(message) | rcode;
  return writer.finish(flags, 0, edns === undefined ? 0 : 1);
}

/** Flags of the query that its answer repeats. */
function kept(message: Uint8Array): number {
  return wordAt(message, 2) & (RECURSION_DESIRED | CHECKING_DISABLED);
}

/** Grows as records come; begins with what the query began with. */
class MessageWriter {
  #bytes: Buffer;
  #length: number;

  constructor(message: Uint8Array, end: number) {
    this.#bytes = Buffer.alloc(Math.max(PLAIN_DNS_SIZE_MAX, end));
    this.#bytes.set(message.subarray(0, end));
    this.#length = end;
    this.#bytes.writeUInt16BE(end > DNS_HEADER_BYTES ? 1 : 0, 4);
  }

  get length(): number {
    return this.#length;
  }

  /** The question's own name, in lower case: as a pointer where it is that already. */
  ownerOf(asked: Uint8Array): Uint8Array {
    const lower = asked.map((byte) => (isUpperCase(byte) ? byte + 32 : byte));
    return isSameBytes(lower, asked, 0, asked.length) ? this.pointer(DNS_HEADER_BYTES) : lower;
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
    const at = this.#reserve(DNS_RECORD_BYTES_MIN);
    this.#bytes.fill(0, at, at + DNS_RECORD_BYTES_MIN);
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
