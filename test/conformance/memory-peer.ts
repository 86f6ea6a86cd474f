/** Applications in the memory network, in the process's own namespace. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { MemoryNetwork, MemoryPod } from "../support/memory-engine.ts";
import type { MemorySocket } from "../support/memory-socket.ts";
import { afterTurn } from "../support/turn.ts";
import {
  type Applications,
  LOOPBACK,
  PATTERN_CHUNK_BYTES,
  type Peer,
  pattern,
  type SeenEnd,
} from "./raw-peer.ts";
import { ReceivedBytes } from "./received-bytes.ts";

export class MemoryPeer implements Peer {
  readonly seenEnd: Promise<SeenEnd>;
  readonly closed: Promise<void>;
  readonly #socket: MemorySocket;
  readonly #received = new ReceivedBytes();
  #isReading = false;

  /** Takes the socket; reads unless told `stalled`. */
  constructor(socket: MemorySocket, how: "reading" | "stalled" = "reading") {
    this.#socket = socket;
    const seen = Promise.withResolvers<SeenEnd>();
    const closed = Promise.withResolvers<void>();
    this.seenEnd = seen.promise;
    this.closed = closed.promise;
    socket.onReadable = () => {
      if (this.#isReading) this.#take();
      if (socket.readEnd !== "open" && socket.peekLength === 0) seen.resolve(socket.readEnd);
    };
    socket.onEnded = () => {
      // Both were told already if the peer ended first.
      seen.resolve("reset");
      closed.resolve();
    };
    if (how === "reading") this.read();
  }

  get wasReset(): boolean {
    return this.#socket.readEnd === "reset";
  }

  get receivedBytes(): number {
    return this.#received.count;
  }

  get localPort(): number {
    return this.#socket.local.port;
  }

  read(): void {
    this.#isReading = true;
    queueMicrotask(() => this.#socket.onReadable?.());
  }

  received(byteCount: number): Promise<void> {
    return this.#received.reached(byteCount);
  }

  digest(): string {
    return this.#received.digest();
  }

  send(bytes: Uint8Array | string): void {
    this.#socket.write(Buffer.from(bytes).toString("latin1"));
  }

  /** A chunk each turn, as a socket would that is quick to drain. */
  async sendPattern(byteCount: number, seed: number): Promise<string> {
    const hash = createHash("sha256");
    for (let sent = 0; sent < byteCount; ) {
      const chunk = pattern(Math.min(PATTERN_CHUNK_BYTES, byteCount - sent), seed + sent);
      hash.update(chunk);
      sent += chunk.length;
      assert.ok(this.#socket.write(chunk.toString("latin1")), "nobody receives it any more");
      await new Promise<void>(afterTurn);
    }
    return hash.digest("hex");
  }

  async delivered(): Promise<void> {
    await new Promise<void>(afterTurn);
  }

  end(): void {
    this.#socket.end();
  }

  reset(): void {
    this.#socket.reset();
  }

  close(): void {
    this.#socket.close();
  }

  #take(): void {
    this.#received.add(Buffer.from(this.#socket.read(), "latin1"));
  }
}

/** @param host the namespace of the engine under test. */
export function memoryApplications(network: MemoryNetwork, host: MemoryPod): Applications {
  return {
    connect: async (address, how) =>
      new MemoryPeer(network.connect(host, address, undefined, false), how),
    async serve() {
      const address = { ip: LOOPBACK, port: network.freePort() };
      const arrived: MemorySocket[] = [];
      const wanted: ((socket: MemorySocket) => void)[] = [];
      host.serve(address.port, (socket) => {
        const take = wanted.shift();
        if (take === undefined) arrived.push(socket);
        else take(socket);
      });
      return {
        address,
        accept: (how) =>
          new Promise((resolve) => {
            const take = (socket: MemorySocket): void => resolve(new MemoryPeer(socket, how));
            const socket = arrived.shift();
            if (socket === undefined) wanted.push(take);
            else take(socket);
          }),
        close: () => host.stopServing(address.port),
      };
    },
  };
}
