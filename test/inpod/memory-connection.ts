/** A ZDS connection in memory: the test plays the node agent, packet by packet. */
import { openSync } from "node:fs";
import type { ZdsConnection } from "../../src/inpod/zds-connection.ts";
import type { NativePacket } from "../../src/net/seqpacket.ts";

export class MemoryConnection implements ZdsConnection {
  /** What the proxy sent and nobody has taken yet. */
  readonly sent: Uint8Array[] = [];
  readonly #waiting: NativePacket[] = [];
  #ended = false;
  #wake: (() => void) | undefined;
  #taken: ((data: Uint8Array) => void) | undefined;
  closed = false;
  /** Set: sends fail as on a socket whose peer is gone. */
  broken = false;

  async receive(signal: AbortSignal): Promise<NativePacket | undefined> {
    for (;;) {
      signal.throwIfAborted();
      this.#checkOpen();
      const packet = this.#waiting.shift();
      if (packet !== undefined || this.#ended) return packet;
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve;
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      });
    }
  }

  send(data: Uint8Array): void {
    this.#checkOpen();
    if (this.broken || this.#ended) throw Object.assign(new Error("send EPIPE"), { code: "EPIPE" });
    const taken = this.#taken;
    this.#taken = undefined;
    if (taken === undefined) this.sent.push(data.slice());
    else taken(data.slice());
  }

  close(): void {
    this.closed = true;
  }

  /** The next packet of the proxy. */
  take(): Promise<Uint8Array> {
    const data = this.sent.shift();
    if (data !== undefined) return Promise.resolve(data);
    return new Promise((resolve) => {
      this.#taken = resolve;
    });
  }

  /** Hands the proxy a packet. */
  deliver(data: Uint8Array, more: Partial<NativePacket> = {}): void {
    this.#waiting.push({ data, fds: [], truncated: false, ...more });
    this.#wake?.();
  }

  /** The agent hangs up. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** Hands the proxy a packet and waits for its acknowledgement. */
  async ask(data: Uint8Array, fds: readonly number[] = []): Promise<Uint8Array> {
    this.deliver(data, { fds });
    return this.take();
  }

  #checkOpen(): void {
    if (this.closed) throw new Error("the connection is closed");
  }
}

/** A fresh descriptor of this process's own network namespace. */
export function ownNetnsFd(): number {
  return openSync("/proc/self/ns/net", "r");
}
