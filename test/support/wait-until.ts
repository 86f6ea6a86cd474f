/** Waiting for what a test can only look at. */

/** A busy machine is slow, an emulated one slower still; only a failure takes that long. */
const READY_MS_MAX = 30_000 * Number(process.env["TEST_PATIENCE"] ?? 1);

/** Polls every few milliseconds. @throws with the given words when it takes too long. */
export async function waitUntil(
  condition: () => boolean | Promise<boolean>,
  otherwise: string,
  withinMs: number = READY_MS_MAX,
): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(otherwise);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
