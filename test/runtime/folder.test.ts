import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { makeFolder } from "../../src/runtime/folder.ts";

const IN_THE_WAY = "a file is in the way, remove it or choose another (EEXIST)";
const NO_FOLDER = "a file is where a folder should be, remove it or choose another (ENOTDIR)";

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
  const cases: readonly (readonly [folder: string, why: string, at: string])[] = [
    ["/proc/x", "/proc takes none (ENOENT)", "/proc/x"],
    ["/proc/x/y", "/proc takes none (ENOENT)", "/proc/x"],
    [join(root, "file"), IN_THE_WAY, join(root, "file")],
    [join(root, "file/x"), NO_FOLDER, join(root, "file/x")],
    [join(root, "dangling/x"), IN_THE_WAY, join(root, "dangling")],
    ["", ". takes none (ENOENT)", ""],
  ];
  for (const [folder, why, at] of cases) {
    await assert.rejects(makeFolder(folder), {
      message: `can't make the folder ${at}: ${why}`,
    });
  }
});
