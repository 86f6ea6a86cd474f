/** Delays in log lines, as the original writes them: `20ms`, `1.28s`. */
export function formatDelay(delayMs: number): string {
  return delayMs < 1000 ? `${Math.round(delayMs)}ms` : `${Number((delayMs / 1000).toFixed(2))}s`;
}
