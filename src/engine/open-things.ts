/** What an engine has open, so that closing the engine leaves nothing behind. */

export type OpenThings = Set<{ destroy(): void }>;

/** Ends all of them; each takes itself out. */
export function destroyAll(open: OpenThings): void {
  for (const thing of [...open]) thing.destroy();
}
