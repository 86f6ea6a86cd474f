/** Runs a property for FUZZ_SECONDS (default a fraction of one) from a seed that is printed. */
import { randomInt } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";

const BUDGET_MS = Number(process.env["FUZZ_SECONDS"] ?? 0.2) * 1000;
/** At least so many, however slow the machine is. */
const RUNS_PER_ROUND = 10;

/** One test; FUZZ_SEED repeats a run. */
export function fuzz(title: string, property: fc.IRawProperty<unknown>): void {
  const seed = Number(process.env["FUZZ_SEED"] ?? randomInt(2 ** 30));
  test(title, async (t) => {
    t.diagnostic(`FUZZ_SEED=${seed}`);
    const end = performance.now() + BUDGET_MS;
    for (let round = 0; round === 0 || performance.now() < end; round++) {
      await fc.assert(property, { seed: seed + round, numRuns: RUNS_PER_ROUND });
    }
  });
}

/** Asserts the law of decoders: a value or the room's error, nothing else. */
export function lawful<Value>(
  decode: () => Value,
  isLawful: (error: unknown) => boolean,
): Value | undefined {
  try {
    return decode();
  } catch (error) {
    if (!isLawful(error)) throw error;
    return undefined;
  }
}

/** Bytes that were valid, with some changed, cut out, repeated or cut off. */
export function mutated(valid: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Uint8Array> {
  const change = fc.record({
    how: fc.constantFrom("set", "cut", "repeat", "end"),
    at: fc.nat(),
    length: fc.integer({ min: 1, max: 8 }),
    byte: fc.nat(255),
  });
  return fc
    .tuple(valid, fc.array(change, { minLength: 1, maxLength: 4 }))
    .map(([bytes, changes]) => {
      let result = [...bytes];
      for (const { how, at, length, byte } of changes) {
        const start = result.length === 0 ? 0 : at % result.length;
        if (how === "set") result[start] = byte;
        else if (how === "cut") result.splice(start, length);
        else if (how === "repeat") result.splice(start, 0, ...result.slice(start, start + length));
        else result = result.slice(0, start);
      }
      return Uint8Array.from(result);
    });
}

/** Plain objects; fast-check's own records sometimes have no prototype, which is no concern here. */
export function record<Value>(
  fields: { [Key in keyof Value]: fc.Arbitrary<Value[Key]> },
): fc.Arbitrary<Value> {
  return fc.record(fields, { noNullPrototype: true }) as fc.Arbitrary<Value>;
}
