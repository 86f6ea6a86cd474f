/**
 * A DNS server with a few records, in the process of the test: A and AAAA over UDP, no compression,
 * no EDNS. What it was asked is kept.
 */
import { createSocket, type Socket } from "node:dgram";
import { ipAddressToBytes, ipFamily } from "../../src/mesh/ip-address.ts";
import { ip } from "./mesh-fixture.ts";

const HEADER_BYTES = 12;
const TYPE = { A: 1, AAAA: 28 } as const;
const RCODE = { NOERROR: 0, SERVFAIL: 2, NXDOMAIN: 3 } as const;

export interface DnsRecords {
  readonly ips: readonly string[];
  /** Default 60. */
  readonly ttlSeconds?: number;
  /** Families that get no answer, or a failure. */
  readonly silent?: 4 | 6;
  readonly failing?: 4 | 6;
}

export class DnsServer {
  /** Key is the name without a dot at the end; others do not exist. */
  readonly names: Map<string, DnsRecords> = new Map();
  /** `A name` or `AAAA name`, in order. */
  readonly asked: string[] = [];
  readonly #socket: Socket = createSocket("udp4");

  constructor() {
    this.#socket.on("message", (query, peer) => {
      const answer = this.#answer(query);
      if (answer !== undefined) this.#socket.send(answer, peer.port, peer.address);
    });
  }

  /** @returns the port of 127.0.0.1. */
  listen(): Promise<number> {
    return new Promise((resolve) => {
      this.#socket.bind(0, "127.0.0.1", () => resolve(this.#socket.address().port));
    });
  }

  /** On a bound socket. */
  serve(fd: number): void {
    this.#socket.bind({ fd });
  }

  close(): void {
    this.#socket.close();
  }

  #answer(query: Buffer): Buffer | undefined {
    const labels: string[] = [];
    let at = HEADER_BYTES;
    for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
      labels.push(query.toString("latin1", at + 1, at + 1 + length));
      at += 1 + length;
    }
    const type = query.readUInt16BE(at + 1);
    const question = query.subarray(HEADER_BYTES, at + 5);
    const name = labels.join(".").toLowerCase();
    const family = type === TYPE.AAAA ? 6 : 4;
    this.asked.push(`${family === 6 ? "AAAA" : "A"} ${name}`);
    const records = this.names.get(name);
    if (records?.silent === family) return undefined;
    const answers = (records?.ips ?? []).map(ip).filter((one) => ipFamily(one) === family);
    const header = Buffer.alloc(HEADER_BYTES);
    query.copy(header, 0, 0, 2);
    let code: number = records === undefined ? RCODE.NXDOMAIN : RCODE.NOERROR;
    if (records?.failing === family) code = RCODE.SERVFAIL;
    // An answer with recursion, asked for and available.
    header.writeUInt16BE(0x8180 | code, 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(answers.length, 6);
    const encoded = answers.map((one) => {
      const address = ipAddressToBytes(one);
      const record = Buffer.alloc(HEADER_BYTES);
      // The name is the question's.
      record.writeUInt16BE(0xc000 | HEADER_BYTES, 0);
      record.writeUInt16BE(type, 2);
      record.writeUInt16BE(1, 4);
      record.writeUInt32BE(records?.ttlSeconds ?? 60, 6);
      record.writeUInt16BE(address.length, 10);
      return Buffer.concat([record, address]);
    });
    return Buffer.concat([header, question, ...encoded]);
  }
}
