import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { LogDestination } from "../../src/telemetry/log-destination.ts";
import { FakeClock } from "../support/fake-clock.ts";

function openFile(t: TestContext): { readonly fd: number; readonly read: () => string } {
  const folder = mkdtempSync(join(tmpdir(), "log-destination-"));
  const path = join(folder, "log");
  const fd = openSync(path, "a");
  t.after(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
  return { fd, read: () => readFileSync(path, "utf8") };
}

test("lines are gathered and written in order", async (t) => {
  const { fd, read } = openFile(t);
  const clock = new FakeClock();
  const destination = new LogDestination(
    { clock, dropped: () => assert.fail("nothing is dropped") },
    { fd, bufferBytesMax: 1 << 20 },
  );
  destination.write("one\n");
  destination.write("two\n");
  assert.equal(read(), "");
  assert.equal(clock.pendingCount, 1);
  await clock.advance(5);
  destination.write("three\n");
  await destination.flush();
  assert.equal(read(), "one\ntwo\nthree\n");
});

test("a flush with nothing to write settles", async (t) => {
  const { fd } = openFile(t);
  const destination = new LogDestination(
    { clock: new FakeClock(), dropped: () => {} },
    { fd, bufferBytesMax: 1 << 20 },
  );
  await destination.flush();
});

test("lines beyond the bound are dropped and counted", async (t) => {
  const { fd, read } = openFile(t);
  const clock = new FakeClock();
  let droppedLineCount = 0;
  const destination = new LogDestination(
    { clock, dropped: (lineCount) => (droppedLineCount += lineCount) },
    { fd, bufferBytesMax: 100_000 },
  );
  const line = `${"x".repeat(69_999)}\n`;
  destination.write(line);
  destination.write(line);
  destination.write(line);
  await destination.flush();
  assert.equal(read(), line);
  assert.equal(droppedLineCount, 2);
});

test("an output that can't be written swallows lines instead of failing", async () => {
  const destination = new LogDestination(
    { clock: new FakeClock(), dropped: () => {} },
    { fd: openSync("/dev/full", "a"), bufferBytesMax: 1 << 20 },
  );
  destination.write("nobody reads this\n");
  await destination.flush();
  destination.write("nor this\n");
  await destination.flush();
});
