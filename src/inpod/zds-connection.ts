/**
 * One SOCK_SEQPACKET connection as whole packets, for either end of a ZDS conversation. It knows
 * nothing of messages.
 *
 * @see spec data-path 11.1 for the transport.
 */
import { closeSync } from "node:fs";
import type { Native } from "../net/native.ts";
import type { NativePacket } from "../net/seqpacket.ts";

/** Both ends of ZDS read at most this much; a longer packet is an error there, not here. */
const PACKET_BYTES_MAX = 1024;

export interface ZdsConnection {
  /**
   * The next packet; its descriptors belong to the caller. One call at a time.
   *
   * @returns `undefined` when the peer has closed.
   * @throws the signal's reason; what the system says when the connection broke; Error when it is
   *   closed.
   */
  receive(signal: AbortSignal): Promise<NativePacket | undefined>;
  /** @throws what the system says when the peer is gone or does not read; Error when it is closed. */
  send(data: Uint8Array, passFd?: number): void;
  /** Idempotent. */
  close(): void;
}

export class SeqpacketConnection implements ZdsConnection {
  readonly #native: Pick<Native, "receivePacket" | "sendPacket" | "watchReadable">;
  readonly #fd: number;
  #closed = false;

  /** Takes the descriptor. */
  constructor(native: Pick<Native, "receivePacket" | "sendPacket" | "watchReadable">, fd: number) {
    this.#native = native;
    this.#fd = fd;
  }

  /** @throws what the system says when nobody listens at the path. */
  static dial(native: Native, path: string): SeqpacketConnection {
    return new SeqpacketConnection(native, native.connectSeqpacket(path));
  }

  async receive(signal: AbortSignal): Promise<NativePacket | undefined> {
    for (;;) {
      signal.throwIfAborted();
      const packet = this.#native.receivePacket(this.#openFd(), PACKET_BYTES_MAX);
      if (packet !== undefined) {
        if (packet.data.length > 0) return packet;
        for (const fd of packet.fds) closeSync(fd);
        return undefined;
      }
      await this.#readable(signal);
    }
  }

  send(data: Uint8Array, passFd?: number): void {
    if (passFd === undefined) this.#native.sendPacket(this.#openFd(), data);
    else this.#native.sendPacket(this.#openFd(), data, passFd);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }

  /** The number of a closed descriptor may be somebody else's by now. */
  #openFd(): number {
    if (this.#closed) throw new Error("the connection is closed");
    return this.#fd;
  }

  /** Watches only while somebody waits: the watch is level triggered and would spin otherwise. */
  #readable(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const aborted = (): void => {
        watch.close();
        reject(signal.reason);
      };
      const watch = this.#native.watchReadable(this.#fd, () => {
        watch.close();
        signal.removeEventListener("abort", aborted);
        resolve();
      });
      signal.addEventListener("abort", aborted, { once: true });
    });
  }
}
