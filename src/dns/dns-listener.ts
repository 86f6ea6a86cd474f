/** One address on which queries come, by UDP and by TCP, with its sockets in a pod's namespace. */
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { createServer, type Server, type Socket } from "node:net";
import type { NetnsFd } from "../engine/engine.ts";
import { ipFamily, parseIpAddress } from "../mesh/ip-address.ts";
import type { SocketAddress } from "../mesh/socket-address.ts";
import type { Native } from "../net/native.ts";
import type { Datagrams } from "../net/udp-counters.ts";
import { framed, MessageStream } from "./message-stream.ts";
import { literal } from "./resolver-exchange.ts";

/** A message that came. */
export interface Arrival {
  readonly message: Buffer;
  readonly transport: "udp" | "tcp";
  readonly peer: SocketAddress;
  /** Sends one message back; any number of times. Nothing happens when the peer has left. */
  readonly reply: (message: Uint8Array) => void;
  /** No more messages will go to the peer for this one. Call once. */
  readonly done: () => void;
  /** TCP: aborted when the peer leaves. */
  readonly signal: AbortSignal | undefined;
}

export interface DnsListenerOptions {
  readonly address: SocketAddress;
  readonly netns: NetnsFd | undefined;
  readonly mark: number | undefined;
  readonly reusePort: boolean;
  readonly connectionsMax: number;
  readonly idleMs: number;
}

/** Connections that wait to be accepted: as many as may be open. */
const BACKLOG = 128;
/** Bytes that a TCP client may leave unread; then it is cut off. Four of the longest messages. */
const UNREAD_MAX = 4 * 65_537;

export class DnsListener {
  readonly #options: DnsListenerOptions;
  readonly #take: (arrival: Arrival) => void;
  readonly #datagrams: DatagramSocket;
  readonly #server: Server;
  readonly #connections = new Set<Socket>();
  #received = 0;
  #sent = 0;

  /**
   * Takes queries from the next turn on.
   *
   * @throws an error of the system when a port can't be bound; nothing stays bound then.
   */
  constructor(native: Native, options: DnsListenerOptions, take: (arrival: Arrival) => void) {
    this.#options = options;
    this.#take = take;
    const { address, netns, mark, reusePort, connectionsMax } = options;
    const isIpv4 = ipFamily(address.ip) === 4;
    const common = {
      family: isIpv4 ? "ipv4" : "ipv6",
      ...(netns === undefined ? {} : { netnsFd: netns.fd }),
      ...(mark === undefined ? {} : { mark }),
      reusePort,
      bind: address,
    } as const;
    const datagramFd = native.socketInNamespace({ ...common, type: "dgram" }).fd;
    this.#datagrams = createSocket({ type: isIpv4 ? "udp4" : "udp6", lookup: literal });
    this.#datagrams.bind({ fd: datagramFd });
    // A failed receive concerns one datagram.
    this.#datagrams.on("error", ignore);
    this.#datagrams.on("message", (message, { address: ip, port }) =>
      this.#takeDatagram(message, ip, port),
    );
    try {
      const streamFd = native.socketInNamespace({
        ...common,
        type: "stream",
        reuseAddress: true,
        listenBacklog: BACKLOG,
      }).fd;
      this.#server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) =>
        this.#takeConnection(socket),
      );
      this.#server.maxConnections = connectionsMax;
      this.#server.on("error", ignore);
      this.#server.listen({ fd: streamFd });
    } catch (error) {
      this.#datagrams.close();
      throw error;
    }
  }

  /** So far. */
  get datagrams(): Datagrams {
    return { received: this.#received, sent: this.#sent };
  }

  /** No new TCP connections; datagrams are still taken. Idempotent. */
  drain(): void {
    if (this.#server.listening) this.#server.close();
  }

  /** Closes everything before it returns. Call once. */
  close(): void {
    this.drain();
    this.#datagrams.close();
    for (const socket of this.#connections) socket.destroy();
  }

  #takeDatagram(message: Buffer, from: string, port: number): void {
    this.#received++;
    const ip = parseIpAddress(from);
    if (ip === undefined || port === 0) return;
    this.#take({
      message,
      transport: "udp",
      peer: { ip, port },
      reply: (answer) => {
        try {
          this.#datagrams.send(answer, port, from, ignore);
          this.#sent++;
        } catch {
          // The server has been closed meanwhile.
        }
      },
      done: ignore,
      signal: undefined,
    });
  }

  #takeConnection(socket: Socket): void {
    const ip = parseIpAddress(socket.remoteAddress ?? "");
    // It has been reset already.
    if (ip === undefined) return void socket.destroy();
    const peer = { ip, port: socket.remotePort ?? 0 };
    const stream = new MessageStream();
    const left = new AbortController();
    let pending = 0;
    this.#connections.add(socket);
    socket.on("error", ignore);
    socket.on("close", () => {
      this.#connections.delete(socket);
      left.abort();
    });
    // Counts from the last byte in either direction; an answer may be long in coming.
    socket.setTimeout(this.#options.idleMs, () => {
      if (pending === 0) socket.destroy();
    });
    const reply = (answer: Uint8Array): void => {
      if (socket.destroyed) return;
      if (socket.writableLength > UNREAD_MAX) socket.destroy();
      else socket.write(framed(answer));
    };
    socket.on("data", (chunk: Buffer) => {
      for (const message of stream.take(chunk)) {
        pending++;
        const done = (): void => {
          pending--;
          // Whoever has ended its direction wants nothing more than its answers.
          if (pending === 0 && socket.readableEnded) socket.end();
        };
        this.#take({ message, transport: "tcp", peer, reply, done, signal: left.signal });
      }
    });
    socket.on("end", () => {
      if (pending === 0) socket.end();
    });
  }
}

function ignore(): void {}
