import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { benchArguments, parseBenchOptions } from "../../bench/options.ts";

const BENCH = join(import.meta.dirname, "../../bench");
const RUN = join(BENCH, "run.ts");
const COMPARE = join(BENCH, "compare.ts");

test("names, a quick run and commands for the nodes are told apart in any order", () => {
  const args = ["path/bulk", "--node-a", "ztunnel proxy ztunnel", "--quick", "route", "--soak"];
  assert.deepEqual(parseBenchOptions(args), {
    wantsHelp: false,
    names: ["path/bulk", "route"],
    isQuick: true,
    withSoak: true,
    nodeCommands: { a: "ztunnel proxy ztunnel" },
  });
  assert.deepEqual(parseBenchOptions([]), {
    wantsHelp: false,
    names: [],
    isQuick: false,
    withSoak: false,
    nodeCommands: {},
  });
});

test("a bench in a process of its own is told the same, whatever a command looks like", () => {
  const commands = { a: "env XDS_ADDRESS= /opt/ztunnel", b: "--odd 'quoted words' $HOME" };
  const options = {
    ...{ wantsHelp: false, names: ["bulk"], isQuick: true, withSoak: false },
    nodeCommands: commands,
  };
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

test("--help tells every option and the names of the benches, and runs none", () => {
  const help = execFileSync(process.execPath, [RUN, "--help"], { encoding: "utf8" });
  for (const word of ["--quick", "--soak", "--node-a CMD", "--node-b CMD", "  path/bulk\n"]) {
    assert.ok(help.includes(word), word);
  }
});

test("a run that is compared must be one", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ztunnel-bench-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, "odd.json");
  writeFileSync(file, "{}");
  const told = spawnSync(process.execPath, [COMPARE, file, file], { encoding: "utf8" });
  assert.equal(told.stderr, `bench: ${file}: no run of npm run bench\n`);
  assert.equal(told.status, 1);
});
