/** What a test can't do without and does not find. */

/**
 * Makes a test say so: for its `skip`.
 *
 * @throws Error with the reason in CI, where nothing passes by being skipped.
 */
export function missingTool(reason: string): string {
  if (process.env["CI"] === "true") throw new Error(reason);
  return reason;
}
