/** A folder that shall be there. */
import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { systemProblem } from "./system-problem.ts";

/**
 * Makes the folder and those that it lies in, where they are not there yet. Node's own way
 * (`recursive`) never ends where a file system says that a folder is missing whose parent is there:
 * `/proc` does.
 *
 * @param mode of each that is made, before the umask.
 * @throws Error that names the one of them that can't be made, and what to do.
 */
export async function makeFolder(folder: string, mode = 0o777): Promise<void> {
  try {
    await make(folder, mode);
  } catch (error) {
    const { code, path = folder } = error as NodeJS.ErrnoException;
    // There the system takes no folders: nothing is missing that could be made.
    const reason =
      code === "ENOENT" ? `${dirname(path)} takes none (ENOENT)` : systemProblem(error);
    throw new Error(`can't make the folder ${path}: ${reason}`, { cause: error });
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
