/** Sums in the text of a scrape. */

/**
 * @param labels which the samples must have, any others are fine.
 * @returns the sum over all samples whose names begin so.
 */
export function sampleSum(
  metrics: string,
  family: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  const wanted = Object.entries(labels).map(([name, value]) => `${name}="${value}"`);
  const lines = metrics
    .split("\n")
    .filter((line) => line.startsWith(family) && wanted.every((label) => line.includes(label)));
  return lines.reduce((total, line) => total + Number(line.slice(line.lastIndexOf(" "))), 0);
}
