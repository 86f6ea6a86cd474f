/** The pings that we send, by what they ask. */
import type { FrameWriter } from "./frame-writer.ts";

export type PingPurpose =
  /** Whether the peer is alive. */
  | "keep-alive"
  /** Whether the peer has read all that we said before. */
  | "drain";

/** The values of the original, so that captures look alike. */
const PAYLOADS: Readonly<Record<PingPurpose, Uint8Array>> = {
  "keep-alive": Buffer.from("3b7cdb7a0b8716b4", "hex"),
  drain: Buffer.from("0b7ba2f08b9bfe54", "hex"),
};

export class Pings {
  readonly #frames: FrameWriter;
  readonly #awaited = new Set<PingPurpose>();

  constructor(frames: FrameWriter) {
    this.#frames = frames;
  }

  /** Asks, unless an answer is awaited. */
  send(purpose: PingPurpose): void {
    if (this.#awaited.has(purpose)) return;
    this.#awaited.add(purpose);
    this.#frames.ping(PAYLOADS[purpose], false);
  }

  /** What an answer of the peer answers; `undefined` when nobody asked. */
  takeAnswer(payload: Uint8Array): PingPurpose | undefined {
    for (const purpose of this.#awaited) {
      if (!PAYLOADS[purpose].every((byte, i) => byte === payload[i])) continue;
      this.#awaited.delete(purpose);
      return purpose;
    }
    return undefined;
  }
}
