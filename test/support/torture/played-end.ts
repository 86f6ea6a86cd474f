/** One end of a connection that says and hears what its plan wants, and compares every byte. */
import { once } from "node:events";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../../../src/runtime/random.ts";
import { drawWriteSize, type EndPlan, type SaidBytes } from "./torture-plan.ts";

const PAUSE_SHARE = 0.3;
/** Before a late end, a reset or a close, at most. */
const LEAVE_MS_MAX = 250;

export interface PlayedEndOptions {
  readonly plan: EndPlan;
  readonly said: SaidBytes;
  /** Its own number among all that say something, and the other end's. */
  readonly speaker: number;
  readonly otherSpeaker: number;
  readonly random: Random;
}

/** Counts are of what was planned, without a greeting. */
export class PlayedEnd {
  readonly plan: EndPlan;
  /** Handed to the socket; the kernel may have taken less. */
  sent = 0;
  received = 0;
  /** The first byte that was not what the other had said. */
  wrongAt: number | undefined;
  /** How reading ended: `EOF` or the errno's name; `undefined`: it left before. */
  end: string | undefined;
  /** Counted up with everything that moves. */
  moveCount = 0;
  readonly #socket: Socket;
  readonly #options: PlayedEndOptions;
  readonly #closed: Promise<void>;

  /** @param socket paused, with an error listener. */
  constructor(socket: Socket, options: PlayedEndOptions) {
    this.plan = options.plan;
    this.#socket = socket;
    this.#options = options;
    this.#closed = new Promise((resolve) => {
      socket.once("close", () => resolve());
    });
    socket.on("data", (chunk: Buffer) => this.#hear(chunk));
    socket.once("end", () => this.#ended("EOF"));
    socket.once("error", (error: NodeJS.ErrnoException) => {
      this.#ended(error.code ?? error.message);
    });
  }

  /** Settles when the socket is closed. */
  async play(): Promise<void> {
    if (this.#socket.destroyed) return;
    this.#socket.resume();
    await this.#speak();
    await this.#leave();
    await this.#closed;
  }

  /** For one that is stuck. */
  giveUp(): void {
    this.#socket.destroy();
  }

  /** @param isClean whether all must have come, and an end after it. */
  problems(other: PlayedEnd, isClean: boolean): readonly string[] {
    const { wrongAt, received, end } = this;
    const isAll = received === other.plan.byteCount && end === "EOF";
    return [
      ...(wrongAt === undefined ? [] : [`byte ${wrongAt} is wrong`]),
      ...(received > other.sent ? ["more was heard than was said"] : []),
      ...(isClean && !isAll ? ["not all was heard"] : []),
    ];
  }

  toString(): string {
    const { byteCount, pauseMs, readPauseMs, ending } = this.plan;
    return (
      `said ${this.sent} of ${byteCount} (pauses ${pauseMs}, ${ending}), ` +
      `heard ${this.received} (pauses ${readPauseMs}, ${this.end ?? "no end"})`
    );
  }

  async #speak(): Promise<void> {
    const { plan, random, said, speaker } = this.#options;
    while (this.sent < plan.byteCount && !this.#socket.destroyed) {
      const length = Math.min(drawWriteSize(random), plan.byteCount - this.sent);
      const hasRoom = this.#socket.write(said.piece(speaker, this.sent, length));
      this.sent += length;
      this.moveCount++;
      if (!hasRoom) await Promise.race([once(this.#socket, "drain").catch(() => {}), this.#closed]);
      if (plan.pauseMs > 0 && random.unit() < PAUSE_SHARE) {
        await sleep(random.unit() * plan.pauseMs);
      }
    }
  }

  async #leave(): Promise<void> {
    const { ending } = this.plan;
    if (ending !== "end") await sleep(this.#options.random.unit() * LEAVE_MS_MAX);
    this.moveCount++;
    if (ending === "reset") this.#socket.resetAndDestroy();
    else if (ending === "close") this.#socket.destroy();
    else this.#socket.end();
  }

  #hear(chunk: Buffer): void {
    const { said, otherSpeaker, plan } = this.#options;
    const expected = said.piece(otherSpeaker, this.received, chunk.length);
    if (!chunk.equals(expected)) {
      this.wrongAt ??= this.received + chunk.findIndex((byte, i) => byte !== expected[i]);
    }
    this.received += chunk.length;
    this.moveCount++;
    if (plan.readPauseMs === 0) return;
    this.#socket.pause();
    setTimeout(() => this.#socket.resume(), plan.readPauseMs);
  }

  #ended(how: string): void {
    this.end ??= how;
    this.moveCount++;
  }
}
