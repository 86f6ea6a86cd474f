/** A client of DNS for tests: bytes to a server and what comes back, by UDP and by TCP. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect } from "node:net";
import { type Answer, decode, encode, type Packet } from "dns-packet";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";

/** `flags` and `id` as on the wire; dns-packet's types leave out what it tells of them. */
export type Reply = Packet & {
  readonly rcode: string;
  readonly flag_tc: boolean;
  readonly flag_aa: boolean;
  readonly flag_ra: boolean;
};

export function dnsQuery(name: string, type: string, more: Partial<Packet> = {}): Buffer {
  const questions = [{ name, type: type as "A", class: "IN" as const }];
  return encode({ type: "query", id: 0x1234, flags: 0x0100, questions, ...more });
}

/** EDNS, for the additional section of a query. */
export function ednsOf(udpPayloadSize: number): Answer {
  const common = { type: "OPT", name: ".", extendedRcode: 0, ednsVersion: 0 } as const;
  return { ...common, udpPayloadSize, flags: 0, flag_do: false, options: [] };
}

export function dnsReply(bytes: Buffer): Reply {
  return decode(bytes) as Packet as Reply;
}

/** @throws when nothing comes for so long. */
export async function askDns(
  server: SocketAddress,
  transport: "udp" | "tcp",
  query: Uint8Array,
  withinMs = 20_000,
): Promise<Buffer> {
  const signal = AbortSignal.timeout(withinMs);
  if (transport === "udp") {
    const socket = createSocket(server.ip.includes(":") ? "udp6" : "udp4");
    try {
      socket.send(query, server.port, server.ip);
      const [message] = await once(socket, "message", { signal });
      return message;
    } finally {
      socket.close();
    }
  }
  const socket = connect({ host: server.ip, port: server.port });
  try {
    const length = Buffer.alloc(2);
    length.writeUInt16BE(query.length);
    socket.write(Buffer.concat([length, query]));
    let bytes = Buffer.alloc(0);
    while (bytes.length < 2 || bytes.length < 2 + bytes.readUInt16BE(0)) {
      const [chunk] = await once(socket, "data", { signal });
      bytes = Buffer.concat([bytes, chunk]);
    }
    return bytes.subarray(2, 2 + bytes.readUInt16BE(0));
  } finally {
    socket.destroy();
  }
}

/** What the answers say, without their owners. */
export function answersOf(reply: Packet): readonly string[] {
  return (reply.answers ?? []).map((answer) =>
    "data" in answer ? `${answer.type} ${String(answer.data)}` : answer.type,
  );
}
