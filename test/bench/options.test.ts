import assert from "node:assert/strict";
import { test } from "node:test";
import { benchArguments, parseBenchOptions } from "../../bench/options.ts";

test("names, a quick run and commands for the nodes are told apart in any order", () => {
  const args = ["path/bulk", "--node-a", "ztunnel proxy ztunnel", "--quick", "route", "--soak"];
  assert.deepEqual(parseBenchOptions(args), {
    names: ["path/bulk", "route"],
    isQuick: true,
    withSoak: true,
    nodeCommands: { a: "ztunnel proxy ztunnel" },
  });
  assert.deepEqual(parseBenchOptions([]), {
    names: [],
    isQuick: false,
    withSoak: false,
    nodeCommands: {},
  });
});

test("a bench in a process of its own is told the same, whatever a command looks like", () => {
  const commands = { a: "env XDS_ADDRESS= /opt/ztunnel", b: "--odd 'quoted words' $HOME" };
  const options = { names: ["bulk"], isQuick: true, withSoak: false, nodeCommands: commands };
  const told = parseBenchOptions(benchArguments(options));
  assert.deepEqual(told, { ...options, names: [] });
});

for (const { args, words } of [
  { args: ["--node-a"], words: /--node-a/ },
  { args: ["--node-b", " "], words: /--node-b needs a command/ },
  { args: ["--node-c", "x"], words: /--node-c/ },
  { args: ["--quik"], words: /--quik/ },
]) {
  test(`${args.join(" ")} is refused by its name`, () => {
    assert.throws(() => parseBenchOptions(args), words);
  });
}
