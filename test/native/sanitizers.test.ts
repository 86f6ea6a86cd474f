/**
 * The addon's own tests once more, on a build with the address, leak and undefined-behaviour
 * sanitizers. Only what the addon does is checked: Node itself is not built with them, so an access
 * of it to freed memory is not seen, but what it allocates for the addon is.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, globSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { missingTool } from "../support/missing-tool.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TESTS = ["test/net/*.test.ts", "test/fuzz/reactor.fuzz.test.ts"];
const OPTIONS = "halt_on_error=1:exitcode=99";

// Compiles and runs for 40 s on two idle cores, and far longer beside other work.
const options = { timeout: 480_000 };

test("the addon's tests pass with the sanitizers, and nothing leaks", options, async (t) => {
  const library = sanitizerLibrary();
  if (library === undefined) {
    return t.skip(missingTool("the C++ compiler has no libasan: install it, or set CXX to g++"));
  }
  await run([`${ROOT}native/build.mjs`, "--sanitize"], {}, t.signal);
  const hook = `${ROOT}test/support/sanitized-addon.mjs`;
  const output = await run(
    ["--import", hook, "--test", "--test-concurrency=2", ...globSync(TESTS, { cwd: ROOT })],
    {
      LD_PRELOAD: library,
      ASAN_OPTIONS: `${OPTIONS}:detect_leaks=1`,
      LSAN_OPTIONS: `suppressions=${ROOT}test/native/leak-suppressions.txt:print_suppressions=0`,
      UBSAN_OPTIONS: `${OPTIONS}:print_stacktrace=1`,
    },
    t.signal,
  );
  for (const [seed] of output.matchAll(/FUZZ_SEED=\d+/g)) t.diagnostic(seed);
});

/** What the address sanitizer needs to be loaded before everything else. */
function sanitizerLibrary(): string | undefined {
  const compiler = process.env["CXX"] ?? "c++";
  const { stdout } = spawnSync(compiler, ["-print-file-name=libasan.so"], { encoding: "utf8" });
  const path = stdout?.trim() ?? "";
  // A compiler without it answers with the bare name.
  return path.startsWith("/") && existsSync(path) ? path : undefined;
}

/** Runs this Node. @throws AssertionError with all output when it fails. */
async function run(
  parameters: readonly string[],
  more: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<string> {
  // With it, a test runner would only report to ours.
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
  const child = spawn(process.execPath, parameters, {
    cwd: ROOT,
    env: { ...environment, ...more },
    stdio: ["ignore", "pipe", "pipe"],
    signal,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const status = await new Promise((resolve, reject) => {
    child.once("close", resolve).once("error", reject);
  });
  assert.equal(status, 0, output);
  return output;
}
