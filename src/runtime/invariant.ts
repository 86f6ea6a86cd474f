/** Broken contracts: bugs of ours, never bad input. Nobody catches these. */
export class InvariantError extends Error {
  override readonly name = "InvariantError";
}

/** @throws InvariantError when the condition is false. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}
