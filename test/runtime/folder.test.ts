import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { makeFolder } from "../../src/runtime/folder.ts";

const root = mkdtempSync(join(tmpdir(), "folder-"));
after(() => rmSync(root, { recursive: true }));

test("a folder is made with all that it lies in, each with the mode; again it is left as it is", async () => {
  const folder = join(root, "a/b/c");
  await makeFolder(folder, 0o700);
  for (const path of [folder, join(root, "a")]) assert.equal(statSync(path).mode & 0o777, 0o700);
  await makeFolder(folder, 0o755);
  assert.equal(statSync(folder).mode & 0o777, 0o700);
});

test("two may make the same folder at the same time, and it may be behind a link", async () => {
  mkdirSync(join(root, "real"));
  symlinkSync("real", join(root, "link"));
  const folder = join(root, "link/x/y");
  await Promise.all([makeFolder(folder), makeFolder(folder)]);
  assert.ok(statSync(join(root, "real/x/y")).isDirectory());
});

test("where none can be made, it says so and ends", async () => {
  writeFileSync(join(root, "file"), "");
  symlinkSync("nowhere", join(root, "dangling"));
  const cases: readonly (readonly [folder: string, code: string, at: string])[] = [
    ["/proc/x", "ENOENT: no such file or directory", "/proc/x"],
    ["/proc/x/y", "ENOENT: no such file or directory", "/proc/x"],
    [join(root, "file"), "EEXIST: file already exists", join(root, "file")],
    [join(root, "file/x"), "ENOTDIR: not a directory", join(root, "file/x")],
    [join(root, "dangling/x"), "EEXIST: file already exists", join(root, "dangling")],
    ["", "ENOENT: no such file or directory", ""],
  ];
  for (const [folder, code, at] of cases) {
    await assert.rejects(makeFolder(folder), {
      message: `can't make the folder ${folder}: ${code}, mkdir '${at}'`,
    });
  }
});
