/**
 * For mistakes of whoever typed the command: one line instead of a stack, and exit code 1.
 *
 * @param read throws an Error that says what is wrong.
 */
export function orGiveUp<Value>(read: () => Value): Value {
  try {
    return read();
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : error}`);
    process.exit(1);
  }
}
