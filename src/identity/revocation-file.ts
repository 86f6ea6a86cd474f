/**
 * The file of revocation lists: it may come late, be written in place, or lie behind the links that
 * Kubernetes switches.
 *
 * @see spec control-plane 5.10.
 */
import type { Clock } from "../runtime/clock.ts";
import { counted } from "../runtime/counted.ts";
import { errorText } from "../runtime/error-text.ts";
import { FileWatch } from "../runtime/file-watch.ts";
import type { Logger } from "../telemetry/logger.ts";
import { parseRevocationLists, type RevocationList } from "../tls/revocation-list.ts";

/** A revocation takes effect within so long. */
const LOOK_EVERY_MS = 2000;

export interface RevocationFileDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Told of the first good content, and of each further one. */
  readonly changed: (lists: readonly RevocationList[]) => void;
}

/**
 * Settles when the file was looked at once. Never rejects: without lists nobody is revoked. Whoever
 * wants no revocations any more empties the file; one that is gone revokes on.
 */
export async function watchRevocationFile(
  { clock, log, changed }: RevocationFileDeps,
  path: string,
): Promise<FileWatch> {
  let hasLists = false;
  const take = (content: Buffer): void => {
    let lists: readonly RevocationList[];
    try {
      lists = parseRevocationLists(content);
    } catch (error) {
      const consequence = hasLists ? "keeping the former ones" : "nobody is revoked";
      log.write("warn", `${path}: ${errorText(error)}; ${consequence}`);
      return;
    }
    hasLists = true;
    const count = lists.reduce((sum, { serials }) => sum + serials.count, 0);
    const names = lists.length === 1 ? "names" : "name";
    log.write(
      "info",
      `${counted(lists.length, "certificate revocation list")} ${names} ${counted(count, "certificate")}`,
    );
    changed(lists);
  };
  const watch = await FileWatch.open(clock, take, { path, everyMs: LOOK_EVERY_MS });
  if (watch.first instanceof Error) {
    log.write(
      "warn",
      `can't read the certificate revocation lists: ${watch.first.message}; nobody is revoked until they are there`,
    );
  } else take(watch.first);
  return watch;
}
