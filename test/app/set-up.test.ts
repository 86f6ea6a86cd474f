/** What `npm run demo`, `npm test` and `npm run bench` do first. */
import assert from "node:assert/strict";
import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

const SET_UP = join(import.meta.dirname, "../../src/set-up.mjs");

function setUp(environment: Readonly<Record<string, string>> = {}): SpawnSyncReturns<string> {
  const env = { ...process.env, ...environment };
  return spawnSync(process.execPath, [SET_UP], { env, encoding: "utf8" });
}

test("a set-up that is up to date does nothing and says nothing", () => {
  const { status, stdout, stderr } = setUp();
  assert.deepEqual([status, stdout, stderr], [0, "", ""]);
});

test("without a C++ compiler set-up names the package in one line", () => {
  const { status, stderr } = setUp({ CXX: "/nowhere/c++" });
  assert.equal(status, 1);
  assert.equal(
    stderr,
    "set-up: no C++ compiler found (tried /nowhere/c++): install the package g++, on Debian with: apt-get install g++\n",
  );
});
