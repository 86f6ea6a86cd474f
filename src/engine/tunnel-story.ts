/** How a tunnel went, for its streams and for whoever holds it. The first thing that went wrong is the reason. */
import type { ReactorFailure } from "../net/reactor-failure.ts";
import { EngineError } from "./engine-error.ts";
import { leftBeforePreface, tlsFailure } from "./handshake-error.ts";
import type { SideFailure } from "./side-failure.ts";

const VANISHED_TEXT =
  "peer closed connection without sending TLS close_notify: " +
  "https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";

export class TunnelStory {
  readonly #role: "client" | "server";
  #error: EngineError | undefined;
  #isSettled = false;
  #hadGoaway = false;
  #isClosing = false;
  #isDestroyed = false;

  constructor(role: "client" | "server") {
    this.#role = role;
  }

  /** We want no new streams. */
  get isClosing(): boolean {
    return this.#isClosing;
  }

  /** The peer has begun HTTP/2, too. */
  settled(): void {
    this.#isSettled = true;
  }

  /** The peer leaves in order. */
  saidGoodbye(): void {
    this.#hadGoaway = true;
  }

  closing(): void {
    this.#isClosing = true;
  }

  /** This process ended it, whatever was under way. */
  destroyed(): void {
    this.#isDestroyed = true;
  }

  /** Something went wrong after the handshake. */
  broke(error: EngineError): void {
    this.#error ??= error;
  }

  /** What OpenSSL or the kernel says after our part of the handshake. */
  failed(failure: ReactorFailure): void {
    // A server that refuses us does so when we believe the handshake done, and the reverse.
    const isRefusal = failure.kind === "alert" && !this.#isSettled;
    const error = tlsFailure(failure, isRefusal ? this.#role : "client");
    this.broke(
      isRefusal && this.#role === "server"
        ? error
        : new EngineError("tunnel-closed", error.message),
    );
  }

  /** The peer is gone. Whoever leaves in order says so, or has nothing open. */
  left(hasStreams: boolean): void {
    if (!this.#hadGoaway && hasStreams) this.broke(new EngineError("tunnel-closed", VANISHED_TEXT));
  }

  /** Why no stream can be had of a tunnel that is gone or going. */
  closedError(): EngineError {
    if (this.#error !== undefined) return this.#error;
    const isOurs = this.#isDestroyed || this.#isClosing;
    return new EngineError("tunnel-closed", isOurs ? "tunnel is closed" : VANISHED_TEXT);
  }

  /** What streams that had not ended come to. */
  streamFailure(): SideFailure | undefined {
    if (this.#isDestroyed) return { kind: "stopped" };
    if (this.#error === undefined && this.#hadGoaway) return undefined;
    return { kind: "reset", error: this.#error };
  }

  /** @returns `undefined` after an orderly end. */
  outcome(): EngineError | undefined {
    if (this.#isDestroyed) return undefined;
    if (this.#role === "server" && !this.#isSettled) {
      return this.#error?.code === "handshake" ? this.#error : leftBeforePreface();
    }
    if (this.#error !== undefined) return this.#error;
    if (this.#hadGoaway || this.#isClosing) return undefined;
    return this.closedError();
  }
}
