import assert from "node:assert/strict";
import { mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { FileWatch } from "../../src/runtime/file-watch.ts";
import { FakeClock } from "../support/fake-clock.ts";

const folder = mkdtempSync(join(tmpdir(), "watch-"));
after(() => rmSync(folder, { recursive: true }));
let files = 0;

async function open(path: string) {
  const clock = new FakeClock();
  const told: string[] = [];
  const changed = (content: Buffer): void => void told.push(content.toString());
  const watch = await FileWatch.open(clock, changed, { path, everyMs: 2000 });
  /** Past the next look, which reads a real file. */
  const look = async (): Promise<void> => {
    await clock.advance(2000);
    while (clock.pendingCount === 0) await setImmediate();
  };
  return { watch, told, look, clock };
}

const freshPath = (): string => join(folder, String(++files));

test("a change is told once, the first content is there from the beginning", async () => {
  const path = freshPath();
  writeFileSync(path, "one");
  const { watch, told, look } = await open(path);
  assert.equal(watch.first.toString(), "one");
  await look();
  writeFileSync(path, "two");
  await look();
  await look();
  assert.deepEqual(told, ["two"]);
  watch.close();
});

test("a file that comes late is told, one that goes is not", async () => {
  const path = freshPath();
  const { watch, told, look } = await open(path);
  assert.match(String(watch.first), /ENOENT/);
  writeFileSync(path, "one");
  await look();
  unlinkSync(path);
  await look();
  writeFileSync(path, "one");
  await look();
  assert.deepEqual(told, ["one"]);
  watch.close();
});

test("a switched link is followed", async () => {
  const path = freshPath();
  writeFileSync(`${path}.1`, "one");
  writeFileSync(`${path}.2`, "two");
  symlinkSync(`${path}.1`, path);
  const { watch, told, look } = await open(path);
  symlinkSync(`${path}.2`, `${path}.new`);
  renameSync(`${path}.new`, path);
  await look();
  assert.deepEqual(told, ["two"]);
  watch.close();
});

test("a closed watch keeps no timer", async () => {
  const { watch, clock } = await open(freshPath());
  watch.close();
  assert.equal(clock.pendingCount, 0);
});
