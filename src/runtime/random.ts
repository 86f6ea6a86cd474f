/** Randomness as a value that is handed in, so that tests hold it. */
import { randomBytes } from "node:crypto";

export interface Random {
  /** 0 ≤ value < 1. */
  unit(): number;
  /** Unpredictable lower-case hexadecimal text, two characters a byte. */
  hex(byteCount: number): string;
}

/** Random bytes are drawn in blocks; one system call serves many connections. */
const BLOCK_BYTES = 4096;

export function systemRandom(): Random {
  let block = Buffer.alloc(0);
  let used = 0;
  return {
    unit: Math.random,
    hex(byteCount) {
      if (used + byteCount > block.length) {
        block = randomBytes(Math.max(BLOCK_BYTES, byteCount));
        used = 0;
      }
      used += byteCount;
      return block.toString("hex", used - byteCount, used);
    },
  };
}
