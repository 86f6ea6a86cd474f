/**
 * An instant as RFC 3339 text in UTC with six fractional digits: `2026-11-23T01:51:51.046648Z`.
 *
 * @param at milliseconds since the epoch, with microseconds behind the point as in `Clock.now`.
 */
export function formatTimestamp(at: number): string {
  const milliseconds = Math.floor(at);
  // A double holds today's instants to a quarter of a microsecond: 648 may be stored as 647.9.
  const microseconds = Math.min(Math.round((at - milliseconds) * 1000), 999);
  const text = new Date(milliseconds).toISOString();
  return `${text.slice(0, -1)}${String(microseconds).padStart(3, "0")}Z`;
}
