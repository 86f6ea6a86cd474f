/**
 * The `traceparent` header (W3C Trace Context level 1): one per TCP connection, so that the log
 * lines of both proxies can be put side by side.
 */
import type { Random } from "../runtime/random.ts";

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$/i;

/** A new trace that nobody samples: `00-<32 hex>-<16 hex>-00`. */
export function makeTraceparent(random: Random): string {
  return `00-${random.hex(16)}-${random.hex(8)}-00`;
}

/** @returns the trace id, 32 lower-case hex characters, or `undefined` when there is none to use. */
export function parseTraceparent(text: string): string | undefined {
  const match = TRACEPARENT.exec(text);
  if (match === null) return undefined;
  const [, version = "", traceId = "", parentId = ""] = match;
  // Trace Context 3.2.2: version ff and ids of all zeros are invalid.
  if (version.toLowerCase() === "ff" || /^0+$/.test(traceId) || /^0+$/.test(parentId)) {
    return undefined;
  }
  return traceId.toLowerCase();
}
