/** A TCP peer of the engine under test: an application in a pod, byte by byte and ending by ending. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, connect as netConnect, type Server, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { type IpAddress, parseIpAddress } from "../../src/mesh/ip-address.ts";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";
import { native } from "../../src/net/native.ts";
import { readTcpInfo } from "../../src/net/tcp-info.ts";
import { ReceivedBytes } from "./received-bytes.ts";

export const LOOPBACK: IpAddress = parseIpAddress("127.0.0.1") as IpAddress;

/** How the peer saw its connection end. */
export type SeenEnd = "fin" | "reset";

/** An application's side of a connection, on whatever network. */
export type Peer = Omit<RawPeer, "socket">;

/** Applications of the network that an engine works on. */
export interface Applications {
  connect(address: SocketAddress, how?: "reading" | "stalled"): Promise<Peer>;
  serve(): Promise<{
    readonly address: SocketAddress;
    /** The next connection. */
    accept(how?: "reading" | "stalled"): Promise<Peer>;
    close(): void;
  }>;
}

export class RawPeer {
  readonly socket: Socket;
  /** FIN or RST, whichever comes first. */
  readonly seenEnd: Promise<SeenEnd>;
  readonly closed: Promise<void>;
  readonly #received = new ReceivedBytes();
  #wasReset = false;

  /** Takes the socket; reads unless told `stalled`. */
  constructor(socket: Socket, how: "reading" | "stalled" = "reading") {
    this.socket = socket;
    this.seenEnd = new Promise((resolve) => {
      socket.on("end", () => resolve("fin"));
      socket.on("error", () => {
        this.#wasReset = true;
        resolve("reset");
      });
      socket.on("close", () => resolve("reset"));
    });
    this.closed = new Promise((resolve) => socket.on("close", () => resolve()));
    if (how === "reading") this.read();
  }

  get wasReset(): boolean {
    return this.#wasReset;
  }

  get receivedBytes(): number {
    return this.#received.count;
  }

  get localPort(): number {
    return this.socket.localPort ?? 0;
  }

  read(): void {
    this.socket.on("data", (chunk: Buffer) => this.#received.add(chunk));
    this.socket.resume();
  }

  /** Resolves when that much has come in all. */
  received(byteCount: number): Promise<void> {
    return this.#received.reached(byteCount);
  }

  /** Call once. */
  digest(): string {
    return this.#received.digest();
  }

  send(bytes: Uint8Array | string): void {
    this.socket.write(bytes);
  }

  /** Sends {@link pattern} with respect for back pressure. @returns its digest. */
  async sendPattern(byteCount: number, seed: number): Promise<string> {
    const hash = createHash("sha256");
    for (let sent = 0; sent < byteCount; ) {
      const chunk = pattern(Math.min(PATTERN_CHUNK_BYTES, byteCount - sent), seed + sent);
      hash.update(chunk);
      sent += chunk.length;
      if (!this.socket.write(chunk)) await once(this.socket, "drain");
    }
    return hash.digest("hex");
  }

  /** Settles when all that was sent is in the other side's kernel, where it need not be read. */
  async delivered(): Promise<void> {
    const { fd } = (this.socket as unknown as { _handle: { fd: number } })._handle;
    while (readTcpInfo(native, fd).unackedSegments > 0) await delay(1);
  }

  end(): void {
    this.socket.end();
  }

  reset(): void {
    this.socket.resetAndDestroy();
  }

  close(): void {
    this.socket.destroy();
  }
}

export const PATTERN_CHUNK_BYTES: number = 128 * 1024;

/** Bytes that differ from place to place, so that lost, doubled or swapped ones show. */
export function pattern(byteCount: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(byteCount);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let i = 0; i < byteCount; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** A listening application. */
export class RawServer {
  readonly address: SocketAddress;
  readonly #server: Server;
  #arrived: Socket[] = [];
  #wanted: ((socket: Socket) => void)[] = [];
  readonly #all: Socket[] = [];

  private constructor(server: Server, address: SocketAddress) {
    this.#server = server;
    this.address = address;
    server.on("connection", (socket) => {
      this.#all.push(socket);
      const wanted = this.#wanted.shift();
      if (wanted === undefined) this.#arrived.push(socket);
      else wanted(socket);
    });
  }

  static async listen(): Promise<RawServer> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
    server.listen({ host: LOOPBACK, port: 0, backlog: 1024 });
    await once(server, "listening");
    const bound = server.address();
    assert(bound !== null && typeof bound === "object");
    return new RawServer(server, { ip: LOOPBACK, port: bound.port });
  }

  /** The next connection, unread. */
  accept(how: "reading" | "stalled" = "reading"): Promise<RawPeer> {
    return new Promise((resolve) => {
      const take = (socket: Socket): void => resolve(new RawPeer(socket, how));
      const arrived = this.#arrived.shift();
      if (arrived === undefined) this.#wanted.push(take);
      else take(arrived);
    });
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#all) socket.destroy();
  }
}

/** Connects as a client application. */
export async function rawConnect(
  address: SocketAddress,
  how: "reading" | "stalled" = "reading",
): Promise<RawPeer> {
  const socket = netConnect({
    host: address.ip,
    port: address.port,
    allowHalfOpen: true,
    noDelay: true,
  });
  await once(socket, "connect");
  if (how === "stalled") socket.pause();
  return new RawPeer(socket, how);
}

/** On the machine's own loopback interface. */
export const realApplications: Applications = {
  connect: rawConnect,
  serve: () => RawServer.listen(),
};
