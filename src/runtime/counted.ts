/** Numbers of things, for people. */

/**
 * `1 pod`, `2 pods`.
 *
 * @param others more than one of them, or none; left out where an `s` makes it so.
 */
export function counted(count: number, one: string, others: string = `${one}s`): string {
  return `${count} ${count === 1 ? one : others}`;
}
