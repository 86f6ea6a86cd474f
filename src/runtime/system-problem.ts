/** Why the system refused a path or an address that somebody named, and what can be done about it. */
import { errorText } from "./error-text.ts";

/** By the code of the error. What is not here keeps the system's own words. */
const WORDS: Readonly<Record<string, string>> = {
  EACCES: "permission denied, run as root or as another user who may",
  EADDRINUSE: "something else has it, end that or choose another",
  EADDRNOTAVAIL: "this machine does not have that address, choose one of its own",
  EAI_AGAIN: "the host name can't be looked up now, correct it or try again",
  EEXIST: "a file is in the way, remove it or choose another",
  EISDIR: "it is a folder, name a file in it",
  ENAMETOOLONG: "it is too long, choose a shorter one",
  ENOENT: "it is not there, make it or name another",
  ENOTDIR: "a file is where a folder should be, remove it or choose another",
  ENOTFOUND: "no such host name, correct it",
  EPERM: "not permitted, run as root or as another user who may",
  EROFS: "it can only be read, choose another",
};

/**
 * The words, with the code behind them by which the cause may be looked up.
 *
 * @param thrown by Node or the addon; what has no known code is told as it is.
 * @returns half a sentence about the path or address, which the caller names.
 */
export function systemProblem(thrown: unknown): string {
  const { code } = (thrown ?? {}) as NodeJS.ErrnoException;
  const words = code === undefined ? undefined : WORDS[code];
  return words === undefined ? errorText(thrown) : `${words} (${code})`;
}
