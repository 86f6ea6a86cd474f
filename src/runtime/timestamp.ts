/**
 * Makes a function that writes instants as RFC 3339 text in UTC with six fractional digits:
 * `2026-11-23T01:51:51.046648Z`. It takes milliseconds since the epoch, with microseconds behind
 * the point as in `Clock.now`, and keeps the text of the current second: three times as fast.
 */
export function timestampFormatter(): (at: number) => string {
  let second = Number.NaN;
  let prefix = "";
  return (at) => {
    const atSecond = Math.floor(at / 1000);
    if (atSecond !== second) {
      second = atSecond;
      prefix = new Date(second * 1000).toISOString().slice(0, "2026-11-23T01:51:51.".length);
    }
    // A double holds today's instants to a quarter of a microsecond: 648 may be stored as 647.9.
    const microseconds = Math.min(Math.round((at - second * 1000) * 1000), 999_999);
    return `${prefix}${String(1_000_000 + microseconds).slice(1)}Z`;
  };
}

/** One instant, as {@link timestampFormatter} writes it. */
export function formatTimestamp(at: number): string {
  return timestampFormatter()(at);
}
