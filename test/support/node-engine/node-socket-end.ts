/**
 * A TCP connection held by the engine.
 *
 * An accepted connection stays a bare descriptor until it is relayed or tunnelled: nothing is read
 * ahead, so that closing it makes the kernel answer RST when the peer's bytes were never wanted.
 */
import { closeSync, readSync, writeSync } from "node:fs";
import type { Socket } from "node:net";
import type { SocketEnd } from "../../../src/engine/engine.ts";
import { errnoOf, systemError } from "../../../src/engine/engine-error.ts";
import { FirstBytes } from "../../../src/engine/first-bytes.ts";
import type { SideFailure } from "../../../src/engine/side-failure.ts";
import type { SocketAddress } from "../../../src/mesh/socket-address.ts";
import { native } from "../../../src/net/native.ts";
import { invariant } from "../../../src/runtime/invariant.ts";
import type { BufferPool } from "./buffer-pool.ts";
import { openSocket } from "./connect-socket.ts";
import type { RelaySide, SideListener } from "./relay-side.ts";
import { WriteQueue } from "./write-queue.ts";

/** Smaller reads are copied into memory of their size, so that they never pin a whole buffer. */
const LEASE_BYTES_MIN = 64 * 1024;

export interface SocketEndAddresses {
  readonly local: SocketAddress;
  readonly peer: SocketAddress;
  readonly originalDestination: SocketAddress;
}

export class NodeSocketEnd implements SocketEnd, RelaySide {
  readonly local: SocketAddress;
  readonly peer: SocketAddress;
  readonly originalDestination: SocketAddress;
  readonly arrivesInPieces = false;
  readonly #pool: BufferPool;
  /** -1 once it belongs to the socket or is closed. */
  #fd: number;
  #first: FirstBytes | undefined;
  #socket: Socket | undefined;
  #writes: WriteQueue | undefined;
  #listener: SideListener | undefined;
  #nextBuffer: Buffer;
  #failure: SideFailure | undefined;
  #isClosed = false;
  #wasTaken = false;

  private constructor(fd: number, pool: BufferPool, addresses: SocketEndAddresses) {
    this.#fd = fd;
    this.#pool = pool;
    this.#nextBuffer = pool.shared;
    this.local = addresses.local;
    this.peer = addresses.peer;
    this.originalDestination = addresses.originalDestination;
  }

  /** Takes the descriptor. */
  static ofDescriptor(fd: number, pool: BufferPool, addresses: SocketEndAddresses): NodeSocketEnd {
    return new NodeSocketEnd(fd, pool, addresses);
  }

  /** A socket that is yet to connect, over a descriptor that it takes; the end comes after it. */
  static connecting(
    fd: number,
    pool: BufferPool,
    remote: SocketAddress,
  ): { readonly socket: Socket; connected(local: SocketAddress): NodeSocketEnd } {
    // The end needs its addresses and the socket its read callback, so the callback looks the end up.
    let end: NodeSocketEnd | undefined;
    const socket = openSocket(fd, {
      buffer: () => (end === undefined ? pool.shared : end.#nextBuffer),
      callback: (byteCount, buffer) =>
        end === undefined ? false : end.#onRead(byteCount, buffer as Buffer),
    });
    socket.pause();
    return {
      socket,
      connected(local) {
        end = new NodeSocketEnd(-1, pool, { local, peer: remote, originalDestination: remote });
        end.#adopt(socket);
        return end;
      },
    };
  }

  /** The connection as a plain Node socket for TLS; this end is spent. */
  takeSocket(): Socket {
    invariant(this.#fd !== -1 && !this.#wasTaken, "only an accepted, unused end can be tunnelled");
    this.#wasTaken = true;
    const fd = this.#fd;
    this.#fd = -1;
    return openSocket(fd);
  }

  /** Of an accepted end, whose descriptor is asked directly. */
  readFirst(byteCount: number): Promise<Uint8Array> {
    const first = new FirstBytes(byteCount);
    if (byteCount === 0) first.take(new Uint8Array());
    else if (this.#fd === -1) first.fail(undefined);
    else {
      this.#first = first;
      const watch = native.watchReadable(this.#fd, () => {
        if (!this.#readNow(first)) return;
        watch.close();
        this.#first = undefined;
      });
      first.arrived.finally(() => watch.close()).catch(() => {});
    }
    return first.arrived;
  }

  writeFirst(bytes: Uint8Array): void {
    if (this.#fd !== -1) writeSync(this.#fd, bytes);
    else this.#socket?.write(bytes);
  }

  start(listener: SideListener): void {
    invariant(!this.#wasTaken, "an end is relayed or tunnelled once");
    this.#wasTaken = true;
    this.#listener = listener;
    if (this.#fd !== -1) {
      const fd = this.#fd;
      this.#fd = -1;
      this.#adopt(
        openSocket(fd, {
          buffer: () => this.#nextBuffer,
          callback: (byteCount, buffer) => this.#onRead(byteCount, buffer as Buffer),
        }),
      );
      return;
    }
    if (this.#failure !== undefined) listener.failed(this.#failure);
    if (this.#isClosed) listener.closed();
    else this.#socket?.resume();
  }

  resume(): void {
    this.#socket?.resume();
  }

  write(chunk: Buffer, lease: Buffer | undefined): void {
    this.#writes?.write(chunk, lease);
  }

  get pendingBytes(): number {
    return this.#writes?.pendingBytes ?? 0;
  }

  gather(): void {
    this.#writes?.gather();
  }

  end(): void {
    this.#socket?.end();
  }

  close(): void {
    if (this.#fd !== -1) this.#closeDescriptor();
    else this.#socket?.destroy();
  }

  reset(): void {
    if (this.#fd !== -1) {
      const fd = this.#fd;
      this.#fd = -1;
      this.#isClosed = true;
      openSocket(fd).resetAndDestroy();
    } else if (this.#socket !== undefined) resetSocket(this.#socket);
  }

  /** @returns whether it is over. */
  #readNow(first: FirstBytes): boolean {
    const bytes = new Uint8Array(first.missing);
    try {
      const byteCount = readSync(this.#fd, bytes);
      if (byteCount === 0) first.fail(undefined);
      else first.take(bytes.subarray(0, byteCount));
      return byteCount === 0 || first.missing === 0;
    } catch (error) {
      if (errnoOf(error) === "EAGAIN") return false;
      first.fail(errnoOf(error) === "ECONNRESET" ? undefined : systemError(error));
      return true;
    }
  }

  #closeDescriptor(): void {
    this.#first?.fail(undefined);
    const fd = this.#fd;
    this.#fd = -1;
    this.#isClosed = true;
    closeSync(fd);
  }

  #adopt(socket: Socket): void {
    this.#socket = socket;
    this.#writes = new WriteQueue(socket, this.#pool, (byteCount) =>
      this.#listener?.written(byteCount),
    );
    if (socket.destroyed) {
      this.#failure = { kind: "reset", error: undefined };
      this.#isClosed = true;
      return;
    }
    socket.on("end", () => {
      this.#dropNextBuffer();
      this.#listener?.ended();
    });
    socket.on("finish", () => this.#listener?.finished());
    socket.on("error", (error) => this.#onError(error));
    socket.on("close", () => {
      this.#isClosed = true;
      this.#dropNextBuffer();
      this.#listener?.closed();
    });
  }

  #onRead(byteCount: number, buffer: Buffer): boolean {
    const listener = this.#listener;
    if (listener === undefined) return false;
    let chunk = buffer.subarray(0, byteCount);
    let lease: Buffer | undefined = buffer;
    if (buffer === this.#pool.shared) {
      lease = byteCount < LEASE_BYTES_MIN ? undefined : this.#pool.take();
      const copy = lease?.subarray(0, byteCount) ?? Buffer.allocUnsafe(byteCount);
      chunk.copy(copy);
      chunk = copy;
    }
    const goesOn = listener.read(chunk, lease);
    const isBusy = goesOn && byteCount === buffer.length;
    this.#nextBuffer = isBusy ? this.#pool.take() : this.#pool.shared;
    return goesOn;
  }

  #dropNextBuffer(): void {
    if (this.#nextBuffer !== this.#pool.shared) this.#pool.give(this.#nextBuffer);
    this.#nextBuffer = this.#pool.shared;
  }

  #onError(error: Error): void {
    if (this.#failure !== undefined) return;
    const errno = errnoOf(error);
    const isPeerGone = errno === "ECONNRESET" || errno === "EPIPE";
    this.#failure = { kind: "reset", error: isPeerGone ? undefined : systemError(error) };
    this.#listener?.failed(this.#failure);
  }
}

/** Sends RST; the kernel does not while a shutdown is on its way, so that one is waited for. */
function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  const isShuttingDown =
    socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
  if (isShuttingDown) socket.once("finish", () => socket.resetAndDestroy());
  else socket.resetAndDestroy();
}
