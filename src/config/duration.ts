/**
 * Durations as operators write them: numbers with units, put together (`1m30s`), summed (`1m+30`)
 * or multiplied (`1m*10`, counted in seconds). A number without a unit is in seconds.
 *
 * @see spec control-plane 6.
 */

const SECOND_MS = 1000;
export const DAY_MS: number = 86_400 * SECOND_MS;
/** Longer than any process lives. */
export const DURATION_MS_MAX: number = 3650 * DAY_MS;

/** Milliseconds of each unit; a month has 30 days, a year 365. */
const UNITS: readonly (readonly [name: RegExp, ms: number])[] = [
  [/^(ns|nsecs?|nanoseconds?)$/i, 1e-6],
  [/^(us|µs|usecs?|microseconds?)$/i, 1e-3],
  [/^(ms|msecs?|milliseconds?)$/i, 1],
  [/^(|s|secs?|seconds?)$/i, SECOND_MS],
  [/^(m|mins?|minutes?)$/i, 60 * SECOND_MS],
  [/^(h|hrs?|hours?)$/i, 3600 * SECOND_MS],
  [/^(d|days?)$/i, DAY_MS],
  [/^(w|weeks?)$/i, 7 * DAY_MS],
  [/^(mon|months?)$/i, 30 * DAY_MS],
  [/^(y|years?)$/i, 365 * DAY_MS],
];

/** Only the last of several numbers may lack its unit. */
const TERMS = /^(?:\s*\d+\s*[a-zµ]+)*\s*\d+\s*[a-zµ]*\s*$/i;

/** @returns milliseconds, or `undefined` when the text is no duration. */
export function parseDuration(text: string): number | undefined {
  const factors = text.split("*");
  if (factors.length > 1 && text.includes("+")) return undefined;
  let product = 1;
  for (const factor of factors) {
    const ms = sum(factor);
    if (ms === undefined) return undefined;
    product *= ms / SECOND_MS;
  }
  const ms = product * SECOND_MS;
  return Number.isSafeInteger(Math.round(ms)) ? ms : undefined;
}

function sum(text: string): number | undefined {
  let total = 0;
  for (const part of text.split("+")) {
    const ms = juxtaposed(part);
    if (ms === undefined) return undefined;
    total += ms;
  }
  return total;
}

/** `1m30s` */
function juxtaposed(text: string): number | undefined {
  if (!TERMS.test(text)) return undefined;
  let total = 0;
  for (const [, digits, unit = ""] of text.matchAll(/(\d+)\s*([a-zµ]*)/gi)) {
    const found = UNITS.find(([name]) => name.test(unit));
    if (found === undefined) return undefined;
    total += Number(digits) * found[1];
  }
  return total;
}
