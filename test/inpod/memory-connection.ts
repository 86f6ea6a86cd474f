/** A ZDS connection in memory: the test plays the node agent, packet by packet. */
import { openSync } from "node:fs";
import type { ZdsConnection } from "../../src/inpod/zds-connection.ts";
import type { NativePacket } from "../../src/net/native.ts";

export class MemoryConnection implements ZdsConnection {
  /** What the proxy sent and nobody has taken yet. */
  readonly sent: Uint8Array[] = [];
  readonly #waiting: (NativePacket | undefined)[] = [];
  #wake: (() => void) | undefined;
  #taken: ((data: Uint8Array) => void) | undefined;
  closed = false;
  /** Set: sends fail as on a socket whose peer is gone. */
  broken = false;

  async receive(signal: AbortSignal): Promise<NativePacket | undefined> {
    for (;;) {
      signal.throwIfAborted();
      if (this.#waiting.length > 0) return this.#waiting.shift();
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve;
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      });
    }
  }

  send(data: Uint8Array): void {
    if (this.broken) throw Object.assign(new Error("send EPIPE"), { code: "EPIPE" });
    const taken = this.#taken;
    this.#taken = undefined;
    if (taken === undefined) this.sent.push(data);
    else taken(data);
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
    this.#push({ data, fds: [], truncated: false, ...more });
  }

  /** The agent hangs up. */
  end(): void {
    this.#push(undefined);
  }

  /** Hands the proxy a packet and waits for its acknowledgement. */
  async ask(data: Uint8Array, fds: readonly number[] = []): Promise<Uint8Array> {
    this.deliver(data, { fds });
    return this.take();
  }

  #push(packet: NativePacket | undefined): void {
    this.#waiting.push(packet);
    this.#wake?.();
  }
}

/** A fresh descriptor of this process's own network namespace. */
export function ownNetnsFd(): number {
  return openSync("/proc/self/ns/net", "r");
}
