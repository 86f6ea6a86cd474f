/** A folder that shall be there. */
import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { errorText } from "./error-text.ts";

/**
 * Makes the folder and those that it lies in, where they are not there yet. Node's own way
 * (`recursive`) never ends where a file system says that a folder is missing whose parent is there:
 * `/proc` does.
 *
 * @param mode of each that is made, before the umask.
 * @throws Error that names the folder, and the one of which the system says what.
 */
export async function makeFolder(folder: string, mode = 0o777): Promise<void> {
  try {
    await make(folder, mode);
  } catch (error) {
    throw new Error(`can't make the folder ${folder}: ${errorText(error)}`, { cause: error });
  }
}

async function make(folder: string, mode: number): Promise<void> {
  const parent = dirname(folder);
  try {
    await mkdir(folder, mode);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" && (await isFolder(folder))) return;
    if (code !== "ENOENT" || parent === folder || (await isFolder(parent))) throw error;
    await make(parent, mode);
    await make(folder, mode);
  }
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
