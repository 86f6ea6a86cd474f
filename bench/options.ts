/** What `npm run bench -- …` says. */
import { parseArgs } from "node:util";

export const BENCH_USAGE = `npm run bench -- [NAME...] [--quick] [--soak] [--node-a CMD] [--node-b CMD]

  NAME            only the benches whose path contains one of the names
  --quick         shorter runs with rougher figures
  --soak          also the soak of five minutes, although it is not named
  --node-a CMD    another ztunnel on the client's node, started by this shell command
  --node-b CMD    the same on the server's node
  --help          print this and the names of all benches

bench/README.md tells what is measured and where the figures are left.`;

export interface BenchOptions {
  readonly wantsHelp: boolean;
  /** Parts of the names of the benches to run; none: all. */
  readonly names: readonly string[];
  /** For shorter runs with rougher figures. */
  readonly isQuick: boolean;
  /** Whether the soak, which takes minutes, runs although it is not named. */
  readonly withSoak: boolean;
  readonly nodeCommands: NodeCommands;
}

/**
 * A shell command each of another ztunnel for the client's node and the server's; ours runs where none is
 * given.
 */
export interface NodeCommands {
  readonly a?: string;
  readonly b?: string;
}

/** @throws Error that names an option that is unknown, empty or lacks its value. */
export function parseBenchOptions(args: readonly string[]): BenchOptions {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      help: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      soak: { type: "boolean", default: false },
      "node-a": { type: "string" },
      "node-b": { type: "string" },
    },
  });
  const a = command("--node-a", values["node-a"]);
  const b = command("--node-b", values["node-b"]);
  return {
    wantsHelp: values.help,
    names: positionals,
    isQuick: values.quick,
    withSoak: values.soak,
    nodeCommands: { ...(a === undefined ? {} : { a }), ...(b === undefined ? {} : { b }) },
  };
}

/** The arguments that say the same to a bench in a process of its own. */
export function benchArguments({ isQuick, nodeCommands: { a, b } }: BenchOptions): string[] {
  return [
    ...(isQuick ? ["--quick"] : []),
    ...(a === undefined ? [] : [`--node-a=${a}`]),
    ...(b === undefined ? [] : [`--node-b=${b}`]),
  ];
}

function command(option: string, text: string | undefined): string | undefined {
  if (text?.trim() === "") throw new Error(`${option} needs a command`);
  return text;
}
