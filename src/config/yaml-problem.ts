/** What a text that is no YAML lacks, short enough for a line of a log or terminal. */

/** Enough for what is expected and the beginning of what is there instead. */
const CHARACTERS_MAX = 160;

/** @param message of the parser, which quotes whatever it did not understand, be it the whole file. */
export function yamlProblem(message: string): string {
  const line = message.replaceAll("\n", "\\n");
  return line.length <= CHARACTERS_MAX ? line : `${line.slice(0, CHARACTERS_MAX)}…`;
}
