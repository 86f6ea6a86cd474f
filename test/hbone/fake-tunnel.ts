/** A client tunnel without a network, whose answers and whose fate a test decides. */
import type {
  ClientTunnel,
  HeaderFields,
  TunnelAnswer,
  TunnelClosed,
} from "../../src/engine/engine.ts";
import { EngineError } from "../../src/engine/engine-error.ts";

export class FakeTunnel implements ClientTunnel {
  readonly requests: (readonly [authority: string, headers: HeaderFields])[] = [];
  streamsMax: number;
  /** Status of the answers; an error instead fails the request. */
  answer: number | EngineError = 200;
  /** GOAWAY crosses the next request. */
  goesAwayWithRequest = false;
  liveCount = 0;
  /** Streams that were ever live at a time. */
  liveCountMax = 0;
  isGone = false;
  closeCount = 0;
  #takesStreams = true;
  #closed: TunnelClosed[] = [];

  constructor(streamsMax: number) {
    this.streamsMax = streamsMax;
  }

  get usable(): boolean {
    return this.#takesStreams && !this.isGone;
  }

  async open(authority: string, headers: HeaderFields): Promise<TunnelAnswer> {
    this.requests.push([authority, headers]);
    if (!this.usable) throw new EngineError("tunnel-closed", "connection is closing");
    if (this.goesAwayWithRequest) this.goAway();
    this.liveCount++;
    this.liveCountMax = Math.max(this.liveCountMax, this.liveCount);
    await Promise.resolve();
    const answer = this.answer;
    if (answer === 200) {
      const end = (): void => this.#endStream();
      return { status: 200, headers: new Map(), end: { close: end, reset: end } };
    }
    this.#endStream();
    if (typeof answer !== "number") throw answer;
    return { status: answer, headers: new Map(), end: undefined };
  }

  /** The peer wants no more streams. */
  goAway(): void {
    this.#takesStreams = false;
  }

  fail(): void {
    this.#gone(new EngineError("tunnel-closed", "connection is lost"));
  }

  close(): void {
    this.closeCount++;
    this.#takesStreams = false;
    if (this.liveCount === 0) this.#gone(undefined);
  }

  destroy(): void {
    this.#gone(undefined);
  }

  onClosed(callback: TunnelClosed): void {
    this.#closed.push(callback);
  }

  /** A stream has ended; the last one takes a closing tunnel with it. */
  #endStream(): void {
    this.liveCount--;
    if (this.liveCount === 0 && this.closeCount > 0) this.#gone(undefined);
  }

  #gone(error: EngineError | undefined): void {
    if (this.isGone) return;
    this.isGone = true;
    for (const callback of this.#closed.splice(0)) callback(error, this.liveCount);
  }
}
