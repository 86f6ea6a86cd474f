/** Relays of the memory network. */
import type { HalfEnd, Relay, RelayOutcome } from "../../src/engine/engine.ts";
import type { EngineError } from "../../src/engine/engine-error.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import type { MemorySocket } from "./memory-socket.ts";
export class MemoryRelay implements Relay {
  bytesSent = 0;
  bytesReceived = 0;
  firstByteAt = 0;
  lastActivityAt = 0;
  readonly #downstream: MemorySocket;
  readonly #upstream: MemorySocket;
  readonly #clock: Clock;
  readonly #finished: (outcome: RelayOutcome) => void;
  #sent: HalfEnd | undefined;
  #received: HalfEnd | undefined;
  #isDone = false;

  constructor(
    downstream: MemorySocket,
    upstream: MemorySocket,
    clock: Clock,
    finished: (outcome: RelayOutcome) => void,
  ) {
    this.#downstream = downstream;
    this.#upstream = upstream;
    this.#clock = clock;
    this.#finished = finished;
    downstream.onReadable = () => this.#pumpDown();
    upstream.onReadable = () => this.#pumpUp();
    queueMicrotask(() => this.#pumpDown());
    queueMicrotask(() => this.#pumpUp());
  }

  stop(how: "close" | "reset"): void {
    this.#finish(undefined, how);
  }

  /** A write that goes wrong, as an engine would report it. */
  break(half: "sent" | "received", error: EngineError): void {
    if (half === "sent") this.#sent = "error";
    else this.#received = "error";
    this.#finish(error, "reset");
  }

  #pumpDown(): void {
    this.#pump(this.#downstream, this.#upstream, "sent");
  }

  #pumpUp(): void {
    this.#pump(this.#upstream, this.#downstream, "received");
  }

  #pump(from: MemorySocket, to: MemorySocket, half: "sent" | "received"): void {
    if (this.#isDone) return;
    const text = from.readEnd === "reset" ? "" : from.read();
    if (text !== "" && to.write(text)) {
      if (half === "sent") this.bytesSent += text.length;
      else this.bytesReceived += text.length;
      this.lastActivityAt = this.#clock.monotonic();
      this.firstByteAt ||= this.lastActivityAt;
    }
    if (from.readEnd === "reset") {
      this.#sent ??= "reset";
      this.#received ??= "reset";
      this.#finish(undefined, "reset");
    } else if (from.readEnd === "fin") {
      to.end();
      if (half === "sent") this.#sent ??= "fin";
      else this.#received ??= "fin";
      if (this.#sent !== undefined && this.#received !== undefined)
        this.#finish(undefined, "close");
    }
  }

  #finish(error: EngineError | undefined, how: "close" | "reset"): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#downstream[how]();
    this.#upstream[how]();
    const outcome = {
      sent: this.#sent ?? "stopped",
      received: this.#received ?? "stopped",
      error,
    };
    queueMicrotask(() => this.#finished(outcome));
  }
}
