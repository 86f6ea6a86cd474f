/**
 * The question of a DNS query. dns-packet reads it; what it makes of the rest is only that it can be read.
 *
 * @see RFC 1035 section 4, RFC 6891 for EDNS.
 */
import { decode, type Packet } from "dns-packet";
import { DNS_HEADER_BYTES, DNS_OPCODE, DNS_RECORD_BYTES_MIN, wordAt } from "./dns-message.ts";
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

/** Limit of UDP without EDNS. */
export const PLAIN_DNS_SIZE_MAX = 512;

const INTERNET = 1;

/** Those that are asked for and that dns-packet knows only by number. */
const FURTHER_TYPES: Readonly<Record<string, string>> = { UNKNOWN_64: "SVCB", UNKNOWN_65: "HTTPS" };

/**
 * @param message passed `isDnsQuery`.
 * @throws WireError `malformed`; never for an opcode other than 0, of which nothing need be understood.
 */
export function readDnsQuery(message: Uint8Array): DnsQuery {
  const opcode = (wordAt(message, 2) & DNS_OPCODE) >> 11;
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

/** Arrays are made of these numbers before anything is read, so they must be possible. */
function checkCounts(message: Uint8Array): void {
  const records = wordAt(message, 6) + wordAt(message, 8) + wordAt(message, 10);
  if (
    wordAt(message, 4) > 1 ||
    records * DNS_RECORD_BYTES_MIN > message.length - DNS_HEADER_BYTES
  ) {
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
    isInternet: wordAt(message, end - 2) === INTERNET,
    end,
  };
}

function lowerCase(letters: string): string {
  return letters.toLowerCase();
}

/** After the name of the first question, which has nothing before it to point to. */
function nameEnd(message: Uint8Array): number {
  let at = DNS_HEADER_BYTES;
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
      sizeMax: Math.max(record.udpPayloadSize, PLAIN_DNS_SIZE_MAX),
      isDnssecOk: record.flag_do,
    };
  }
  return undefined;
}
