import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { tokenFileNotes } from "../../src/embedded/caller-check.ts";

test("a token file that lets nobody in is named, whether it lacks its text or is not there", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ztunnel-tokens-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const [good, empty, absent] = ["good", "empty", "absent"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  writeFileSync(good, "secret\n");
  writeFileSync(empty, "\n");
  const nodeTokenFiles = new Map([
    ["node-a", empty],
    ["node-b", absent],
  ]);
  assert.deepEqual(await tokenFileNotes({ tokenFile: good, nodeTokenFiles }), [
    `the token file ${empty} is empty: it lets nobody in`,
    `can't read the token file ${absent} yet, so it lets nobody in: it is not there, make it or name another (ENOENT)`,
  ]);
  assert.deepEqual(
    await tokenFileNotes({ tokenFile: undefined, nodeTokenFiles: new Map([["node-a", good]]) }),
    [],
  );
});
