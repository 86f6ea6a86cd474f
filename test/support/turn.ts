/** The event loop's turn, for work that waits until everything that was ready has been read. */

/** Runs the callback once, after the reads of the running turn and before the next ones. */
export const afterTurn: (callback: () => void) => void = setImmediate;
