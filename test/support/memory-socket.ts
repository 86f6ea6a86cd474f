/** Sockets of the memory network. */
import type { SocketEnd } from "../../src/engine/engine.ts";
import { EngineError } from "../../src/engine/engine-error.ts";
import type { SocketAddress } from "../../src/mesh/socket-address.ts";

type ReadEnd = "open" | "fin" | "reset";

/** One side of a connection or of a tunnel stream; also what test applications hold. */
export class MemorySocket implements SocketEnd {
  readonly local: SocketAddress;
  readonly peer: SocketAddress;
  readonly originalDestination: SocketAddress;
  /** Called after something changed, never from inside a call of this object. */
  onReadable: (() => void) | undefined;
  /** Called once, when this side can neither read nor write any more. */
  onEnded: (() => void) | undefined;
  #other: MemorySocket | undefined;
  #unread = "";
  #readEnd: ReadEnd = "open";
  #writeEnded = false;
  #closed = false;
  #toldEnded = false;

  constructor(local: SocketAddress, peer: SocketAddress, originalDestination: SocketAddress) {
    this.local = local;
    this.peer = peer;
    this.originalDestination = originalDestination;
  }

  /** How reading ended, seen by whoever has read everything before. */
  get readEnd(): ReadEnd {
    return this.#readEnd;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** How much has arrived and was not taken. */
  get peekLength(): number {
    return this.#unread.length;
  }

  /** Takes what has arrived; each character is a byte. */
  read(): string {
    const text = this.#unread;
    this.#unread = "";
    return text;
  }

  async readFirst(byteCount: number): Promise<Uint8Array> {
    while (this.#unread.length < byteCount) {
      if (this.#closed || this.#readEnd !== "open") {
        throw new EngineError("disconnected", "early eof");
      }
      await new Promise<void>((resolve) => {
        this.onReadable = resolve;
        this.onEnded = resolve;
      });
    }
    const text = this.#unread.slice(0, byteCount);
    this.#unread = this.#unread.slice(byteCount);
    return Buffer.from(text, "latin1");
  }

  writeFirst(bytes: Uint8Array): void {
    this.write(Buffer.from(bytes).toString("latin1"));
  }

  /** @returns false when nobody can receive it any more. */
  write(text: string): boolean {
    const other = this.#other;
    if (this.#closed || this.#writeEnded || this.#readEnd === "reset" || other === undefined) {
      return false;
    }
    if (other.closed) {
      this.receiveReset();
      return false;
    }
    other.receive(text);
    return true;
  }

  /** Half-close. */
  end(): void {
    if (this.#closed || this.#writeEnded) return;
    this.#writeEnded = true;
    this.#other?.receiveFin();
    this.#checkEnded();
  }

  close(): void {
    if (this.#closed) return;
    if (this.#unread !== "") {
      this.reset();
      return;
    }
    this.end();
    this.#closed = true;
    this.#checkEnded();
  }

  reset(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unread = "";
    this.#other?.receiveReset();
    this.#checkEnded();
  }

  /** Makes this the other side of a socket. */
  attach(other: MemorySocket): void {
    this.#other = other;
  }

  get otherSide(): MemorySocket {
    if (this.#other === undefined) throw new Error("a socket has two sides");
    return this.#other;
  }

  receive(text: string): void {
    this.#unread += text;
    this.#changed();
  }

  receiveFin(): void {
    if (this.#closed || this.#readEnd !== "open") return;
    this.#readEnd = "fin";
    this.#changed();
  }

  receiveReset(): void {
    if (this.#closed || this.#readEnd === "reset") return;
    this.#readEnd = "reset";
    this.#changed();
  }

  #changed(): void {
    queueMicrotask(() => this.onReadable?.());
    this.#checkEnded();
  }

  #checkEnded(): void {
    const both = this.#writeEnded && this.#readEnd === "fin";
    if (this.#toldEnded || !(this.#closed || both || this.#readEnd === "reset")) return;
    this.#toldEnded = true;
    queueMicrotask(() => this.onEnded?.());
  }
}

export function join(one: MemorySocket, other: MemorySocket): void {
  one.attach(other);
  other.attach(one);
}
