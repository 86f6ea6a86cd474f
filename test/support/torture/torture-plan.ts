/** What the two ends of a connection are to do to each other, drawn from a seed, and the bytes they say. */
import { randomFillSync } from "node:crypto";
import type { Random } from "../../../src/runtime/random.ts";

/** How an end leaves when it has said all; the first two wait for the other's end. */
export type Ending = "end" | "end late" | "reset" | "close";

export interface EndPlan {
  /** How many it says. */
  readonly byteCount: number;
  /** The longest pause between two writes, milliseconds; 0: none. */
  readonly pauseMs: number;
  /** Between two reads, milliseconds; 0: reads as fast as it can. */
  readonly readPauseMs: number;
  readonly ending: Ending;
}

const SIZES = [0, 1, 10, 1000, 5000, 50_000, 300_000, 2_000_000, 6_000_000] as const;
const PAUSES_MS = [0, 0, 0, 10, 50] as const;
const READ_PAUSES_MS = [0, 0, 0, 0, 1, 10] as const;
const WRITE_SIZES = [1, 7, 100, 1000, 16_384, 65_536, 300_000] as const;
const ENDINGS: readonly Ending[] = [
  ...Array<Ending>(6).fill("end"),
  ...Array<Ending>(3).fill("end late"),
  "reset",
  "close",
];
/** A slow reader is not paired with more: it would take minutes. */
const SLOWLY_READ_MAX = 300_000;

/** Of the client and of the server. */
export function drawPlans(random: Random): readonly [EndPlan, EndPlan] {
  const [one, other] = [drawPlan(random), drawPlan(random)];
  return [patient(one, other), patient(other, one)];
}

export function drawWriteSize(random: Random): number {
  return pick(WRITE_SIZES, random);
}

export function pick<Value>(values: readonly Value[], random: Random): Value {
  return values[Math.floor(random.unit() * values.length)] as Value;
}

function drawPlan(random: Random): EndPlan {
  return {
    byteCount: pick(SIZES, random),
    pauseMs: pick(PAUSES_MS, random),
    readPauseMs: pick(READ_PAUSES_MS, random),
    ending: pick(ENDINGS, random),
  };
}

function patient(reader: EndPlan, writer: EndPlan): EndPlan {
  return writer.byteCount > SLOWLY_READ_MAX ? { ...reader, readPauseMs: 0 } : reader;
}

const BLOCK_BYTES = 2 ** 20;

/** Bytes of which every end says others, and at every place others. */
export class SaidBytes {
  /** The block twice, so that a piece may begin anywhere in the first. */
  readonly #twice = Buffer.alloc(2 * BLOCK_BYTES);

  constructor() {
    const block = randomFillSync(this.#twice.subarray(0, BLOCK_BYTES));
    this.#twice.set(block, BLOCK_BYTES);
  }

  /** @param speaker a number of its own for each end. @param length up to {@link BLOCK_BYTES}. */
  piece(speaker: number, offset: number, length: number): Buffer {
    const start = (speaker * 7919 + offset) % BLOCK_BYTES;
    return this.#twice.subarray(start, start + length);
  }
}
