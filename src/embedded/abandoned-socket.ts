/** What an agent that was killed leaves behind. */
import { lstatSync, rmSync } from "node:fs";

/** Removes the file of a socket that nobody serves; a file of another kind was not ours and stays. */
export function removeAbandonedSocket(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true)
    rmSync(path, { force: true });
}
